"""Downloads in progress that outlive their process.

Each is a folder of its own: ``data`` has the file's full length and is sparse where nothing came
yet, ``blocks`` has four bytes for each block (how much of it is in ``data``, from its start on),
``state.json`` says whose bytes they are, and ``lock`` is held by the process that is at it. The
kernel drops the lock of a process that ends, however it ends. A process that stands still keeps
it, and its file: others then start a download of their own, so that it harms nobody when it wakes
up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from recallfs.atomic import is_full, make_folder, new_name, no_space, sync_folder, write_record
from recallfs.errors import InvalidInputError, RecallError, SourceError
from recallfs.values import BLOCK_BYTES

ABANDONED_S = 7 * 86400.0
"""How long an unfinished download is kept for somebody to go on with it."""

VERSION = 1

_READ_BYTES = 512 * 1024

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_OPEN = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_COUNT = struct.Struct("<I")


class Partial:
    """A download in progress; make it with `open_partial`.

    Attributes
    ----------
    size_bytes : int
    source, validator : str or None
        Whose bytes they are; both None if there are none.
    generation : int
        Changes when it is started over.
    is_lasting : bool
        Whether it outlives this process; False if another one is at the same bytes.
    """

    def __init__(self, folder: Path, lock: int, size_bytes: int, *, is_lasting: bool) -> None:
        self.size_bytes = size_bytes
        self.source: str | None = None
        self.validator: str | None = None
        self.is_lasting = is_lasting
        self._folder = folder
        self._lock = lock
        self.generation = 0
        self._noting = threading.Lock()
        self._data = self._blocks = -1
        try:
            if not self._go_on():
                self.start_over()
        except BaseException:
            self.leave()
            raise

    def filled(self) -> dict[int, int]:
        """Return how many bytes of each block are on record as here, from its start on."""
        counts = _COUNT.iter_unpack(os.pread(self._blocks, self._count * _COUNT.size, 0))
        return {
            block: min(count, self._length_of(block))
            for block, (count,) in enumerate(counts)
            if count
        }

    def verified(self, digests: bytes, check: Callable[[], object]) -> dict[int, int]:
        """Return `filled`, without whole blocks whose BLAKE3 digest is wrong: they are forgotten.

        Parameters
        ----------
        digests : bytes
            ``b3b1`` of the file.
        check : callable
            Called before each block; what it raises ends it.
        """
        right = {}
        for block, count in self.filled().items():
            check()
            if count == self._length_of(block):
                digest = self.hash_of(self._data, block, count).digest()
                if digest != digests[32 * block : 32 * block + 32]:
                    self.note(block, 0)
                    continue
            right[block] = count
        return right

    @staticmethod
    def hash_of(descriptor: int, block: int, count: int) -> blake3:
        """Return the BLAKE3 of the first bytes of a block, so that it can be gone on with."""
        digest = blake3(max_threads=1)
        buffer = memoryview(bytearray(min(count, _READ_BYTES)))
        done = 0
        while done < count:
            length = os.preadv(descriptor, [buffer[: count - done]], block * BLOCK_BYTES + done)
            if length == 0:
                break
            digest.update(buffer[:length])
            done += length
        return digest

    def describe(self, source: str, validator: str | None) -> None:
        """Put on record whose bytes they are.

        Raises
        ------
        SourceError
            Kind ``no-space``.
        """
        state = {
            "version": VERSION,
            "size_bytes": self.size_bytes,
            "source": source,
            "validator": validator,
        }
        with self._noting:
            if (source, validator) != (self.source, self.validator) and self._blocks >= 0:
                write_record(self._folder / "state.json", json.dumps(state).encode(), mode=0o600)
                self.source, self.validator = source, validator

    def start_over(self) -> None:
        """Forget what is here. The file is another one afterwards: streams keep the old one."""
        self._close_files()
        self.generation += 1
        for name in ("state.json", "blocks", "data"):
            (self._folder / name).unlink(missing_ok=True)
        self.source = self.validator = None
        try:
            self._data = os.open(self._folder / "data", _OPEN | os.O_EXCL, 0o600)
            self._blocks = os.open(self._folder / "blocks", _OPEN | os.O_EXCL, 0o600)
            os.ftruncate(self._data, self.size_bytes)
            os.ftruncate(self._blocks, self._count * _COUNT.size)
        except OSError as error:
            raise self._failure(error) from error

    def descriptor(self) -> int:
        """Return a new descriptor of the file, for one stream, which has to close it."""
        return os.dup(self._data)

    def write(self, descriptor: int, data: memoryview, offset: int) -> None:
        """Write bytes at an offset, through a descriptor of `descriptor`.

        Raises
        ------
        SourceError
            Kind ``no-space``, or the disk failed.
        """
        try:
            while data:
                written = os.pwrite(descriptor, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise self._failure(error) from error

    def note(self, block: int, count: int, generation: int | None = None) -> None:
        """Put on record that so many bytes of a block are here.

        Parameters
        ----------
        generation : int, optional
            Of the file that they were written to; nothing is noted if it was started over since.

        Notes
        -----
        Nothing is synced: a process that dies takes nothing along, and after a power cut the
        digests tell.
        """
        with self._noting:
            if self._blocks >= 0 and generation in (None, self.generation):
                try:
                    os.pwrite(self._blocks, _COUNT.pack(count), block * _COUNT.size)
                except OSError as error:
                    raise self._failure(error) from error

    def finish(self, target: Path) -> None:
        """Give the complete file its name, synced; nothing else is left.

        Raises
        ------
        SourceError
            Kind ``no-space``, or the disk failed.
        """
        try:
            os.fsync(self._data)
            (self._folder / "data").rename(target)
            sync_folder(target.parent)
        except OSError as error:
            raise self._failure(error) from error
        self.is_lasting = False
        self.leave()

    def leave(self) -> None:
        """Let go of it; it stays for the next one, unless it is of no use to anybody."""
        self._close_files()
        if self._lock < 0:
            return
        if not self.is_lasting or self.source is None:
            _remove(self._folder)
        os.close(self._lock)
        self._lock = -1

    @property
    def _count(self) -> int:
        return -(-self.size_bytes // BLOCK_BYTES)

    def _length_of(self, block: int) -> int:
        return min(BLOCK_BYTES, self.size_bytes - block * BLOCK_BYTES)

    def _go_on(self) -> bool:
        """Take up what an earlier process left; False if there is nothing that can be used."""
        try:
            state = json.loads((self._folder / "state.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return False
        if not _is_state(state, self.size_bytes):
            return False
        try:
            self._data = os.open(self._folder / "data", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._blocks = os.open(
                self._folder / "blocks", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except OSError:
            return False
        lengths = {self._data: self.size_bytes, self._blocks: self._count * _COUNT.size}
        for descriptor, length in lengths.items():
            status = os.fstat(descriptor)
            is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            if not is_ours or status.st_size != length or status.st_nlink != 1:
                return False
        self.source, self.validator = state["source"], state["validator"]
        return True

    def _close_files(self) -> None:
        with self._noting:
            for descriptor in (self._data, self._blocks):
                if descriptor >= 0:
                    os.close(descriptor)
            self._data = self._blocks = -1

    def _failure(self, error: OSError) -> RecallError:
        if is_full(error):
            return no_space(error, self._folder)
        return SourceError(
            f"the download cannot be written to {self._folder} "
            f"({os.strerror(error.errno or 0)}); look after that disk.",
            details={"folder": str(self._folder), "is_final": True},
        )


def open_partial(folder: Path, key: str, size_bytes: int, scratch: Path) -> Partial:
    """Take the download of some bytes, or start it.

    Parameters
    ----------
    folder : Path
        Where downloads in progress are kept; made if need be, for this user only.
    key : str
        Names the bytes: letters, digits, ``.``, ``_`` and ``-``.
    scratch : Path
        Folder for a download of one's own, if another process is at these bytes or `folder` is
        not to be used.

    Raises
    ------
    SourceError
        Kind ``no-space``.
    InvalidInputError
        If `key` is no name.
    """
    if not _KEY.fullmatch(key):
        raise InvalidInputError(f"{key!r} is no name for a download; use a digest.")
    place = folder / key
    try:
        lock = _lock(place)
    except OSError as error:
        if is_full(error):
            raise no_space(error, folder) from error
        lock = None  # somebody else's folder, or a file system without locks
    if lock is not None:
        return Partial(place, lock, size_bytes, is_lasting=True)
    place = scratch / new_name(".partial-")
    try:
        lock = _lock(place)
    except OSError as error:
        if is_full(error):
            raise no_space(error, scratch) from error
        raise SourceError(
            f"no download can be written to {scratch} ({os.strerror(error.errno or 0)})."
        ) from error
    if lock is None:
        raise SourceError(f"no download can be written to {scratch}; it is in use.")
    return Partial(place, lock, size_bytes, is_lasting=False)


def discard(folder: Path, key: str) -> None:
    """Forget what was downloaded under a key, unless a process is at it."""
    if _KEY.fullmatch(key):
        _remove_unless_held(folder / key)


def sweep(folder: Path, older_than_s: float = ABANDONED_S) -> int:
    """Remove downloads that nobody holds and nobody went on with for so long.

    Returns
    -------
    int
        How many were removed.
    """
    removed = 0
    try:
        places = [place for place in folder.iterdir() if place.is_dir() and not place.is_symlink()]
    except OSError:
        return 0
    for place in places:
        try:
            newest = max(each.lstat().st_mtime for each in (place, *place.iterdir()))
        except OSError:
            continue  # it was finished meanwhile, or is another user's
        if time.time() - newest >= older_than_s:
            removed += _remove_unless_held(place)
    return removed


def _is_state(state: Any, size_bytes: int) -> bool:
    return (
        isinstance(state, dict)
        and state.get("version") == VERSION
        and state.get("size_bytes") == size_bytes
        and isinstance(state.get("source"), str)
        and isinstance(state.get("validator"), (str, type(None)))
    )


def _lock(place: Path, *, make: bool = True) -> int | None:
    """Take a download's folder; None if another process has it."""
    while True:
        if make:
            make_folder(place.parent.parent)
            place.parent.mkdir(mode=0o700, exist_ok=True)
            place.mkdir(mode=0o700, exist_ok=True)
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "not ours")
        try:
            lock = os.open(place / "lock", _OPEN, 0o600)
        except FileNotFoundError:
            if make:
                continue  # removed by who finished it
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), (place / "lock").lstat()):
                return lock
        os.close(lock)  # of a folder that was removed meanwhile


def _remove_unless_held(place: Path) -> bool:
    try:
        lock = _lock(place, make=False)
    except OSError:
        return False
    if lock is None:
        return False
    _remove(place)
    os.close(lock)
    return True


def _remove(place: Path) -> None:
    """Remove a folder whose lock is held: the lock last, so that nobody begins in it meanwhile."""
    for each in ("data", "blocks", "state.json"):
        (place / each).unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)
