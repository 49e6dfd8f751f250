"""Processes for tests: forked from a server that has everything imported, so they start at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import recallfs

_COMMANDS = Path(recallfs.__file__).parent / "cli" / "commands"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "h5py",
        "sqlalchemy.dialects.sqlite",
        "tomlkit",
        "recallfs.cli.app",
        *(f"recallfs.cli.commands.{path.stem}" for path in sorted(_COMMANDS.glob("[a-z]*.py"))),
        # What commands load when they are run.
        "encodings.ascii",
        "pwd",
        "recallfs.catalog.rebuild",
        "recallfs.cli.overview",
        "recallfs.doctor.examination",
        "recallfs.filesystem",
        "recallfs.integrations.mount",
        "recallfs.release.proof",
        "recallfs.release.release",
        "recallfs.resolve.commit",
        "recallfs.resolve.derive",
        "recallfs.sources.kachery",
        "recallfs.sources.kachery_upload",
        "recallfs.sources.recompute",
        "recallfs.skeleton.anew",
        "recallfs.skeleton.graft",
        "actors",
        "budget_actors",
        "conftest",
        "operations",
    ]
)


@dataclass(frozen=True)
class Finished:
    """What a process left behind; a negative code is the signal that ended it."""

    returncode: int
    stdout: str
    stderr: str


def start(
    function: Callable[..., Any],
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> BaseProcess:
    """Start a process that calls a function with this environment; it is not waited for."""
    environment = dict(os.environ if environment is None else environment)
    process = _context.Process(
        target=_call, args=(function, arguments, environment, os.fspath(output or ""))
    )
    process.start()
    return process


def connected() -> tuple[Connection, Connection]:
    """Return the two ends of a pipe; either can be handed to a process that is started."""
    return _context.Pipe()


def run_cli(
    arguments: Sequence[str], environment: Mapping[str, str], *, kill_at: str = ""
) -> Finished:
    """Run the command line in a process, which may be killed at a fault point."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        process = start(_main, tuple(arguments), kill_at, environment=environment, output=output)
        process.join(120)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{arguments} did not end")
        stdout, stderr = (output.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
        return Finished(process.exitcode, stdout, stderr)


def _main(arguments: Sequence[str], kill_at: str) -> None:
    from recallfs.atomic import set_fault_hook
    from recallfs.cli.app import main
    from recallfs.testing.faults import kill_at as killer

    if kill_at:
        set_fault_hook(killer(kill_at))
    sys.exit(main(list(arguments)))


def _call(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    environment: Mapping[str, str],
    output: str,
) -> None:
    # A test run in the background ignores interrupts, and would hand that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    if output:
        for suffix, descriptor in ((".out", 1), (".err", 2)):
            file = os.open(output + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, descriptor)
            os.close(file)
    function(*arguments)
    sys.stdout.flush()


def run_with_own_mounts(script: str | Path, *arguments: str | Path) -> str:
    """Run a Python script where what it mounts is seen by nobody else; return what it said.

    Parameters
    ----------
    script : str or Path
        File in the folder of the tests; its modules can be imported.

    Notes
    -----
    Any surprise in the script fails the test, with all that the script printed.
    """
    folder = Path(__file__).parent
    unshare = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "-Urm"]
    done = subprocess.run(
        [*unshare, sys.executable, str(folder / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
