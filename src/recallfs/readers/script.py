"""Running somebody's script with the readers wrapped, as ``python SCRIPT`` would run it."""

from __future__ import annotations

import io
import os
import runpy
import sys
from collections.abc import Callable, Sequence

from recallfs.errors import AccessError, InvalidInputError
from recallfs.readers.patches import install


def is_script(word: str, commands: Sequence[str]) -> bool:
    """Tell whether the first argument of ``python -m recallfs`` is a script to run.

    Parameters
    ----------
    word : str
    commands : sequence of str
        Names of commands, which win over files of that name.
    """
    return word not in commands and (word.endswith(".py") or os.path.isfile(word))  # noqa: PTH113 - a word, maybe no path


def load_script(path: str, arguments: Sequence[str]) -> Callable[[], None]:
    """Make a script the main program, with the readers wrapped; what is returned runs it.

    Raises
    ------
    InvalidInputError
        If there is no such file, or it is no Python.
    AccessError
        If it may not be read.
    """
    try:
        with io.open_code(os.path.abspath(path)) as file:  # noqa: PTH100 - keeps symlinks
            has_zeros = b"\0" in file.read()
    except FileNotFoundError as error:
        raise InvalidInputError(f"there is no script {path}.") from error
    except OSError as error:
        raise AccessError(f"you cannot read {path}: {error.strerror}.") from error
    if has_zeros:
        raise InvalidInputError(
            f"{path} is no Python script; `recall get {path}` brings a released file back."
        )
    sys.argv[:] = [path, *arguments]
    if not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(path))  # noqa: PTH120 - a text is needed
    install()

    def run() -> None:
        runpy.run_path(path, run_name="__main__")

    return run
