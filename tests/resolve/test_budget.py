"""Budgets among real processes: limits hold, turns are kept, the dead free what they held."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from budget_actors import hold, hold_and_fork, hold_many, note, open_all
from conftest import Lab
from many import made_file, overlaps
from processes import start
from quick_recipes import content
from recallfs.config import Config, Floor, RecallSettings, load_config
from recallfs.errors import InvalidInputError, RecallError, SourceError
from recallfs.resolve.budget import hold_slot
from recallfs.resolve.recall import recall
from recallfs.resolve.tickets import usual_folder
from recallfs.resolve.wish import Wish
from recallfs.sources.base import Need

pytestmark = pytest.mark.long

ONE = Need("recompute", 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Allow one recompute at a time; give a folder to write to."""
    monkeypatch.setenv("RECALLFS_RECALL__RECOMPUTES", "1")
    return tmp_path


def tickets(folder: Path) -> list[str]:
    return [item.name for item in (folder / "budget").glob("ticket-*")]


def wait_until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextlib.contextmanager
def wanted_by(count: int, folder: Path) -> Iterator[threading.Event]:
    """Have threads want the one slot, which the first keeps until the event is set."""
    config = load_config()
    release = threading.Event()

    def hold_it() -> None:
        with hold_slot(config, ONE, folder):
            release.wait(20)

    threads = [threading.Thread(target=hold_it) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield release
    for thread in threads:
        thread.join()


def log_lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def test_processes_take_turns_and_wake_quickly(folder: Path) -> None:
    """With one slot, ten processes run one by one; the next starts soon after one ends."""
    log = folder / "log"
    workers = [start(hold, str(log), str(folder), 0.1) for _ in range(10)]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 10
    assert overlaps(log) == (10, 1)
    times = [float(fields[3]) for fields in log_lines(log)]
    gaps = sorted(times[i + 1] - times[i] for i in range(1, 19, 2))
    assert gaps[len(gaps) // 2] < 0.1, gaps
    assert tickets(folder) == []


def test_hundreds_of_threads_never_exceed_the_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four processes of fifty threads share two slots; no third is ever taken."""
    monkeypatch.setenv("RECALLFS_RECALL__RECOMPUTES", "2")
    log = folder / "log"
    workers = [start(hold_many, str(log), str(folder), 0.005, 50) for _ in range(4)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert overlaps(log) == (200, 2)


def test_waiting_takes_little_time_of_the_processor(folder: Path) -> None:
    """A hundred threads that wait for a slot hardly use the CPU."""
    with wanted_by(100, folder) as release:
        time.sleep(0.5)
        before = time.process_time()
        time.sleep(2)
        used = time.process_time() - before
        release.set()
    assert used < 0.3


@pytest.mark.parametrize("with_child", [False, True], ids=["alone", "forked a child"])
def test_killed_holder_frees_its_slot(folder: Path, *, with_child: bool) -> None:
    """A slot ends with its process, even if a child that it forked lives on."""
    log, child_file = folder / "log", folder / "child"
    if with_child:
        holder = start(hold_and_fork, str(log), str(folder), str(child_file))
    else:
        holder = start(hold, str(log), str(folder), 60.0)
    wait_until(log.exists)
    waiting = threading.Event()
    done: list[float] = []

    def take() -> None:
        waiting.set()
        with hold_slot(load_config(), ONE, folder):
            done.append(time.monotonic())

    thread = threading.Thread(target=take)
    thread.start()
    time.sleep(0.3)
    assert not done
    holder.kill()
    holder.join()
    killed = time.monotonic()
    thread.join(10)
    assert done
    assert done[0] - killed < 1.0
    assert tickets(folder) == []
    if with_child:
        os.kill(int(child_file.read_text()), signal.SIGKILL)


def test_killed_waiter_is_not_waited_for(folder: Path) -> None:
    """A process that dies in line does not keep those behind it."""
    log = folder / "log"
    with hold_slot(load_config(), ONE, folder):
        first = start(hold, str(log), str(folder), 0.0)
        wait_until(lambda: len(tickets(folder)) == 2)
        second = start(hold, str(log), str(folder), 0.0)
        wait_until(lambda: len(tickets(folder)) == 3)
        first.kill()
        first.join()
    second.join(10)
    assert second.exitcode == 0
    assert tickets(folder) == []


def test_stopped_waiter_is_passed_over(folder: Path) -> None:
    """A process that is stopped in line loses its turn, and gets a later one when it goes on."""
    log = folder / "log"
    with hold_slot(load_config(), ONE, folder):
        first = start(hold, str(log), str(folder), 0.0)
        wait_until(lambda: len(tickets(folder)) == 2)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGSTOP)
    second = start(hold, str(log), str(folder), 0.0)
    second.join(20)
    assert second.exitcode == 0
    os.kill(first.pid, signal.SIGCONT)
    first.join(10)
    assert first.exitcode == 0


def test_stopped_holder_does_not_block(folder: Path) -> None:
    """A process that is stopped while it runs does not keep the slot: others may take over."""
    log = folder / "log"
    holder = start(hold, str(log), str(folder), 60.0)
    wait_until(log.exists)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGSTOP)
    with hold_slot(load_config(), ONE, folder):
        pass
    holder.kill()
    holder.join()


def test_stopped_in_the_worst_moment_blocks_nobody_for_long(folder: Path) -> None:
    """A process that is stopped while it holds the lock on the folder is left behind."""
    (folder / "budget").mkdir(mode=0o700)
    lock = (folder / "budget" / "lock-0").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        with hold_slot(load_config(), ONE, folder):
            assert 1 < time.monotonic() - began < 6
        with hold_slot(load_config(), ONE, folder):
            pass
    assert time.monotonic() - began < 7


def test_interrupt_frees_the_place_in_line(folder: Path) -> None:
    """Ctrl-C while waiting leaves no ticket behind."""
    log = folder / "log"
    with hold_slot(load_config(), ONE, folder):
        waiter = start(hold, str(log), str(folder), 0.0, output=folder / "output")
        wait_until(lambda: len(tickets(folder)) == 2)
        time.sleep(0.5)  # that it waits, and is not just about to
        assert waiter.pid is not None
        os.kill(waiter.pid, signal.SIGINT)
        waiter.join(10)
        assert waiter.exitcode == 1
        assert "KeyboardInterrupt" in (folder / "output.err").read_text()
        assert len(tickets(folder)) == 1


def test_cancelled_wait_ends(folder: Path) -> None:
    """A wait that is no longer wanted ends with an error and leaves nothing."""
    cancelled = threading.Event()
    with hold_slot(load_config(), ONE, folder):
        threading.Timer(0.2, cancelled.set).start()
        with (
            pytest.raises(SourceError, match="cancelled"),
            hold_slot(load_config(), ONE, folder, cancelled=cancelled),
        ):
            pytest.fail("there was no slot")
    assert tickets(folder) == []


def test_long_wait_is_announced_once(folder: Path) -> None:
    """After a second of waiting, one sentence says how many come first."""
    said: list[str] = []
    with wanted_by(8, folder) as release:
        wait_until(lambda: len(tickets(folder)) == 2)
        time.sleep(0.2)
        threading.Timer(1.8, release.set).start()
        with hold_slot(load_config(), ONE, folder, announce=said.append):
            pass
    assert said == ["waiting for a slot: 7 before you"]


def test_full_disk_is_told_at_once_with_the_figures(folder: Path) -> None:
    """Where nothing could make the space, the error says what is needed, free and to stay free."""
    config = Config(recall=RecallSettings(budget_folder=folder / "b", keep_free=Floor(10**9)))
    with (
        pytest.raises(SourceError, match=r"1000\.0 TB are needed.* 1\.0 GB are to stay") as caught,
        hold_slot(config, Need("fetch", 10**15), folder),
    ):
        pytest.fail("there is no such disk")
    assert caught.value.kind == "no-space"


def test_floor_holds_for_recalls(lab: Lab) -> None:
    """A recall that would leave less than recall.keep_free is refused, and nothing is written."""
    lab.write_config('[recall]\nkeep_free = "99.9%"\n')
    made_file_at(lab, "small", 1)
    (lab.root / "small").unlink()
    with pytest.raises(SourceError, match=r"recall\.keep_free") as caught:
        recall(lab.stores, lab.store, "small")
    assert caught.value.kind == "no-space"
    assert not (lab.root / "small").exists()


def made_file_at(lab: Lab, path: str, number: int, *inputs: str, seconds: float = 0.0) -> str:
    """Catalog a file that the recipe `logged` makes."""
    text = lab.config.read_text().replace('"lab_recipes"', '"quick_recipes"')
    lab.config.write_text(text)
    log = str(lab.base / "log")
    parameters = {"number": number, "log": log, "seconds": seconds}
    return made_file(lab, path, content(number), parameters, inputs)


def test_many_recipes_at_once_never_exceed_the_limit(lab: Lab) -> None:
    """Many files asked for at once, by threads of several processes, are made two at a time."""
    count, processes = 24, 4
    lab.write_config("[recall]\nrecomputes = 2\n")
    digests = [made_file_at(lab, f"f{n}", n, seconds=0.15) for n in range(count)]
    for number in range(count):
        (lab.root / f"f{number}").unlink()
    urls = [f"recall://lab/f{number}" for number in range(count)]
    reports = [lab.base / f"report-{number}" for number in range(processes)]
    workers = [
        start(open_all, urls[number::processes], str(reports[number]))
        for number in range(processes)
    ]
    for worker in workers:
        worker.join(200)
    for number, report in enumerate(reports):
        assert report.read_text().splitlines() == digests[number::processes]
    ended, most = overlaps(lab.base / "log")
    assert (ended, most) == (count, 2)


@pytest.mark.parametrize("shape", ["chain", "diamond"])
def test_no_shape_of_derivations_deadlocks(lab: Lab, shape: str) -> None:
    """With one slot, files made from files made from files come back, whoever asks for which."""
    lab.write_config("[recall]\nrecomputes = 1\n")
    (lab.root / "raw").write_text("raw")
    from recallfs.resolve.commit import add_existing

    add_existing(lab.store, ["raw"])
    made: dict[str, str] = {}
    if shape == "chain":
        for number in range(8):
            before = f"f{number - 1}" if number else "raw"
            made[f"f{number}"] = made_file_at(lab, f"f{number}", number, before)
    else:
        made["top"] = made_file_at(lab, "top", 0, "raw")
        for number in range(1, 5):
            made[f"side{number}"] = made_file_at(lab, f"side{number}", number, "top")
        made["bottom"] = made_file_at(lab, "bottom", 9, *(f"side{n}" for n in range(1, 5)))
    for path in made:
        (lab.root / path).unlink()
    reports = [lab.base / f"report-{number}" for number in range(3)]
    orders = [list(made), list(reversed(made)), [list(made)[-1]]]
    workers = [
        start(open_all, [f"recall://lab/{path}" for path in order], str(report))
        for order, report in zip(orders, reports, strict=True)
    ]
    for worker in workers:
        worker.join(120)
    for order, report in zip(orders, reports, strict=True):
        assert report.read_text().splitlines() == [made[path] for path in order]
    assert overlaps(lab.base / "log") == (len(made), 1)


def test_input_released_while_waiting_is_recalled_again(lab: Lab) -> None:
    """An input that goes while its recipe waits for a slot is brought back, not missed."""
    lab.write_config("[recall]\nrecomputes = 1\n")
    made_file_at(lab, "middle", 1)
    digest = made_file_at(lab, "end", 2, "middle")
    (lab.root / "end").unlink()
    said = threading.Event()
    got: list[str] = []

    def read() -> None:
        wish = Wish(announce=lambda sentence: said.set() if "slot" in sentence else None)
        got.append(recall(lab.stores, lab.store, "end", wish).sha256)

    thread = threading.Thread(target=read)
    with hold_slot(lab.stores.config, ONE, lab.root):
        thread.start()
        assert said.wait(10)
        (lab.root / "middle").unlink()
    thread.join(30)
    assert got == [digest]
    assert (lab.root / "middle").exists()


def test_recipe_that_opens_what_is_released_is_told_to_declare_it(lab: Lab) -> None:
    """A recipe that holds the only slot does not wait for another: it gets an error at once."""
    lab.write_config("[recall]\nrecomputes = 1\n")
    made_file_at(lab, "other", 1)
    (lab.root / "other").unlink()
    made_file(lab, "reached", content(1), {"url": "recall://lab/other"}, recipe="reaches")
    (lab.root / "reached").unlink()
    with pytest.raises(RecallError, match="declare it as an input"):
        recall(lab.stores, lab.store, "reached")
    assert not (lab.root / "other").exists()


@pytest.mark.parametrize("problem", ["link", "foreign rights", "file"])
def test_folder_that_is_not_safe_is_refused(tmp_path: Path, problem: str) -> None:
    """A configured folder through which others could meddle is refused in one sentence."""
    folder = tmp_path / "odd"
    if problem == "link":
        (tmp_path / "real").mkdir()
        folder.symlink_to(tmp_path / "real")
    elif problem == "foreign rights":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        folder.touch()
    config = Config(recall=RecallSettings(budget_folder=folder))
    with (
        pytest.raises(InvalidInputError, match=r"recall\.budget_folder") as caught,
        hold_slot(config, ONE, tmp_path),
    ):
        pytest.fail("that folder cannot be used")
    assert caught.value.kind == "invalid-config"


def test_usual_folder_is_shared_or_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without configuration all users share a folder; where that is spoilt, a user has one."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    usual_folder.cache_clear()
    with contextlib.ExitStack() as stack:
        stack.callback(usual_folder.cache_clear)
        with hold_slot(Config(), ONE, tmp_path):
            assert len(list((tmp_path / "recallfs-budget").glob("ticket-*"))) == 1
        assert (tmp_path / "recallfs-budget").stat().st_mode & 0o7777 == 0o1777
        shutil.rmtree(tmp_path / "recallfs-budget")
        (tmp_path / "recallfs-budget").symlink_to(tmp_path)
        usual_folder.cache_clear()
        with hold_slot(Config(), ONE, tmp_path):
            own = tmp_path / f"recallfs-budget-{os.geteuid()}"
            assert len(list(own.glob("ticket-*"))) == 1
        assert "your own processes only" in caplog.text


def test_rubbish_in_the_folder_is_ignored(folder: Path) -> None:
    """Broken, foreign or odd files among the tickets neither block nor break anything."""
    place = folder / "budget"
    place.mkdir()
    place.chmod(0o1777)
    (place / "ticket-broken").write_text("{")
    (place / "ticket-folder").mkdir()
    (place / "ticket-link").symlink_to("/etc/passwd")
    os.mkfifo(place / "ticket-pipe")
    (place / "notes.txt").write_text("mine")
    with hold_slot(load_config(), ONE, folder):
        note(str(folder / "log"), "start")
    assert (place / "notes.txt").exists()


def test_error_in_the_block_frees_the_slot(folder: Path) -> None:
    """Work that fails gives its slot back."""
    with pytest.raises(RecallError), hold_slot(load_config(), ONE, folder):
        raise RecallError("no")
    assert tickets(folder) == []
