"""A lab of several people: real users of the system, without names, each a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Finished, start
from recallfs.catalog.store import create_store

GROUP = 61100


@dataclass(frozen=True)
class Member:
    """A user, by numbers, with the umask they work with."""

    uid: int
    groups: tuple[int, ...]
    umask: int = 0o022


ALICE = Member(61001, (GROUP,), 0o077)
BEN = Member(61002, (GROUP,), 0o022)
EVE = Member(61003, ())


def become(member: Member) -> None:
    """Turn this process into a user's."""
    os.setgroups(member.groups)
    os.setgid(member.uid)
    os.setuid(member.uid)
    os.umask(member.umask)
    # As for a process that this user started: /proc/self is its own, which namespaces need.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    os.chdir("/")
    os.environ["HOME"] = "/nonexistent"


def act(member: Member, function: Callable[..., Any], *arguments: Any) -> Finished:
    """Call a function as a user; what it prints is kept."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        process = start(_act, member, function, arguments, output=output)
        process.join(120)
        assert process.exitcode is not None, "it did not end"
        said = [output.with_suffix(suffix).read_text() for suffix in (".out", ".err")]
        return Finished(process.exitcode, said[0], said[1])


def _act(member: Member, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    become(member)
    function(*arguments)


def recall_as(member: Member, *arguments: str, code: int | None = 0) -> Finished:
    """Run the command line as a user; `code` is what it must end with, None for any."""
    from actors import run_main

    done = act(member, run_main, arguments)
    assert code is None or done.returncode == code, f"{arguments}: {done}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def make_store(root: str) -> None:
    """Make a folder a store."""
    create_store(Path(root), "lab").catalog.close()


def write_raw(path: str) -> None:
    """Write a file that only its owner's group can read besides them."""
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        file["data"] = np.random.default_rng(0).normal(size=(2000, 32))
    Path(path).chmod(0o640)


def print_access(paths: list[str]) -> None:
    """Print for each file whether the system lets this process read it."""
    answers = [os.access(path, os.R_OK, effective_ids=True) for path in paths]
    sys.stdout.write(json.dumps(answers))


def run_killed(arguments: tuple[str, ...], moment: str) -> None:
    """Run the command line and be killed at a fault point."""
    from recallfs.atomic import set_fault_hook
    from recallfs.cli.app import main
    from recallfs.testing.faults import kill_at

    set_fault_hook(kill_at(moment))
    main(list(arguments))
