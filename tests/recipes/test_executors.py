"""Recipes in child processes: results, failures of every kind, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest

from recallfs.errors import (
    EnvironmentMismatchError,
    InvalidInputError,
    RecipeFailedError,
    RecomputeError,
)
from recallfs.recipes.executors import ProcessExecutor
from recallfs.recipes.job import Job

MakeJob = Callable[..., Job]

WRITES = """
@recipe(name="made", version="3")
def made(inputs, output, *, text: str = "x"):
    print("said on the way")
    output.write_text(text + "".join(p.read_text() for p in inputs.values()))
"""
TELLS = """
@recipe(name="made", version="1")
def made(inputs, output):
    import json, os, stat, sys, tempfile
    output.write_text(json.dumps({
        "cwd": os.getcwd(), "tmp": tempfile.gettempdir(), "stdin": sys.stdin.read(),
        "session": os.getsid(0), "environ": dict(os.environ), "hash": hash("recallfs"),
        "path": sys.path,
    }))
"""
SLEEPS = """
@recipe(name="made", version="1")
def made(inputs, output, *, pids: str):
    import os, subprocess, time
    from pathlib import Path
    grandchild = subprocess.Popen(["sleep", "300"])
    Path(pids + ".new").write_text(f"{os.getpid()} {grandchild.pid}")
    os.rename(pids + ".new", pids)
    time.sleep(300)
"""
PARENT = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from recallfs.recipes.executors import ProcessExecutor
from recallfs.recipes.job import Job
ProcessExecutor().execute(Job.from_json(json.loads(Path(sys.argv[1]).read_text())))
"""
NWB = """
@recipe(name="made", version="1")
def made(inputs, output):
    from datetime import datetime, timezone
    import numpy as np
    from pynwb import NWBHDF5IO, NWBFile, TimeSeries
    nwb = NWBFile("a session", "made-id", datetime(2024, 1, 1, tzinfo=timezone.utc))
    data = np.random.default_rng().normal(size=(200, 3))
    nwb.add_acquisition(TimeSeries(name="raw", data=data, unit="V", rate=10.0))
    with NWBHDF5IO(output, "w") as io:
        io.write(nwb)
"""


def _run(job: Job) -> bytes:
    ProcessExecutor().execute(job)
    return job.outputs["output"].read_bytes()


