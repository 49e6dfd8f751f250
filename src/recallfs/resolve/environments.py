"""Environments put on record before anything ran in them."""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path
from typing import Any

from recallfs.catalog.store import Store
from recallfs.config import RecipeSettings
from recallfs.environment.interpreter import capture_by, find_environment
from recallfs.environment.keeping import keep_environment
from recallfs.errors import InvalidInputError
from recallfs.recipes.variables import interpreter_variables

_REMEMBERED_S = 60.0


def record_interpreter(store: Store, python: Path, settings: RecipeSettings) -> str:
    """Put the environment of an interpreter on record as a recipe in it would; return its digest.

    Raises
    ------
    EnvironmentMismatchError
        It does not start, or cannot import recallfs.

    Notes
    -----
    What it tells is remembered for a minute, since many files may be asked about.
    """
    period = int(time.monotonic() / _REMEMBERED_S)
    threads = settings.threads or os.cpu_count() or 1
    return keep_environment(store, _captured(python, threads, period))


@functools.lru_cache(maxsize=16)
def _captured(python: Path, threads: int, _period: int) -> dict[str, Any]:
    return capture_by(python, interpreter_variables(os.fspath(python), threads, os.environ))


def own_environment(store: Store, settings: RecipeSettings) -> str:
    """Put the environment of the caller on record, and return its digest."""
    return record_interpreter(store, Path(sys.executable), settings)


def wanted_environment(store: Store, name: str, settings: RecipeSettings) -> str:
    """Return the digest of the environment that somebody names.

    Parameters
    ----------
    name : str
        A label, a digest or part of one; the path of a virtual or conda environment or of an
        interpreter, which is put on record if it is not.

    Raises
    ------
    InvalidInputError
        None goes by it, or several do, and nothing that could be started is at such a path.
    EnvironmentMismatchError
        The interpreter at that path does not start, or cannot import recallfs.
    """
    try:
        return find_environment(store, name)
    except InvalidInputError:
        place = Path(name).expanduser().absolute()
        # Not resolved: by the link that was called an interpreter knows its packages.
        for python in (place, place / "bin" / "python"):
            if python.is_file() and os.access(python, os.X_OK):
                return record_interpreter(store, python, settings)
        raise
