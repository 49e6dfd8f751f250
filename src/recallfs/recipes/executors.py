"""Running a recipe elsewhere than in the caller's process, and waiting for what becomes of it."""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from recallfs.atomic import is_full, no_space, sync_file, write_record
from recallfs.digest.listing import list_folder
from recallfs.errors import (
    EnvironmentMismatchError,
    InvalidInputError,
    RecallError,
    RecipeFailedError,
    RecomputeError,
)
from recallfs.recipes.job import (
    JOB_NAME,
    LOG_NAME,
    RESULT_NAME,
    TEMPORARY_NAME,
    WORK_NAME,
    Job,
    Outcome,
)
from recallfs.recipes.outputs import NAME_LENGTH, is_folder
from recallfs.recipes.variables import worker_variables

__all__ = ["Executor", "Job", "Outcome", "ProcessExecutor"]

_LOG_LINES = 40
_LOG_TAIL_BYTES = 64 * 1024
_CANCEL_CHECK_S = 0.2
_GROUP_END_S = 2.0


class Executor(ABC):
    """The contract of what runs recipes: a job in, verified output files or an error out."""

    @abstractmethod
    def execute(self, job: Job, *, cancelled: Event | None = None) -> Outcome:
        """Run a job to its end.

        Parameters
        ----------
        job : Job
            What to run; its scratch folder belongs to the run.
        cancelled : threading.Event, optional
            Ends the run soon after it is set.

        Returns
        -------
        Outcome
            All outputs of the job then are regular files, not empty, and durable; of an output
            that is a folder, all files below it (which may be empty) are regular and durable.

        Raises
        ------
        RecipeFailedError
            The recipe raised an error; ``details['log']`` holds the end of its log.
        RecomputeError
            Kind ``recipe-timeout``, ``recipe-memory``, ``recipe-killed`` (also when cancelled),
            ``recipe-no-output`` or ``cannot-hide``.
        EnvironmentMismatchError
            The interpreter cannot be started, or has no recallfs.
        InvalidInputError
            The job cannot be run as it is, for example kind ``unknown-recipe`` or
            ``invalid-parameters``.

        Notes
        -----
        No process of the run is left, whether this returns or raises, `KeyboardInterrupt`
        included.
        """


class ProcessExecutor(Executor):
    """Runs a recipe in a process of its own on this computer.

    Notes
    -----
    Safe to use from several threads at once. Waiting takes no processor time and leaves other
    threads free. A process that the recipe moved to a session of its own outlives it, unless
    folders are hidden.
    """

    def execute(self, job: Job, *, cancelled: Event | None = None) -> Outcome:
        """Run a job in a child process; see `Executor.execute`."""
        try:
            _prepare(job)
            started = time.monotonic()
            returncode, ended_by = _run_worker(job, cancelled)
            seconds = time.monotonic() - started
            result = _read_result(job, returncode, ended_by)
            for name, path in job.outputs.items():
                for file in _checked_output(job, name, path):
                    sync_file(file)
        except OSError as error:
            if not isinstance(error, RecallError) and is_full(error):
                raise no_space(error, job.scratch) from error
            raise
        return Outcome(
            seconds=seconds,
            cpu_seconds=float(result["cpu_seconds"]),
            peak_memory_bytes=int(result["peak_memory_bytes"]),
            log_path=job.scratch / LOG_NAME,
            environment=result["environment"],
            recipe_version=str(result["recipe_version"]),
            source_digest=str(result["source_digest"]),
            code=result.get("code"),
        )


def _prepare(job: Job) -> None:
    if not job.scratch.is_dir():
        raise InvalidInputError(f"the scratch folder {job.scratch} does not exist.")
    scratch = job.scratch.resolve()
    for path in job.outputs.values():
        if not path.resolve().is_relative_to(scratch):
            raise InvalidInputError(f"the output {path} is not inside the scratch folder.")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (WORK_NAME, TEMPORARY_NAME):
        (job.scratch / name).mkdir(exist_ok=True, mode=0o700)
    (job.scratch / RESULT_NAME).unlink(missing_ok=True)
    write_record(job.scratch / JOB_NAME, json.dumps(job.to_json()).encode(), mode=0o600)


def _run_worker(job: Job, cancelled: Event | None) -> tuple[int, str | None]:
    """Run the worker to its end; return its return code and what ended it before its time."""
    scratch = job.scratch.absolute()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    log = os.open(scratch / LOG_NAME, flags, 0o600)
    module = "recallfs.recipes.worker"
    try:
        process = subprocess.Popen(
            [job.python, "-m", module, os.fspath(scratch / JOB_NAME), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=scratch / WORK_NAME,
            env=worker_variables(job, os.environ),
            start_new_session=True,
        )
    except OSError as error:
        raise EnvironmentMismatchError(
            f"the interpreter {job.python} cannot be started: {error.strerror}.",
            details={"python": job.python},
        ) from error
    finally:
        os.close(log)
    try:
        ended_by = _wait(process, job.timeout_s, cancelled)
    finally:
        # The leader is not reaped yet, so its id cannot have gone to another process group.
        _kill_group(process.pid)
        process.wait()
        _await_group_end(process.pid)
    return process.returncode, ended_by


def _wait(
    process: subprocess.Popen[bytes], timeout_s: float | None, cancelled: Event | None
) -> str | None:
    """Wait until the worker ends (None), its time is up ('timeout') or it is 'cancelled'."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    descriptor = _process_descriptor(process.pid)
    try:
        while True:
            step = None if deadline is None else max(0.0, deadline - time.monotonic())
            if cancelled is not None:
                step = _CANCEL_CHECK_S if step is None else min(step, _CANCEL_CHECK_S)
            if _has_ended(process, descriptor, step):
                return None
            if cancelled is not None and cancelled.is_set():
                return "cancelled"
            if deadline is not None and time.monotonic() >= deadline:
                return "timeout"
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _process_descriptor(pid: int) -> int | None:
    """Return a descriptor that becomes readable when the process ends, where there is such."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # macOS, and Linux before 5.3
        return None


def _has_ended(
    process: subprocess.Popen[bytes], descriptor: int | None, step_s: float | None
) -> bool:
    if descriptor is not None:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(None if step_s is None else step_s * 1000))
    try:
        process.wait(step_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill_group(group: int) -> None:
    # macOS answers EPERM for a group of zombies.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _await_group_end(group: int) -> None:
    """Wait for killed processes to let go of their files; one that hangs in the kernel is left."""
    give_up = time.monotonic() + _GROUP_END_S
    while time.monotonic() < give_up:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.005)


