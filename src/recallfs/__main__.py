"""``python -m recallfs``, and the programs ``recallfs`` and ``recall``, are the command line.

``python -m recallfs SCRIPT.py`` runs a script of one's own, whose readers get released files back.
"""

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


def _main_or_script() -> int:
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        from recallfs.cli.app import COMMANDS
        from recallfs.readers.script import is_script, load_script

        if is_script(sys.argv[1], tuple(COMMANDS)):
            from recallfs.errors import RecallError

            try:
                run = load_script(sys.argv[1], sys.argv[2:])
            except RecallError as error:
                sys.stderr.write(f"error: {error}\n")
                return error.exit_code
            run()  # its errors are its own
            return 0
    return main()


if __name__ == "__main__":
    sys.exit(_main_or_script())
