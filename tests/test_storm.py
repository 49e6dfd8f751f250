"""Many processes and threads want one missing file: it is made once, and all get it."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from actors import open_and_report, wait_for
from budget_actors import open_all
from conftest import Lab, sha256
from processes import start

pytestmark = pytest.mark.long


def _released_counted(lab: Lab) -> tuple[str, Path]:
    """Release a file whose recipe counts its executions, and reset the count."""
    count = lab.base / "count"
    before = sha256(lab.derive(recipe="counted", count_file=str(count), seconds=0.5))
    lab.prove()
    lab.release()
    count.write_text("")
    return before, count


def _held_up(lab: Lab) -> tuple[str, Path, BaseProcess]:
    """Start a process that recalls a file; its recipe has begun, and waits for a gate."""
    gate = lab.base / "gate"
    gate.touch()
    before = sha256(lab.derive(recipe="waits", gate=str(gate)))
    lab.prove()
    lab.release()
    gate.unlink()
    started = Path(f"{gate}.started")
    started.unlink()
    first = start(open_and_report, "recall://lab/derived.h5", str(lab.base / "first"))
    wait_for(started, first)
    return before, gate, first


def test_sixteen_processes_cause_one_execution(lab: Lab) -> None:
    """Sixteen processes that open one released file share one run of its recipe."""
    before, count = _released_counted(lab)
    places = [lab.base / f"reader-{number}" for number in range(16)]
    readers = [start(open_and_report, "recall://lab/derived.h5", str(p)) for p in places]
    for reader in readers:
        reader.join(120)
    assert [reader.exitcode for reader in readers] == [0] * 16
    assert {place.read_text() for place in places} == {before}
    assert len(count.read_text().splitlines()) == 1
    assert len(lab.store.catalog.recalls(lab.entry("derived.h5").id)) == 1


def test_a_thousand_readers_cause_one_execution(lab: Lab) -> None:
    """Sixteen processes with 64 threads each share one recall, and all read the right bytes."""
    before, count = _released_counted(lab)
    reports = [lab.base / f"report-{number}" for number in range(16)]
    urls = ["recall://lab/derived.h5"] * 64
    readers = [start(open_all, urls, str(report)) for report in reports]
    for reader in readers:
        reader.join(200)
    read = [line for report in reports for line in report.read_text().splitlines()]
    assert read == [before] * 1024
    assert len(count.read_text().splitlines()) == 1
    assert len(lab.store.catalog.recalls(lab.entry("derived.h5").id)) == 1


def test_threads_of_one_process_share_a_recall(lab: Lab) -> None:
    """Thirty-two threads that open one released file share one run of its recipe."""
    before, count = _released_counted(lab)
    places = [lab.base / f"reader-{number}" for number in range(32)]
    threads = [
        threading.Thread(target=open_and_report, args=("recall://lab/derived.h5", str(place)))
        for place in places
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {place.read_text() for place in places} == {before}
    assert len(count.read_text().splitlines()) == 1


def test_waiting_readers_share_a_failure(lab: Lab) -> None:
    """When the recipe fails, those who waited get its error; they do not all run it again."""
    _, count = _released_counted(lab)
    # The input is replaced behind recallfs' back by something that the recipe cannot read.
    (lab.root / "raw.h5").unlink()
    readers = [start(open_and_report, "recall://lab/derived.h5", str(lab.base / "x"))]
    readers += [start(open_and_report, "recall://lab/derived.h5", str(lab.base / "y"))]
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [1, 1]
    assert count.read_text() == ""


def test_dead_holder_is_taken_over_at_once(lab: Lab) -> None:
    """When the process that recomputes is killed, a waiting one takes over and finishes."""
    before, gate, first = _held_up(lab)
    second = start(open_and_report, "recall://lab/derived.h5", str(lab.base / "second"))
    time.sleep(0.3)
    first.kill()
    first.join()
    gate.touch()
    second.join(20)
    assert second.exitcode == 0
    assert (lab.base / "second").read_text() == before


def test_holder_that_stood_still_cannot_commit(lab: Lab) -> None:
    """A holder that was stopped is taken over, and what it has when it wakes is thrown away."""
    before, gate, first = _held_up(lab)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)
    gate.touch()
    second = start(open_and_report, "recall://lab/derived.h5", str(lab.base / "second"))
    second.join(30)
    assert second.exitcode == 0
    inode = (lab.root / "derived.h5").stat().st_ino
    os.kill(first.pid, signal.SIGCONT)
    first.join(30)
    assert (lab.root / "derived.h5").stat().st_ino == inode
    assert sha256(lab.root / "derived.h5") == before
    assert not lab.staged
