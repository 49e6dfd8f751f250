"""Killing a process at a named moment: what a power cut or the OOM killer does.

    python -m recallfs.testing.faults place.linked -- get recall://analysis/a.nwb

runs the command line and sends SIGKILL to itself when `place.linked` is passed; no handler, no
``finally`` and no ``atexit`` gets a chance. ``place.linked:2`` means the second time.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

from recallfs.atomic import FAULT_POINTS, set_fault_hook
from recallfs.errors import InvalidInputError


def kill_at(point: str) -> Callable[[str], None]:
    """Return a hook that kills this process at a fault point.

    Parameters
    ----------
    point : str
        Name of a fault point, or ``name:n`` for the n-th time that it is passed.

    Raises
    ------
    InvalidInputError
        If there is no such fault point.
    """
    name, _, count = point.partition(":")
    if name not in FAULT_POINTS:
        raise InvalidInputError(f"there is no fault point {name!r}.")
    left = int(count or 1)

    def hook(passed: str) -> None:
        nonlocal left
        if passed == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def main(arguments: Sequence[str]) -> int:
    """Run ``POINT -- COMMAND...``."""
    from recallfs.cli.app import main as run

    if len(arguments) < 3 or arguments[1] != "--":
        sys.stderr.write("usage: python -m recallfs.testing.faults POINT[:N] -- COMMAND...\n")
        return 2
    set_fault_hook(kill_at(arguments[0]))
    return run(arguments[2:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
