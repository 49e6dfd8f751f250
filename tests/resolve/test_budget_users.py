"""Budgets among users, and on a disk that is really small."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from budget_actors import hold_many_as
from catalog_actors import open_to_all
from processes import run_with_own_mounts, start

pytestmark = pytest.mark.services

ANA, BEN = 64321, 64322


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that all users may write to, and allow one recompute at a time."""
    assert os.getuid() == 0, "only root can become two other users"
    monkeypatch.setenv("RECALLFS_RECALL__RECOMPUTES", "1")
    open_to_all(tmp_path)
    tmp_path.chmod(0o1777)
    return tmp_path


def lines(log: Path) -> list[tuple[str, int, float]]:
    if not log.exists():
        return []
    fields = [line.split() for line in log.read_text().splitlines()]
    return [(word, int(user), float(moment)) for word, _, user, moment in fields]


def wait_for_starts(log: Path, count: int) -> None:
    end = time.monotonic() + 20
    while sum(word == "start" for word, _, _ in lines(log)) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_one_file_does_not_wait_for_another_users_many(shared: Path) -> None:
    """Who asks for one file gets the next free slot but one, however much another user wants."""
    log = shared / "log"
    log.touch()
    log.chmod(0o666)
    many = [start(hold_many_as, ANA, str(log), str(shared), 0.3, 10) for _ in range(2)]
    wait_for_starts(log, 2)
    one = start(hold_many_as, BEN, str(log), str(shared), 0.0, 1)
    one.join(30)
    assert one.exitcode == 0
    told = lines(log)
    asked = next(at for word, user, at in told if (word, user) == ("asked", BEN))
    began = next(at for word, user, at in told if (word, user) == ("start", BEN))
    assert sum(word == "start" and asked < at < began for word, _, at in told) <= 1
    for process in many:
        process.join(60)
        assert process.exitcode == 0
    running = most = 0
    for word, _, _ in lines(log):
        running += {"start": 1, "end": -1}.get(word, 0)
        most = max(most, running)
    assert most == 1


def test_what_another_users_dead_process_held_is_free(shared: Path) -> None:
    """A killed process's ticket, which only its user may remove, holds nobody back."""
    log = shared / "log"
    log.touch()
    log.chmod(0o666)
    killed = start(hold_many_as, ANA, str(log), str(shared), 60.0, 1)
    wait_for_starts(log, 1)
    folder = (shared / "budget").stat()
    assert (folder.st_uid, stat.S_IMODE(folder.st_mode)) == (ANA, 0o1777)
    killed.kill()
    killed.join()
    other = start(hold_many_as, BEN, str(log), str(shared), 0.0, 1)
    other.join(20)
    assert other.exitcode == 0
    assert len(list((shared / "budget").glob("ticket-*"))) == 1, "only ANA may remove it"


def test_space_is_shared_out_on_a_small_disk(tmp_path: Path) -> None:
    """On a disk of 20 MB what does not fit beside the others waits, or is refused at once."""
    run_with_own_mounts("small_disk.py", tmp_path)
