"""Make sure that a path that is about to be opened is there, if a store can bring it back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from recallfs.errors import AccessError, ConflictError
from recallfs.values import State, display_name

_READING = ("r", "r+", "a")


def make_available(name: Any, mode: str = "r") -> Any:
    """Bring a released or missing file back before it is opened.

    Parameters
    ----------
    name : str, bytes or os.PathLike
        What the caller gave; anything else (an open file, a buffer) is left alone, and so is a
        path that exists, or that no store knows.
    mode : str
        As h5py has it. Modes that make a new file are refused at a released path.

    Returns
    -------
    object
        What to open: `name`, or the path in the caller's cache if the caller may not write to the
        store.

    Raises
    ------
    RecallError
        If the file is known, but cannot be brought back.
    AccessError
        If it is to be changed, and the caller may not write to the store.
    """
    if not isinstance(name, (str, bytes, os.PathLike)) or os.path.lexists(name):
        return name
    # Only a missing file comes this far, so the imports below cost ordinary opens nothing.
    from recallfs.resolve.recall import Wish, recall
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    found = stores.containing(Path(os.path.abspath(os.fsdecode(name))))  # noqa: PTH100 - keeps symlinks
    if found is None:
        return name
    store, path = found
    entry = store.catalog.entry_at(path)
    if entry is None:
        return name
    if mode not in _READING:
        if entry.state is not State.RELEASED:
            return name  # a file that vanished may be made anew by whoever makes it
        raise ConflictError(
            f"{store.url(path)} is released; a new file in its place would hide it. "
            "`recall forget` it first, or write to another path.",
            details={"path": path},
        )
    if mode != "r" and not store.is_writable:
        raise AccessError(f"you cannot write to the store of {store.url(path)}; open it with 'r'.")
    recalled = recall(stores, store, path, Wish(announce=_announce))
    return str(recalled.path) if recalled.is_cached else name


def _announce(sentence: str) -> None:
    sys.stderr.write(f"recallfs: {display_name(sentence)}\n")
