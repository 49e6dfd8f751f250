"""`os.stat` that tells of a released file what is on record, without bringing it back."""

from __future__ import annotations

import os
import stat
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from recallfs.errors import RecallError
from recallfs.readers.company import is_denied
from recallfs.readers.reach import is_in_reach
from recallfs.values import State

if TYPE_CHECKING:
    from recallfs.catalog.store import Store
    from recallfs.values import Entry

_native = os.stat

_OURS = ("recallfs.readers", "recallfs.__main__")

_warned: set[str] = set()


def recorded_stat(
    path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True
) -> os.stat_result:
    """Do what `os.stat` does, which see; a released file has the size and time of its record."""
    if dir_fd is not None or not follow_symlinks:
        return _native(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
    try:
        return _native(path)
    except FileNotFoundError:
        found = _on_record(path)
        if found is None:
            raise
        return found


def _on_record(path: Any) -> os.stat_result | None:
    text = path
    if path.__class__ is not str:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        text = os.fsdecode(path)
    if not is_in_reach(text) or _is_for_recallfs(sys._getframe(2)):
        return None
    from recallfs.resolve.stores import stores_in_reach

    try:
        stores = stores_in_reach()
        settings = stores.config.readers
        if not settings.stat:
            return None
        if is_denied(settings.deny, os.getpid(), sys.argv[0] if sys.argv else ""):
            return None
        found = stores.containing(Path(os.path.abspath(text)))  # noqa: PTH100 - keeps symlinks
        entry = None if found is None else found[0].catalog.entry_at(found[1])
    except RecallError as error:
        # Programs look for files that need not be there: an exception would stop them. Opening
        # such a file says what is wrong.
        if error.kind not in _warned:
            _warned.add(error.kind)
            warnings.warn(
                f"recallfs cannot tell whether {text} is a released file: {error}", stacklevel=4
            )
        return None
    if found is None or entry is None or entry.state is not State.RELEASED:
        return None
    return _as_recorded(found[0], entry)


def _is_for_recallfs(frame: FrameType | None) -> bool:
    """Tell whether recallfs itself asks: it must see what is there."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith("recallfs.") and not name.startswith(_OURS):
            return True
        frame = frame.f_back
    return False


def _as_recorded(store: Store, entry: Entry) -> os.stat_result:
    recorded = entry.metadata
    seconds = recorded.mtime
    whole = recorded.mtime_ns // 10**9
    root = _native(store.root)
    number = int(entry.id[:15], 16)  # no two released files are the same one
    times = (whole, whole, whole)
    return os.stat_result(
        (
            stat.S_IFREG | recorded.mode,
            number,
            root.st_dev,
            1,
            recorded.uid,
            recorded.gid,
            entry.size_bytes,
            *times,
        ),
        {
            **dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), seconds),
            **dict.fromkeys(("st_atime_ns", "st_mtime_ns", "st_ctime_ns"), recorded.mtime_ns),
            "st_blksize": root.st_blksize,
            "st_blocks": 0,
            "st_rdev": 0,
        },
    )
