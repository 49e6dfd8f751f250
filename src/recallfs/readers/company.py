"""Who is reading: a person's program, or one that reads whatever it finds; and who can be asked."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from recallfs.values import display_name

_asking = threading.Lock()


@functools.lru_cache(maxsize=8)
def is_denied(patterns: Sequence[str], pid: int, program: str) -> bool:
    """Tell whether this program's name is among those that get no file back.

    Parameters
    ----------
    patterns : sequence of str
        Globs.
    pid : int
        Of this process: after a fork, the name is looked up anew.
    program : str
        ``sys.argv[0]``.
    """
    names = {os.path.basename(program), os.path.basename(program).removesuffix(".py")}  # noqa: PTH119 - a text is wanted
    if os.path.basename(program) == "__main__.py":  # noqa: PTH119 - as `python -m borg` runs
        names.add(os.path.basename(os.path.dirname(program)))  # noqa: PTH119, PTH120 - a text is wanted
    with contextlib.suppress(OSError, UnicodeDecodeError):  # not every system has such a folder
        names.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def shell() -> Any:
    """Return the IPython shell of a notebook, or None."""
    ipython = sys.modules.get("IPython")
    found = None if ipython is None else ipython.get_ipython()
    return found if getattr(found, "kernel", None) is not None else None


def agrees(question: str) -> bool | None:
    """Ask the user; None if nobody is there to ask.

    Parameters
    ----------
    question : str
        One sentence, answered by yes or no.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    is_there = shell() is not None or (
        sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    )
    if not is_there:
        return None
    text = f"recallfs: {display_name(question)} [y/N] "
    try:
        with _asking:
            if shell() is None:
                sys.stderr.write(text)
                sys.stderr.flush()
                text = ""
            return input(text).strip().lower() in ("y", "yes")
    except EOFError:
        return False
    except RuntimeError:  # what a notebook without a front end answers
        return None
