"""Make sure that a path that is about to be opened is there, if a store can bring it back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from recallfs.errors import ConflictError
from recallfs.values import State, display_name

_READING = ("r", "r+", "a")


def make_available(name: Any, mode: str = "r") -> None:
    """Bring a released or missing file back before it is opened.

    Parameters
    ----------
    name : str, bytes or os.PathLike
        What the caller gave; anything else (an open file, a buffer) is left alone, and so is a
        path that exists, or that no store knows.
    mode : str
        As h5py has it. Modes that make a new file are refused at a released path.

    Raises
    ------
    RecallError
        If the file is known, but cannot be brought back.
    """
    if not isinstance(name, (str, bytes, os.PathLike)) or os.path.lexists(name):
        return
    # Only a missing file comes this far, so the imports below cost ordinary opens nothing.
    from recallfs.resolve.recall import Wish, recall
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    found = stores.containing(Path(os.path.abspath(os.fsdecode(name))))  # noqa: PTH100 - keeps symlinks
    if found is None:
        return
    store, path = found
    entry = store.catalog.entry_at(path)
    if entry is None:
        return
    if mode not in _READING:
        if entry.state is not State.RELEASED:
            return  # a file that vanished may be made anew by whoever makes it
        raise ConflictError(
            f"{store.url(path)} is released; a new file in its place would hide it. "
            "`recall forget` it first, or write to another path.",
            details={"path": path},
        )
    recall(stores, store, path, Wish(announce=_announce))


def _announce(sentence: str) -> None:
    sys.stderr.write(f"recallfs: {display_name(sentence)}\n")
