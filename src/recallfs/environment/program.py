"""Running programs that help to build an environment, and saying in one sentence why one failed."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence

from recallfs.environment.interpreter import cannot_build

_BUILD_S = 3600.0
_FRAME = " \t\u00d7\u2570\u2500\u25b6\u2502\u251c"
"""Signs that uv draws its messages with."""


def run_program(label: str, arguments: Sequence[str]) -> str:
    """Run a program to its end; return what it prints.

    Parameters
    ----------
    label : str
        Of the environment that is built.

    Raises
    ------
    EnvironmentMismatchError
        Kind ``cannot-build``, with what it said.
    OSError
        It said that the disk is full.
    """
    variables = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA_"))
    }
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env={**variables, "PATH": program_path()},
            timeout=_BUILD_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise cannot_build(label, str(error)) from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        if os.strerror(errno.ENOSPC) in said:
            raise OSError(errno.ENOSPC, said[-4000:])
        lines = [" ".join(line.strip(_FRAME).split()) for line in said.splitlines()]
        text = " ".join(line for line in lines if line)
        raise cannot_build(label, text[:500] or f"exit code {done.returncode}", log=said)
    return done.stdout.decode("utf-8", "replace")


def program_path() -> str:
    """Return where programs are looked for."""
    return os.environ.get("PATH", os.defpath)
