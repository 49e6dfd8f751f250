"""The process between caller and recipe: when it kills, and when it must not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from recallfs.recipes.executors import ProcessExecutor
from recallfs.recipes.job import Job

SCRIPT = """
import os, sys
from recallfs.recipes.supervision import supervise
supervise(int(sys.argv[1]) or os.getppid())
print("child", flush=True)
{end}
"""


def _supervised(end: str, parent: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=end), str(parent)],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("end", "returncode"),
    [
        ("", 0),
        ("sys.exit(5)", 5),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("os.kill(os.getpid(), 15)", -signal.SIGTERM),
        ("os.kill(os.getpid(), 10)", -signal.SIGUSR1),
    ],
)
def test_supervisor_ends_as_its_child_did(end: str, returncode: int) -> None:
    """Exit codes and signals reach the caller, and only one of the two goes on after the fork."""
    done = _supervised(end)
    assert done.returncode == returncode
    assert done.stdout == "child\n"


def test_supervisor_of_another_parent_does_not_start() -> None:
    """Where the caller is already gone (another parent id), nothing runs."""
    done = _supervised("", parent=1)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "is gone" in done.stderr


def test_end_of_a_thread_is_not_the_end_of_its_process(make_job: Callable[..., Job]) -> None:
    """The kernel's signal for a dead parent kills nothing while the parent lives."""
    job = make_job(
        """
        @recipe(name="made", version="1")
        def made(inputs, output):
            import os, signal, time
            os.kill(os.getppid(), signal.SIGUSR1)
            time.sleep(0.2)
            output.write_text("done")
        """
    )
    ProcessExecutor().execute(job)
    assert job.outputs["output"].read_text() == "done"
