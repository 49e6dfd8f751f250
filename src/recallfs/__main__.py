"""``python -m recallfs``, and the programs ``recallfs`` and ``recall``, are the command line."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line and return its exit code; see `recallfs.cli.app.main`."""
    try:
        # Imported here: Ctrl-C while the program is being loaded must not end in a traceback.
        from recallfs.cli.app import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was left half-done.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