def _fails(job: Job, **options: Any) -> RecomputeError:
    with pytest.raises(RecomputeError) as caught:
        ProcessExecutor().execute(job, **options)
    return caught.value


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _await(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def _await_pids(path: Path) -> list[int]:
    assert _await(path.exists)
    return [int(pid) for pid in path.read_text().split()]


def test_output_and_outcome(make_job: MakeJob, tmp_path: Path) -> None:
    """A run leaves a private file, and tells what it took and what it ran in."""
    (tmp_path / "in").write_text(" and input")
    job = make_job(WRITES, inputs={"raw": tmp_path / "in"}, parameters={"text": "text"})
    outcome = ProcessExecutor().execute(job)
    output = job.outputs["output"]
    assert output.read_text() == "text and input"
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert outcome.recipe_version == "3"
    assert len(outcome.source_digest) == 64
    assert "recallfs" in outcome.environment["packages"]
    assert "said on the way" in outcome.log_path.read_text()
    assert outcome.cpu_seconds > 0
    assert 0 < outcome.seconds < 60
    assert outcome.peak_memory_bytes > 1_000_000


def test_memory_of_the_caller_is_not_counted(make_job: MakeJob) -> None:
    """Peak memory is the recipe's own, though its process was started by a larger one."""
    held = bytearray(os.urandom(1 << 20) * 150)
    outcome = ProcessExecutor().execute(make_job(WRITES))
    assert outcome.peak_memory_bytes < len(held)


def test_several_outputs(make_job: MakeJob) -> None:
    """A recipe with several outputs gets a mapping, and must write each."""
    job = make_job(
        """
        @recipe(name="made", version="1", outputs=("a", "b"))
        def made(inputs, output, *, both: bool = True):
            for name in "ab" if both else "a":
                output[name].write_text(name)
        """
    )
    outputs = {name: job.scratch / "out" / name for name in "ab"}
    job = replace(job, outputs=outputs)
    ProcessExecutor().execute(job)
    assert [path.read_text() for path in outputs.values()] == ["a", "b"]
    outputs["b"].unlink()
    error = _fails(replace(job, parameters={"both": False}))
    assert error.kind == "recipe-no-output"
    assert error.details["output"] == "b"


def test_surroundings_are_private_and_scrubbed(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has its own session and folders, no input, and none of the caller's secrets."""
    monkeypatch.setenv("LAB_TOKEN", "secret")
    monkeypatch.setenv("LAB_PLUGINS", "/plugins")
    job = make_job(TELLS)
    told = json.loads(_run(job))
    assert told["cwd"] == str(job.scratch / "work")
    assert told["cwd"] not in told["path"]
    assert told["tmp"] == str(job.scratch / "tmp")
    assert told["stdin"] == ""
    assert told["session"] != os.getsid(0)
    assert told["environ"]["RECALLFS_WORKER"] == "1"
    assert told["environ"]["LAB_PLUGINS"] == "/plugins"
    assert "LAB_TOKEN" not in told["environ"]


def test_hashes_are_fixed_in_seeded_runs(make_job: MakeJob) -> None:
    """Sets of strings have one order in every seeded run."""
    first, second = (json.loads(_run(make_job(TELLS, seed=seed)))["hash"] for seed in (1, 2))
    assert first == second


def test_seeded_nwb_is_identical_and_unseeded_is_not(make_job: MakeJob, tmp_path: Path) -> None:
    """With a seed two pynwb runs give the same bytes; without, ids and times differ."""
    jobs = []
    for name, seed in (("a", 7), ("b", 7), ("c", None), ("d", None)):
        (tmp_path / name).mkdir()
        when = "2024-05-06T07:08:09.123456+00:00"
        jobs.append(make_job(NWB, folder=tmp_path / name, seed=seed, started_at=when))
    with ThreadPoolExecutor(2) as pool:
        seeded, again, unseeded, otherwise = pool.map(_run, jobs)
    assert seeded == again
    assert len({seeded, unseeded, otherwise}) == 3


def test_error_of_a_recipe_is_told_with_its_log(make_job: MakeJob) -> None:
    """The message ends with what was raised; the log's end holds output and traceback."""
    job = make_job(
        """
        @recipe(name="made", version="1")
        def made(inputs, output):
            for number in range(100):
                print("line", number)
            raise KeyError("no such channel\\nsecond line")
        """
    )
    error = _fails(job)
    assert isinstance(error, RecipeFailedError)
    assert "KeyError" in error.message
    assert "no such channel" in error.message
    log = error.details["log"].splitlines()
    assert len(log) == 40
    assert "line 99" in log
    assert "line 0" not in log
    assert any("raise KeyError" in line for line in log)
    assert not any("worker.py" in line for line in log)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("raise SystemExit(0)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os; os._exit(7)", "exit code 7"),
        ("import os; os._exit(0)", "exit code 0"),
    ],
)
def test_leaving_early_is_a_failure(make_job: MakeJob, statement: str, told: str) -> None:
    """A recipe that leaves instead of returning has failed, even with exit code 0."""
    job = make_job(
        f"""
        @recipe(name="made", version="1")
        def made(inputs, output):
            output.write_text("half")
            {statement}
        """
    )
    error = _fails(job)
    assert isinstance(error, RecipeFailedError)
    assert told in error.message


