"""The environment variables that a worker gets: its parent's, without secrets, made repeatable."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from datetime import datetime

from recallfs.environment.capture import THREAD_VARIABLES
from recallfs.recipes.job import TEMPORARY_NAME, Job

_SECRET_NAME = re.compile(
    r"TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL|^AWS_|^SSH_AUTH",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"://[^/\s@:]*:[^/\s@]+@")
_NEVER = frozenset({"PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONHOME", "__PYVENV_LAUNCHER__"})


def worker_variables(job: Job, inherited: Mapping[str, str]) -> dict[str, str]:
    """Make the environment of a worker.

    Parameters
    ----------
    job : Job
        Its seed, start time, threads and scratch folder are used.
    inherited : Mapping of str to str
        Usually `os.environ`.

    Returns
    -------
    dict of str to str
        What was inherited, without variables whose name says that they are secret (tokens, keys,
        passwords, ``AWS_*``) or whose value is a URL with a password; with thread counts,
        ``TMPDIR`` and ``RECALLFS_WORKER``; and for a seeded run ``PYTHONHASHSEED`` and
        ``SOURCE_DATE_EPOCH``.

    Notes
    -----
    All else is passed on, since recipes find their plugins, databases and licences that way.
    Blosc always gets one thread: with several, its output depends on timing.
    """
    variables = interpreter_variables(job.python, job.threads, inherited)
    variables["TMPDIR"] = os.fspath(job.scratch.absolute() / TEMPORARY_NAME)
    variables["RECALLFS_WORKER"] = "1"
    if job.seed is not None:
        variables["PYTHONHASHSEED"] = "0"
        moment = datetime.fromisoformat(job.started_at)
        variables["SOURCE_DATE_EPOCH"] = str(int(moment.timestamp()))
    return variables


def interpreter_variables(
    python: str, threads: int, inherited: Mapping[str, str]
) -> dict[str, str]:
    """Return those variables of `worker_variables` that are the same for each run."""
    variables = {
        name: value
        for name, value in inherited.items()
        if name not in _NEVER and not _SECRET_NAME.search(name) and not _SECRET_VALUE.search(value)
    }
    if "PYTHONPATH" in variables:  # the worker starts in another folder
        variables["PYTHONPATH"] = os.pathsep.join(
            os.path.abspath(part)  # noqa: PTH100 - Path.absolute keeps '..', resolve follows links
            for part in variables["PYTHONPATH"].split(os.pathsep)
            if part
        )
    if python == sys.executable and "PYTHONHOME" in inherited:
        variables["PYTHONHOME"] = inherited["PYTHONHOME"]
    variables.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    variables["BLOSC_NTHREADS"] = "1"
    return variables
