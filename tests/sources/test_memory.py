"""What sources answered lately, remembered by one process and shared by all of a user's."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recallfs.errors import (
    IntegrityError,
    NotRecallableError,
    SourceError,
    SourceRateLimitError,
    SourceTimeoutError,
)
from recallfs.sources.memory import FIRST_REST_S, Memory
from scripted import Scripted

ABSENT = NotRecallableError("elsewhere has no abc.")
OUTAGE = SourceTimeoutError("elsewhere did not answer.")


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "caches" / "answers.sqlite", absent_s=60)


def test_nothing_is_remembered_of_what_was_never_asked(memory: Memory) -> None:
    """A source that nobody has asked is to be asked."""
    memory.check(Scripted(), "a")
    assert memory.speed(Scripted()) is None


def test_an_absence_is_that_of_one_file_at_one_place(memory: Memory) -> None:
    """What one source has not, another may have; and it may have other files."""
    memory.note(Scripted(), "a", ABSENT)
    with pytest.raises(NotRecallableError, match="has no abc"):
        memory.check(Scripted(), "a")
    memory.check(Scripted(), "b")
    memory.check(Scripted("there"), "a")


def test_an_absence_is_forgotten_in_time(tmp_path: Path) -> None:
    """After its time the source is asked again."""
    memory = Memory(tmp_path / "answers.sqlite", absent_s=0.2)
    memory.note(Scripted(), "a", ABSENT)
    with pytest.raises(NotRecallableError):
        memory.check(Scripted(), "a")
    time.sleep(0.25)
    memory.check(Scripted(), "a")


def test_an_outage_is_that_of_all_files_and_ends_when_the_source_answers(memory: Memory) -> None:
    """A dead source is not asked for other files either; an answer, even 'absent', ends it."""
    memory.note(Scripted(), "a", OUTAGE)
    for key in ("a", "b"):
        with pytest.raises(SourceError, match=r"did not answer \(\d s ago; it is asked again"):
            memory.check(Scripted(), key)
    memory.note(Scripted(), "c", ABSENT)
    memory.check(Scripted(), "b")


def test_wrong_bytes_are_no_outage(memory: Memory) -> None:
    """A source that lies about one file is still asked for others."""
    memory.note(Scripted(), "a", IntegrityError("other bytes."))
    memory.check(Scripted(), "a")


def test_the_rest_grows_with_each_failure(memory: Memory) -> None:
    """The second failure in a row is remembered twice as long as the first."""
    rests = []
    for _ in range(6):
        memory.note(Scripted(), "a", OUTAGE)
        with pytest.raises(SourceError) as caught:
            memory.check(Scripted(), "a")
        rests.append(caught.value.details["retry_after_s"])
    assert rests[0] == pytest.approx(FIRST_REST_S, abs=0.5)
    assert rests[1] == pytest.approx(2 * FIRST_REST_S, abs=0.5)
    assert rests[-1] == pytest.approx(60, abs=0.5)


def test_a_source_that_asks_to_slow_down_gets_the_time_it_asked_for(memory: Memory) -> None:
    """Retry-After is obeyed by all, and after it one caller tries while the others wait."""
    error = SourceRateLimitError("slow down.", details={"retry_after_s": 0.1})
    memory.note(Scripted(), "a", error)
    with pytest.raises(SourceRateLimitError):
        memory.check(Scripted(), "b")
    time.sleep(0.15)
    memory.check(Scripted(), "b")
    with pytest.raises(SourceRateLimitError):
        memory.check(Scripted(), "c")


def test_forgetting(memory: Memory) -> None:
    """What was remembered of one file, of one source or of all is forgotten when told."""
    here, there = Scripted(), Scripted("there")
    for source in (here, there):
        memory.note(source, "a", ABSENT)
        memory.note(source, "b", ABSENT)
        memory.note(source, "c", OUTAGE)
    memory.forget(here, "a")
    memory.check(here, "a")
    with pytest.raises(NotRecallableError):
        memory.check(here, "b")
    memory.forget(here)
    memory.check(here, "b")
    with pytest.raises(NotRecallableError):
        memory.check(there, "b")
    memory.forget()
    memory.check(there, "b")
    memory.check(there, "c")


def test_processes_share_it(memory: Memory, tmp_path: Path) -> None:
    """What one process learnt, the next one knows; nobody else may read it."""
    code = (
        "import sys; from pathlib import Path; from test_memory import *\n"
        "from scripted import Scripted\n"
        "m = Memory(Path(sys.argv[1]), 60); m.note(Scripted(), 'a', OUTAGE)\n"
        "m.note(Scripted('there'), 'a', ABSENT); m.note_speed(Scripted(), 10**8, 1.0)"
    )
    file = tmp_path / "caches" / "answers.sqlite"
    here = Path(__file__).parent
    folders = f"{here}:{here.parent}"
    subprocess.run(
        [sys.executable, "-c", code, str(file)],
        check=True,
        env={**os.environ, "PYTHONPATH": folders},
    )
    with pytest.raises(SourceError):
        memory.check(Scripted(), "z")
    with pytest.raises(NotRecallableError):
        memory.check(Scripted("there"), "a")
    assert memory.speed(Scripted()) == pytest.approx(1e8)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("what", ["garbage", "folder", "symlink", "unusable place"])
def test_a_file_that_cannot_be_used_costs_nothing_but_memory(tmp_path: Path, what: str) -> None:
    """With no file to share, the process remembers for itself; a symlink is not followed."""
    file = tmp_path / "answers.sqlite"
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    if what == "garbage":
        file.write_bytes(b"not a database" * 1000)
    elif what == "folder":
        file.mkdir()
    elif what == "symlink":
        file.symlink_to(victim)
    else:
        file = victim / "answers.sqlite"
    memory = Memory(file, 60)
    for _ in range(2):  # the first use may be what finds the garbage
        memory.note(Scripted(), "a", ABSENT)
    with pytest.raises(NotRecallableError):
        memory.check(Scripted(), "a")
    assert victim.read_bytes() == b"precious"


def test_what_lies_in_the_future_is_not_believed(memory: Memory, tmp_path: Path) -> None:
    """A clock that was set back does not make an absence or an outage last."""
    memory.note(Scripted(), "a", ABSENT)
    memory.note(Scripted("there"), "a", OUTAGE)
    import sqlite3

    with sqlite3.connect(tmp_path / "caches" / "answers.sqlite") as connection:
        connection.execute("UPDATE absent SET at = at + 7200")
        connection.execute("UPDATE outages SET at = at + 7200, until = until + 7200")
    memory.check(Scripted(), "a")
    memory.check(Scripted("there"), "a")


def test_speeds_are_of_files_large_enough_to_tell(memory: Memory) -> None:
    """A small file says nothing of the speed; later ones move the mean."""
    memory.note_speed(Scripted(), 1000, 0.5)
    assert memory.speed(Scripted()) is None
    memory.note_speed(Scripted(), 10**8, 1.0)
    memory.note_speed(Scripted(), 10**8, 2.0)
    assert memory.speed(Scripted()) == pytest.approx(0.85e8)
