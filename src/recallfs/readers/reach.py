"""Which paths may be in a store at all, told in a microsecond for those that are in none."""

from __future__ import annotations

import os
import time

from recallfs.values import CONTROL_FOLDER

_MEMORY_S = 0.02
"""How long an answer counts: no release follows sooner on the making of a store."""

_FOLDERS = 4096

_NEVER = (0.0, False)

_now = time.monotonic

_known: dict[str, tuple[float, bool]] = {}


def is_in_reach(text: str) -> bool:
    """Tell whether a path may be in a store, going by the folder that it is in.

    Parameters
    ----------
    text : str
        As a program wrote it, absolute or not.
    """
    folder = text.rpartition("/")[0]
    if not text.startswith("/"):
        folder = f"{os.getcwd()}/{folder}"  # noqa: PTH109 - a text is wanted, and quickly
    until, is_managed = _known.get(folder, _NEVER)
    if until > _now():
        return is_managed
    places = (os.path.normpath(folder or "/"), os.path.realpath(folder or "/"))
    is_managed = any(_is_below_root(place) for place in dict.fromkeys(places))
    if len(_known) >= _FOLDERS:
        _known.clear()
    _known[folder] = (_now() + _MEMORY_S, is_managed)
    return is_managed


def _is_below_root(folder: str) -> bool:
    """Do what `recallfs.catalog.store.find_root` does, without `os.stat`, which may be ours."""
    while not os.path.lexists(f"{folder}/{CONTROL_FOLDER}"):
        above = folder.rpartition("/")[0]
        if above == folder:
            return False
        folder = above
    return True
