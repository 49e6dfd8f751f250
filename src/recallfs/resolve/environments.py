"""Environments put on record before anything ran in them."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.config import RecipeSettings
from recallfs.environment.capture import capture_environment
from recallfs.environment.compare import is_same
from recallfs.environment.interpreter import capture_by, find_environment
from recallfs.environment.keeping import keep_environment
from recallfs.errors import EnvironmentMismatchError, InvalidInputError
from recallfs.recipes.variables import interpreter_variables

_REMEMBERED_S = 60.0


@functools.lru_cache(maxsize=16)
def _captured(python: Path, threads: int, _period: int) -> dict[str, Any]:
    return capture_by(python, interpreter_variables(os.fspath(python), threads, os.environ))


def _captured_now(python: Path, settings: RecipeSettings) -> dict[str, Any]:
    """Describe an environment as a recipe in it would; remembered for a minute, for many files."""
    period = int(time.monotonic() / _REMEMBERED_S)
    return _captured(python, settings.threads or os.cpu_count() or 1, period)


def own_environment(store: Store, settings: RecipeSettings) -> str:
    """Put the environment of the caller on record, and return its digest.

    Notes
    -----
    Where no recipe could run, as in a program that embeds Python, it is that of this process.
    """
    try:
        captured = _captured_now(Path(sys.executable or "python"), settings)
    except EnvironmentMismatchError:
        captured = capture_environment()
    return keep_environment(store, captured)


def wanted_environment(store: Store, name: str, settings: RecipeSettings) -> str:
    """Return the digest of the environment that somebody names.

    Parameters
    ----------
    name : str
        A label, a digest or part of one; the path of a virtual or conda environment or of an
        interpreter, which is put on record if it is not. One that was there at another path, where
        none is now, is on record as moved.

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
                captured = _captured_now(python, settings)
                _record_moves(store, captured)
                return keep_environment(store, captured)
        raise


def _record_moves(store: Store, captured: Mapping[str, Any]) -> None:
    """Record that those on record whose interpreter is gone, and which are the same, are here."""
    for identifier, content in records.environments(store).items():
        is_there = os.access(str(content.get("executable")), os.X_OK)
        if not is_there and is_same(content, captured):
            records.move_environment(store, identifier, str(captured["executable"]))
