"""``python -m recallfs``, and the programs ``recallfs`` and ``recall``, are the command line.

``python -m recallfs SCRIPT.py`` runs a script of one's own, whose readers get released files back.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

_COLLECT_AFTER = 50_000
"""Python looks for cycles each time 700 objects were made, and loading a command makes 300,000 that
stay: a tenth of the time in which it starts."""


def main() -> int:
    """Run the command line and return its exit code; see `recallfs.cli.app.main`."""
    gc.set_threshold(_COLLECT_AFTER)
    try:
        # Imported here: Ctrl-C while the program is being loaded must not end in a traceback.
        from recallfs.cli.app import main as run

        return run()
    except KeyboardInterrupt:
        return _interrupted()


def _main_or_script() -> int:
    try:
        run = _script()
    except KeyboardInterrupt:
        return _interrupted()
    if run is None:
        return main()
    if isinstance(run, int):
        return run
    run()  # its errors are its own
    return 0


def _script() -> Callable[[], None] | int | None:
    """Return what runs the script that is named first, an exit code, or None for a command."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        return None
    from recallfs.cli.app import COMMANDS
    from recallfs.readers.script import is_script, load_script

    if not is_script(sys.argv[1], tuple(COMMANDS)):
        return None
    from recallfs.errors import RecallError

    try:
        return load_script(sys.argv[1], sys.argv[2:])
    except RecallError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def _interrupted() -> int:
    sys.stderr.write("interrupted; nothing was left half-done.\n")
    return 130


if __name__ == "__main__":
    sys.exit(_main_or_script())
