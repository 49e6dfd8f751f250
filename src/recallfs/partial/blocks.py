"""A file of which only parts are here: on the disk, shared by all processes of the user.

Bytes are verified, written, and only then marked: in this order, so that a process may be killed at
any moment. They are marked as here when they are durable. Until then, where digests are known, they
are marked as written: other processes find them, and nobody waits for the disk between two slices.
What another process, or an earlier one, wrote is verified once more before this one hands it out,
as a disk may give other bytes than it was given, or none after its power was lost.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import mmap
import os
import shutil
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from recallfs.atomic import fault_point, sync_folder
from recallfs.cache.blocks import UNVERIFIED, BlockShelf
from recallfs.cache.cache import Cache
from recallfs.errors import IntegrityError, RecallError
from recallfs.partial.index import Index, retained_parts

if TYPE_CHECKING:
    from recallfs.skeleton.format import Skeleton

_HERE, _WRITTEN = 1, 2
_CHECK_BYTES = 64 * 1024 * 1024
"""After how many more bytes the limit of the cache is looked at again."""

_REST_S = 30.0
"""How long nothing more is kept after the disk, or the cache, was full."""

_POLL_S = 0.005
_HAS_PREADV = hasattr(os, "preadv")
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


def key_of(*words: str) -> str:
    """Return the name of a folder for a file that these words tell from all others."""
    return blake3("\0".join(words).encode()).hexdigest()[:40]


class BlockFile:
    """The parts of a file that are here.

    Parameters
    ----------
    shelf : BlockShelf
    key : str

    Notes
    -----
    For any number of threads and processes. Opened by `open_blocks`.
    """

    def __init__(self, shelf: BlockShelf, key: str) -> None:
        folder = shelf.path_of(key)
        self.key = key
        self.folder = folder
        self._shelf = shelf
        self._data = self._map_file = self._lock_file = -1
        try:
            self._lock_file = os.open(folder / "index", _OPEN)
            fcntl.flock(self._lock_file, fcntl.LOCK_SH)
            self._map_file = os.open(folder / "map", _OPEN)
            self._data = os.open(folder / "data", _OPEN)
            self.index = Index.read(folder / "index")
            if os.fstat(self._map_file).st_size != len(self.index) or (
                os.fstat(self._data).st_size != self.index.size_bytes
            ):
                raise IntegrityError("a file in parts is not of its size.", kind="damaged-record")
            self._map = mmap.mmap(self._map_file, len(self.index)) if len(self.index) else None
            os.utime(self._map_file)  # what is used stays longest
        except BaseException:
            self.close()
            raise
        self._marks: npt.NDArray[np.uint8] = (
            np.frombuffer(self._map, np.uint8) if self._map else np.zeros(0, np.uint8)
        )
        self._checked = bytearray(len(self.index))
        self._unsynced: list[int] = []
        self._unsynced_bytes = 0
        self._since_look = _CHECK_BYTES
        self._closed_until = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether every part is here."""
        return bool(self._marks.all())

    @property
    def marks(self) -> npt.NDArray[np.uint8]:
        """Which units are here: 1, and 2 where they may not be durable yet; else 0."""
        return self._marks

    def parts(self) -> Iterator[tuple[int, memoryview]]:
        """Iterate over what is here: offsets, and bytes."""
        for unit in np.flatnonzero(self._marks).tolist():
            data = self.load(unit)
            if data is not None:
                yield self.index.start_of(unit), memoryview(data)

    @property
    def here_bytes(self) -> int:
        """How many bytes of the file are here."""
        stops = np.append(self.index.starts[1:], self.index.size_bytes)
        return int((stops - self.index.starts)[self._marks != 0].sum())

    def is_durable(self, unit: int) -> bool:
        """Tell whether a unit was marked after it was made durable."""
        return bool(self._marks[unit] == _HERE)

    def read_checked(self, first: int, last: int, start: int, out: memoryview) -> bool:
        """Read bytes that lie in units which this process has verified; False if it has not."""
        if self._checked.find(0, first, last + 1) >= 0:
            return False
        if _HAS_PREADV:
            return os.preadv(self._data, [out], start) == len(out)
        data = os.pread(self._data, len(out), start)
        if len(data) != len(out):
            return False
        out[:] = data
        return True

    def missing(self, units: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return those of the units that are not here."""
        return np.asarray(units[self._marks[units] == 0])

    def load(self, unit: int) -> bytes | None:
        """Read a unit and verify it; None if it is not here, or not what it was."""
        if not self._marks[unit]:
            return None
        start = self.index.start_of(unit)
        try:
            data = os.pread(self._data, self.index.stop_of(unit) - start, start)
        except OSError:
            return None
        if self._checked[unit] and len(data) == self.index.stop_of(unit) - start:
            return data
        if not self.index.is_right(unit, data):
            self._marks[unit] = 0
            self._checked[unit] = 0
            return None
        self._checked[unit] = 1
        return data

    def keep(self, units: Sequence[tuple[int, bytes | memoryview]]) -> bool:
        """Write verified units, ascending; tell whether they are kept.

        Notes
        -----
        They are not where the disk or the cache is full, or a disk fails; that is not an error.
        """
        size = sum(len(data) for _, data in units)
        if not units or not self._has_room(size):
            return False
        try:
            for start, parts in _runs(self.index, units):
                _write_all(self._data, parts, start)
            fault_point("blocks.written")
            for unit, _ in units:
                if self.index.digests is not None:
                    self._marks[unit] = _WRITTEN
                self._checked[unit] = 1
            self._unsynced += [unit for unit, _ in units]
            self._unsynced_bytes += size
            if self.index.digests is None or self._unsynced_bytes >= _CHECK_BYTES:
                self.flush()
            fault_point("blocks.marked")
        except OSError:
            self._closed_until = time.monotonic() + _REST_S
            return False
        return True

    def flush(self) -> None:
        """Make durable what was written, and mark it so.

        Raises
        ------
        OSError
        """
        units, self._unsynced, self._unsynced_bytes = self._unsynced, [], 0
        if not units:
            return
        os.fdatasync(self._data)
        fault_point("blocks.synced")
        for unit in units:
            # Who found it wrong meanwhile has taken its mark away.
            if self._marks[unit] == _WRITTEN or self.index.digests is None:
                self._marks[unit] = _HERE

    def _has_room(self, size_bytes: int) -> bool:
        if time.monotonic() < self._closed_until:
            return False
        self._since_look += size_bytes
        if self._since_look < _CHECK_BYTES:
            return True
        self._since_look = 0
        if self._shelf.has_room(size_bytes):
            return True
        self._closed_until = time.monotonic() + _REST_S
        self._since_look = _CHECK_BYTES
        return False

    @contextmanager
    def claim(self, units: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
        """Be the only one who fetches units; gives those that nobody else is fetching now.

        Whoever is left out waits with `await_others`, holding no claim of their own.
        """
        with self._locking() as descriptor:
            if descriptor is None:
                yield units
                return
            lock = functools.partial(_lock, descriptor)
            mine = [unit for unit in units.tolist() if lock(unit)]
            # Another process may have brought it just before it was claimed.
            yield self.missing(np.array(mine, dtype=np.int64))

    def await_others(self, units: Iterable[int], patience_s: float) -> None:
        """Wait until nobody fetches these units any more, or so long."""
        give_up = time.monotonic() + patience_s
        with self._locking() as descriptor:
            if descriptor is None:
                return
            for unit in units:
                while not self._marks[unit] and not _lock(descriptor, unit):
                    if time.monotonic() > give_up:
                        return
                    time.sleep(_POLL_S)
                _lock(descriptor, unit, kind=fcntl.F_UNLCK)

    @contextmanager
    def _locking(self) -> Iterator[int | None]:
        """Give a descriptor that has locks of its own; None where there are none."""
        descriptor = None
        if hasattr(fcntl, "F_OFD_SETLK"):
            with contextlib.suppress(OSError):
                descriptor = os.open(f"/dev/fd/{self._lock_file}", os.O_RDWR | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def move_to(self, target: Path) -> None:
        """Take the file out of its folder, which is gone then."""
        try:
            os.link(self.folder / "data", target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copyfile(self.folder / "data", target)
        self.drop()

    def drop(self) -> None:
        """Remove it from the disk."""
        self._shelf.drop(self.key)

    def close(self) -> None:
        """Close it; no error if it is."""
        if self._data >= 0:
            with contextlib.suppress(OSError):
                self.flush()
        for descriptor in (self._data, self._map_file, self._lock_file):
            if descriptor >= 0:
                os.close(descriptor)
        self._data = self._map_file = self._lock_file = -1


def _runs(
    index: Index, units: Sequence[tuple[int, bytes | memoryview]]
) -> Iterator[tuple[int, list[bytes | memoryview]]]:
    """Join units that follow one another."""
    parts: list[bytes | memoryview] = []
    begin = end = -1
    for unit, data in units:
        start = index.start_of(unit)
        if start != end and parts:
            yield begin, parts
            parts = []
        if not parts:
            begin = start
        parts.append(data)
        end = start + len(data)
    if parts:
        yield begin, parts


def _write_all(descriptor: int, parts: Sequence[bytes | memoryview], start: int) -> None:
    for part in parts:
        view = memoryview(part)
        while view:
            count = os.pwrite(descriptor, view, start)
            view, start = view[count:], start + count


def _lock(descriptor: int, unit: int, kind: int = fcntl.F_WRLCK) -> bool:
    """Take the lock of a unit, or give it back; tell whether that was done."""
    wanted = struct.pack("hhlli4x", kind, os.SEEK_SET, unit, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)  # type: ignore[attr-defined,unused-ignore]
    except OSError as error:
        # Where a file system has no locks, two may fetch the same.
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def open_blocks(
    cache: Cache,
    key: str,
    index: Index,
    skeleton: Skeleton | None = None,
    *,
    share: bool = False,
) -> BlockFile | None:
    """Open a file in parts, made if need be.

    Parameters
    ----------
    skeleton : Skeleton, optional
        Its bytes are laid in.
    share : bool
        Whether everybody may read it, if the shared cache has room.

    Returns
    -------
    BlockFile or None
        None where the cache cannot be written to: parts are fetched without being kept then.
    """
    for _ in range(2):
        for shelf in cache.block_shelves():
            try:
                return BlockFile(shelf, key)
            except FileNotFoundError:
                pass
            except (IntegrityError, OSError):
                shelf.drop(key)
        try:
            parts = () if skeleton is None else retained_parts(skeleton)
            make_blocks(cache, key, index, parts, share=share)
        except (RecallError, OSError):
            return None
    return None


def find_blocks(cache: Cache, key: str) -> BlockFile | None:
    """Open a file in parts if there is one."""
    for shelf in cache.block_shelves():
        with contextlib.suppress(OSError, IntegrityError):
            return BlockFile(shelf, key)
    return None


def make_blocks(
    cache: Cache,
    key: str,
    index: Index,
    parts: Iterable[tuple[int, memoryview]],
    *,
    share: bool = False,
) -> None:
    """Make the folder of a file, in place of one that is there.

    Parameters
    ----------
    index : Index
        What it says to be retained is marked as here.
    parts : iterable of (int, memoryview)
        Offsets and bytes that are laid in; all else is a hole.
    share : bool
        As of `open_blocks`.

    Raises
    ------
    AccessError, SourceError, OSError
        The cache cannot be written to.
    """
    # What a loss of power would do to it is found out when it is read, and it is made anew.
    is_durable = not index.is_checked
    stops = np.append(index.starts[1:], index.size_bytes)
    size = int((stops - index.starts)[index.is_retained == _HERE].sum())
    shelf = cache.block_shelves()[-1]
    share = share and shelf.is_open and shelf.has_room(size)
    with cache.staging(size + len(index) * 80, share=share) as staging:
        folder = staging / "parts"
        folder.mkdir(mode=0o700)
        with (folder / "data").open("wb") as data:
            data.truncate(index.size_bytes)
            for offset, part in parts:
                data.seek(offset)
                data.write(part)
            if is_durable:
                data.flush()
                os.fsync(data.fileno())
        for name in ("map", "index"):
            with (folder / name).open("wb") as file:
                if name == "map":
                    mark = _HERE if is_durable else _WRITTEN
                    file.write((index.is_retained * mark).astype(np.uint8).tobytes())
                else:
                    index.write(file)
                if is_durable:
                    file.flush()
                    os.fsync(file.fileno())
        if index.digests is None:
            (folder / UNVERIFIED).touch()
        if is_durable:
            sync_folder(folder)
        fault_point("blocks.made")
        is_among_theirs = share and staging.is_relative_to(shelf.folder.parent)
        (shelf if is_among_theirs else cache.blocks).put(folder, key, is_durable=is_durable)