def test_our_own_error_inside_a_recipe_keeps_its_kind_as_cause(make_job: MakeJob) -> None:
    """A recall that failed inside a recipe is no failure to find the recipe's own output."""
    job = make_job(
        """
        @recipe(name="made", version="1")
        def made(inputs, output):
            from recallfs.errors import NotRecallableError
            raise NotRecallableError("gone for good")
        """
    )
    error = _fails(job)
    assert error.kind == "recipe-failed"
    assert error.details["cause"]["kind"] == "not-recallable"


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("pass", "nothing"),
        ("output.write_bytes(b'')", "an empty file"),
        ("output.mkdir()", "a folder"),
        ("output.symlink_to('/etc/hostname')", "a symbolic link"),
        ("__import__('os').mkfifo(output)", "a special file"),
        ("inputs['raw'].hardlink_to(output) if output.write_text('x') else 0", "another name"),
        (
            "output.parent.rename(output.parent.with_name('gone'));"
            "output.parent.symlink_to(inputs['raw'].parent); output.write_text('x')",
            "a file outside",
        ),
    ],
)
def test_what_is_no_output_is_refused(
    make_job: MakeJob, tmp_path: Path, statement: str, found: str
) -> None:
    """Only a regular file of its own, with something in it, counts as written."""
    job = make_job(
        f"""
        @recipe(name="made", version="1")
        def made(inputs, output):
            {statement}
        """,
        inputs={"raw": tmp_path / "raw"},
        outputs={"output": tmp_path / "scratch" / "deep" / "out.bin"},
    )
    error = _fails(job)
    assert error.kind == "recipe-no-output"
    assert found in error.message


def test_file_left_open_is_complete(make_job: MakeJob) -> None:
    """A worker ends like any Python program, so HDF5 files that were left open are flushed."""
    job = make_job(
        """
        kept = []

        @recipe(name="made", version="1")
        def made(inputs, output):
            import h5py
            kept.append(h5py.File(output, "w"))
            kept[0]["x"] = [1, 2, 3]
        """
    )
    ProcessExecutor().execute(job)
    with h5py.File(job.outputs["output"]) as file:
        assert list(file["x"]) == [1, 2, 3]


def test_time_limit_kills_grandchildren_too(make_job: MakeJob, tmp_path: Path) -> None:
    """When its time is up, a recipe goes with all processes it started."""
    pids = tmp_path / "pids"
    started = time.monotonic()
    error = _fails(make_job(SLEEPS, parameters={"pids": str(pids)}, timeout_s=2.5))
    assert error.kind == "recipe-timeout"
    assert time.monotonic() - started < 20
    assert not any(_is_alive(pid) for pid in _await_pids(pids))


def test_cancelling_kills_grandchildren_too(make_job: MakeJob, tmp_path: Path) -> None:
    """A caller that lost its lease ends the run from another thread."""
    pids, cancelled = tmp_path / "pids", threading.Event()

    def cancel() -> None:
        if _await(pids.exists):
            cancelled.set()

    watcher = threading.Thread(target=cancel)
    watcher.start()
    error = _fails(make_job(SLEEPS, parameters={"pids": str(pids)}), cancelled=cancelled)
    watcher.join()
    assert error.kind == "recipe-killed"
    assert error.details["cancelled"] is True
    assert not any(_is_alive(pid) for pid in _await_pids(pids))


