"""Opening a file of a store for reading: natively, bringing it back if need be, or in parts."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallfs.catalog.store import Store
from recallfs.errors import InvalidInputError, SourceError
from recallfs.resolve.presence import has_bytes, observe
from recallfs.resolve.recall import recall
from recallfs.resolve.wish import Wish
from recallfs.values import BLOCK_BYTES, State

if TYPE_CHECKING:
    from recallfs.filesystem.filesystem import RecallFileSystem
    from recallfs.partial.reading import PartialFile

_LOOKS = 3


class NativeFile(io.BufferedReader):
    """A native file, with what code written for fsspec looks for in an open file.

    Parameters
    ----------
    fs : RecallFileSystem
    path : str
        In the filesystem.
    place : Path
        On the disk.
    """

    blocksize = BLOCK_BYTES

    def __init__(self, fs: RecallFileSystem, path: str, place: Path) -> None:
        super().__init__(io.FileIO(os.fspath(place)))
        self.fs = fs
        self.path = path
        self.size = os.fstat(self.fileno()).st_size

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return self.raw.closed

    @closed.setter
    def closed(self, value: bool) -> None:
        pass  # fsspec's block cache says so itself after it has closed the file

    def _fetch_range(self, start: int, end: int) -> bytes:
        # Asked for by fsspec's block cache.
        return os.pread(self.fileno(), max(0, end - start), start)


def open_native(
    fs: RecallFileSystem, store: Store, relative: str, callback: Any = None
) -> NativeFile:
    """Open a file natively, after bringing it back if need be."""
    for _ in range(_LOOKS):
        place = available(fs, store, relative, callback)
        try:
            return NativeFile(fs, f"{store.name}/{relative}", place)
        except FileNotFoundError:
            if store.catalog.entry_at(relative) is None:
                raise
            # It was released between the look and the open: look again.
    # Never 'not found': it is on record.
    raise SourceError(f"{store.url(relative)} is released as fast as it comes back; try again.")


def available(fs: RecallFileSystem, store: Store, relative: str, callback: Any = None) -> Path:
    """Return the native path of a file, after bringing it back if need be.

    An fsspec `Callback` is told of the bytes of a recall as they come.
    """
    entry = store.catalog.entry_at(relative)
    place = store.locate(relative)
    if entry is None:
        # Not managed: a plain file of the tree.
        if place.is_dir():
            raise IsADirectoryError(store.url(relative))
        if not has_bytes(place):
            raise FileNotFoundError(store.url(relative))
        if not place.is_file():
            raise InvalidInputError(
                f"{store.url(relative)} is not a regular file; reading it might never end."
            )
        return place
    if observe(store, entry) is State.RESIDENT:
        return place
    wish = None
    if callback is not None:
        callback.set_size(entry.size_bytes)
        wish = Wish(progress=callback.relative_update)
    try:
        return recall(fs.stores, store, relative, wish).path
    except InvalidInputError as error:
        if error.kind != "unknown-entry":
            raise
        return available(fs, store, relative, callback)  # it was forgotten just now


def open_in_parts(
    fs: RecallFileSystem, store: Store, relative: str, partial: bool | str | None
) -> PartialFile | None:
    """Open a file that is not here in parts; None if it is to be opened whole."""
    if partial is False:
        return None
    entry = store.catalog.entry_at(relative)
    if entry is None or observe(store, entry) not in (State.RELEASED, State.MISSING):
        return None
    from recallfs.partial.opening import Parts  # a file that is here needs none of it

    parts = Parts(fs.stores, store, entry)
    return parts.open() if parts.choice(partial).is_partial else None