def _read_result(job: Job, returncode: int, ended_by: str | None) -> Mapping[str, Any]:
    """Return the worker's result, or raise what went wrong."""
    if ended_by is not None:
        raise _ended_early(job, ended_by)
    try:
        result = json.loads((job.scratch / RESULT_NAME).read_bytes())
    except (FileNotFoundError, ValueError):
        raise _no_result(job, returncode) from None
    if "error" in result:
        error = RecallError.from_json(result["error"])
        error.details.update(_log_details(job))
        raise error
    if returncode != 0:  # it died while closing its files
        raise _no_result(job, returncode)
    return dict(result)


def _ended_early(job: Job, ended_by: str) -> RecomputeError:
    details = {"recipe": job.recipe, "timeout_s": job.timeout_s, **_log_details(job)}
    if ended_by == "timeout":
        return RecomputeError(
            f"recipe {job.recipe!r} exceeded its time limit of {job.timeout_s:g} s and was "
            "killed; raise the limit or run it elsewhere.",
            kind="recipe-timeout",
            details=details,
        )
    return RecomputeError(
        f"recipe {job.recipe!r} was cancelled by the process that asked for it.",
        kind="recipe-killed",
        details={**details, "cancelled": True},
    )


def _no_result(job: Job, returncode: int) -> RecomputeError:
    details: dict[str, Any] = {
        "recipe": job.recipe,
        "returncode": returncode,
        **_log_details(job),
    }
    if returncode < 0:
        number = -returncode
        hint = ""
        if number == signal.SIGKILL:
            hint = " Probably the computer ran out of memory; 'dmesg' tells."
        elif job.memory_bytes is not None:
            hint = " Libraries in C may end this way when they hit the memory limit."
        return RecomputeError(
            f"recipe {job.recipe!r} was killed by {_signal_name(number)}.{hint}",
            kind="recipe-killed",
            details={**details, "signal": number},
        )
    if "No module named 'recallfs" in details["log"]:
        return EnvironmentMismatchError(
            f"the interpreter {job.python} has no recallfs; install it there.", details=details
        )
    return RecipeFailedError(
        f"recipe {job.recipe!r} ended its process with exit code {returncode} "
        "before it was finished.",
        details=details,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _log_details(job: Job) -> dict[str, str]:
    path = job.scratch / LOG_NAME
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return {"log": "\n".join(text.splitlines()[-_LOG_LINES:]), "log_path": str(path)}


def _checked_output(job: Job, name: str, path: Path) -> Iterable[Path]:
    """Return the files of an output; refuse what cannot be taken over as made by the recipe."""
    if not is_folder(name):
        _refuse_output(job, name, _problem(job, path))
        return [path]
    try:
        files = list_folder(path) if path.is_dir() and not path.is_symlink() else {}
    except InvalidInputError as error:
        problem = f"something that cannot be kept ({error.message.rstrip('.')})"
        _refuse_output(job, name, problem)
        raise
    if not files:
        problem = "a folder without files" if path.is_dir() else "no folder"
        _refuse_output(job, name, problem)
    for below, file in files.items():
        if len(name + below) > NAME_LENGTH:
            _refuse_output(job, name, f"a path of more than {NAME_LENGTH} characters ({below})")
        _refuse_output(job, name + below, _problem(job, file, may_be_empty=True))
    return files.values()


def _problem(job: Job, path: Path, *, may_be_empty: bool = False) -> str | None:
    """Say why something cannot be taken over as a file that the recipe made."""
    problem = None
    try:
        status = path.lstat()
    except OSError:
        problem = "nothing"
    else:
        if stat.S_ISLNK(status.st_mode):
            problem = "a symbolic link"
        elif not stat.S_ISREG(status.st_mode):
            problem = "a folder" if stat.S_ISDIR(status.st_mode) else "a special file"
        elif status.st_size == 0 and not may_be_empty:
            problem = "an empty file"
        elif status.st_nlink != 1:
            problem = "another name of an existing file"
        elif not path.resolve().is_relative_to(job.scratch.resolve()):
            problem = "a file outside its scratch folder"
    return problem


def _refuse_output(job: Job, name: str, problem: str | None) -> None:
    if problem is not None:
        raise RecomputeError(
            f"recipe {job.recipe!r} left {problem} where its output {name!r} was to be.",
            kind="recipe-no-output",
            details={"recipe": job.recipe, "output": name, "found": problem, **_log_details(job)},
        )