@pytest.mark.parametrize(
    ("number", "returncode"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, None)]
)
def test_death_of_the_parent_takes_all(
    make_job: MakeJob, tmp_path: Path, number: signal.Signals, returncode: int | None
) -> None:
    """A parent that is killed or interrupted leaves neither the recipe nor its children."""
    pids = tmp_path / "pids"
    job = make_job(SLEEPS, parameters={"pids": str(pids)})
    described = tmp_path / "described.json"
    described.write_text(json.dumps(job.to_json()))
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(described)], stderr=subprocess.DEVNULL
    ) as parent:
        started = _await_pids(pids)
        assert all(_is_alive(pid) for pid in started)
        parent.send_signal(number)
        ended = parent.wait(20)
    assert ended == returncode if returncode is not None else ended != 0
    assert _await(lambda: not any(_is_alive(pid) for pid in started))


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA holds on Linux only")
def test_memory_limit(make_job: MakeJob) -> None:
    """Needing more than the limit is told as such, also where a library wraps the error."""
    body = """
    @recipe(name="made", version="1")
    def made(inputs, output, *, wrap: bool):
        try:
            output.write_bytes(bytearray(1 << 30))
        except MemoryError as error:
            if wrap:
                raise RuntimeError("could not read") from error
            raise
    """
    for wrap in (False, True):
        error = _fails(make_job(body, parameters={"wrap": wrap}, memory_bytes=400_000_000))
        assert error.kind == "recipe-memory"
        assert error.details["memory_bytes"] == 400_000_000


@pytest.mark.parametrize(
    ("number", "hint"), [(signal.SIGKILL, "out of memory"), (signal.SIGSEGV, "SIGSEGV")]
)
def test_killed_recipe_names_the_signal(
    make_job: MakeJob, number: signal.Signals, hint: str
) -> None:
    """A recipe's process that dies by a signal is not taken for one that ended."""
    job = make_job(
        f"""
        @recipe(name="made", version="1")
        def made(inputs, output):
            import os
            output.write_text("half")
            os.kill(os.getpid(), {int(number)})
        """
    )
    error = _fails(job)
    assert error.kind == "recipe-killed"
    assert error.details["signal"] == number
    assert number.name in error.message
    assert hint in error.message


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"recipe": "mode"}, "unknown-recipe"),
        ({"parameters": {"txt": "y"}}, "invalid-parameters"),
        ({"modules": ("no_such_module_here",)}, "invalid-config"),
    ],
)
def test_bad_requests_are_told_by_the_child(
    make_job: MakeJob, fields: dict[str, Any], kind: str
) -> None:
    """What the child finds wrong with a job arrives as the same error in the caller."""
    with pytest.raises(InvalidInputError) as caught:
        ProcessExecutor().execute(make_job(WRITES, **fields))
    assert caught.value.kind == kind


def test_bad_jobs_are_refused_before_anything_runs(make_job: MakeJob, tmp_path: Path) -> None:
    """Outputs outside the scratch folder, other names and a missing folder are errors."""
    for fields in (
        {"outputs": {"output": tmp_path / "elsewhere"}},
        {"outputs": {"other": tmp_path / "scratch" / "x"}},
        {"scratch": tmp_path / "missing", "outputs": {}},
    ):
        with pytest.raises(InvalidInputError):
            ProcessExecutor().execute(make_job(WRITES, **fields))


def test_interpreters_that_cannot_serve(make_job: MakeJob, tmp_path: Path) -> None:
    """A missing interpreter and one without recallfs are told apart from a failing recipe."""
    bare = tmp_path / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    for python, told in ((tmp_path / "none", "cannot be started"), (bare, "no recallfs")):
        with pytest.raises(EnvironmentMismatchError, match=told):
            ProcessExecutor().execute(make_job(WRITES, python=str(python)))


def test_names_with_spaces_and_accents(make_job: MakeJob, tmp_path: Path) -> None:
    """No part of a path is ever read by a shell or limited to ASCII."""
    folder = tmp_path / "año 1 'q' $(x)"
    folder.mkdir()
    raw = folder / "ráw file.nwb"
    raw.write_text("ü")
    out = folder / "scratch" / "öut put.nwb"
    job = make_job(WRITES, folder=folder, inputs={"rö": raw}, outputs={"output": out})
    assert _run(job).decode() == "xü"


def test_no_descriptor_is_leaked(make_job: MakeJob) -> None:
    """A long-lived caller can run recipes for ever."""
    job = make_job(WRITES)
    ProcessExecutor().execute(job)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    ProcessExecutor().execute(job)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - names only
