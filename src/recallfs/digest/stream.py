"""All digests of a file's bytes from a single read: sha256, sha1, block digests, dandi-etag."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from recallfs.digest.dandi_etag import DandiEtag
from recallfs.digest.pipeline import Pipeline
from recallfs.errors import (
    AccessError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    RecallError,
    SourceError,
)
from recallfs.values import BLOCK_BYTES, Digests


def digest_file(
    path: Path, *, dandi_etag: bool = False, progress: Callable[[int], None] | None = None
) -> Digests:
    """Digest the bytes of a regular file, reading it once.

    Parameters
    ----------
    path : Path
        Symbolic links are followed.
    dandi_etag : bool
        Also make DANDI's etag. It is an md5, which is slow: about twice the time.
    progress : callable, optional
        Called in this thread with the number of bytes read since the last call. What it raises
        ends the digest.

    Returns
    -------
    Digests

    Raises
    ------
    InvalidInputError
        Kind ``invalid-path`` if no file is there; ``is-a-folder``; ``invalid-input`` for a FIFO,
        socket or device (never waited for), or if `dandi_etag` is asked of more than 5 TiB.
    AccessError
        If the file may not be read.
    ConflictError
        Kind ``in-use`` if the file was written to, or another was put at `path`, meanwhile, or
        if its last writer is held off by a lease.
    SourceError
        If the disk fails.

    Notes
    -----
    At most 4 MiB are held, whatever the file's length. Files below 2 MiB are digested without
    starting a thread. A change is known by size and modification time: the file system's clock
    ticks every few milliseconds, so a write in the very tick of an earlier one can go unseen.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "abc.bin"
    >>> _ = path.write_bytes(b"abc")
    >>> digest_file(path).sha1
    'a9993e364706816aba3e25717850c26c9cd0d89d'
    """
    name = str(path)
    try:
        # Not to wait for the other end of a FIFO; on a regular file it changes nothing.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise _open_error(error, name) from error
    try:
        digests = _digest(descriptor, name, dandi_etag=dandi_etag, progress=progress)
        opened = os.fstat(descriptor)
        try:
            named: os.stat_result | None = path.stat()
        except OSError:
            named = None
        if named is None or not os.path.samestat(opened, named):
            raise _changed(name)
    finally:
        os.close(descriptor)
    return digests


def digest_descriptor(
    descriptor: int, *, dandi_etag: bool = False, progress: Callable[[int], None] | None = None
) -> Digests:
    """Digest the bytes of an open regular file, from its start, reading it once.

    Parameters
    ----------
    descriptor : int
        Open for reading. Its offset neither matters nor moves; it stays open.
    dandi_etag, progress
        As for `digest_file`.

    Returns
    -------
    Digests

    Raises
    ------
    InvalidInputError
        As `digest_file`, and if the descriptor is not open for reading.
    ConflictError
        Kind ``in-use`` if the file was written to meanwhile. That it was renamed does not matter.
    SourceError
        If the disk fails.
    """
    return _digest(descriptor, f"descriptor {descriptor}", dandi_etag=dandi_etag, progress=progress)


class StreamDigester:
    """Digests of bytes that pass by in pieces of any length, such as those of a download.

    Parameters
    ----------
    dandi_etag : bool
        Also make DANDI's etag; needs `size_bytes`, since its parts depend on it.
    size_bytes : int, optional
        Length that the stream will have. If given, a stream of another length is refused.
    blocks : bytes, optional
        ``b3b1`` of the bytes, if each block was compared with it already; it is not taken again.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-input`` if `dandi_etag` is asked without `size_bytes` or above 5 TiB.

    Notes
    -----
    For one thread. Bytes are copied, so the caller may use its buffer again at once; at most
    4 MiB are held. Above 2 MiB hashes run in threads of their own. Leave the context, or call
    `close` or `finish`, to end them; an instance that is merely dropped ends them too.
    Not to be carried over a fork.

    Examples
    --------
    >>> with StreamDigester() as digester:
    ...     digester.update(b"a")
    ...     digester.update(b"bc")
    ...     digester.finish().sha1
    'a9993e364706816aba3e25717850c26c9cd0d89d'
    """

    def __init__(
        self,
        *,
        dandi_etag: bool = False,
        size_bytes: int | None = None,
        blocks: bytes | None = None,
    ) -> None:
        if dandi_etag and size_bytes is None:
            raise InvalidInputError("a dandi-etag needs the size beforehand; give `size_bytes`.")
        self._expected_bytes = size_bytes
        self._hashes = _Hashes(size_bytes if dandi_etag else None, blocks)
        self._pipeline = Pipeline(self._hashes.sinks)
        # The threads know the pipeline, not this object, so that it can be collected and end them.
        self._abandon = weakref.finalize(self, self._pipeline.stop)

    def __enter__(self) -> StreamDigester:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def update(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Take the next bytes of the stream.

        Raises
        ------
        InvalidInputError
            After `finish` or `close`.
        """
        view = memoryview(data)
        if view.nbytes == 0:
            return
        view = view.cast("B")
        try:
            while view:
                space = self._pipeline.space()
                length = min(len(space), len(view))
                space[:length] = view[:length]
                self._hashes.add(space[:length])
                self._pipeline.commit(length)
                view = view[length:]
        except BaseException:
            # Some of the piece is in and some is not: going on would give wrong digests.
            self.close()
            raise

    def take(self, read: Callable[[memoryview], int]) -> int:
        """Have the next bytes of the stream put where they are digested, which saves a copy.

        Parameters
        ----------
        read : callable
            Called once with a buffer; fills as much of its beginning as it has, and returns how
            much that was.

        Returns
        -------
        int
            What `read` did.

        Raises
        ------
        InvalidInputError
            After `finish` or `close`.
        """
        try:
            space = self._pipeline.space()
            length = read(space)
            if length:
                self._hashes.add(space[:length])
                self._pipeline.commit(length)
        except BaseException:
            self.close()
            raise
        return length

    def finish(self) -> Digests:
        """Return the digests of all bytes taken, and close.

        Raises
        ------
        InvalidInputError
            After an earlier `finish` or `close`, or an `update` that failed.
        IntegrityError
            If the stream's length is not the `size_bytes` that was announced.
        """
        try:
            self._pipeline.finish()
        finally:
            self.close()
        size_bytes = self._hashes.size_bytes
        if self._expected_bytes not in (None, size_bytes):
            raise IntegrityError(
                f"the stream ended after {size_bytes} bytes instead of {self._expected_bytes}.",
                details={"expected": self._expected_bytes, "actual": size_bytes},
            )
        return self._hashes.digests()

    def close(self) -> None:
        """End the threads; digests that `finish` did not give are lost. May be called twice."""
        self._abandon.detach()
        self._pipeline.close()


class _BlockDigests:
    """BLAKE3 of each 4 MiB of a stream (``b3b1``)."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._block: blake3 | None = None
        self._room_bytes = 0

    def update(self, data: memoryview) -> None:
        while data:
            if self._block is None:
                self._block = blake3(max_threads=1)
                self._room_bytes = BLOCK_BYTES
            piece = data[: self._room_bytes]
            self._block.update(piece)
            self._room_bytes -= len(piece)
            data = data[len(piece) :]
            if self._room_bytes == 0:
                self._end_block()

    def packed(self) -> bytes:
        self._end_block()
        return bytes(self._digests)

    def _end_block(self) -> None:
        if self._block is not None:
            self._digests += self._block.digest()
            self._block = None


class _Hashes:
    """The hashes of one stream: the slow ones are sinks of a pipeline."""

    def __init__(self, etag_size_bytes: int | None, known_blocks: bytes | None = None) -> None:
        self.size_bytes = 0
        self._known_blocks = known_blocks
        # Not for security: sha1 is asked for by name, and FIPS builds refuse it otherwise.
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._blocks = _BlockDigests()
        self._etag = None if etag_size_bytes is None else DandiEtag(etag_size_bytes)
        slow = (self._etag, self._sha256, self._sha1)
        self.sinks = [each for each in slow if each is not None]

    def add(self, data: memoryview) -> None:
        """Take the next bytes into what is not a sink.

        BLAKE3 takes less than half the time of the others. Done at once, by the thread that put
        the bytes there, it finds them in that core's cache and needs no hand-over.
        """
        if self._known_blocks is None:
            self._blocks.update(data)
        self.size_bytes += len(data)

    def digests(self) -> Digests:
        """Return the result; the pipeline must have finished."""
        return Digests(
            size_bytes=self.size_bytes,
            sha256=self._sha256.hexdigest(),
            sha1=self._sha1.hexdigest(),
            blocks=self._blocks.packed() if self._known_blocks is None else self._known_blocks,
            dandi_etag=None if self._etag is None else self._etag.text(),
        )


def _digest(
    descriptor: int, name: str, *, dandi_etag: bool, progress: Callable[[int], None] | None
) -> Digests:
    """Read the file once from its start into the hashes; see `digest_file`."""
    before = _status(descriptor, name)
    _check_regular(before, name)
    hashes = _Hashes(before.st_size if dandi_etag else None)
    if sys.platform == "linux":
        # Doubles the kernel's read-ahead, so that the disk works while we hash. Only a hint.
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    with Pipeline(hashes.sinks) as pipeline:
        # A file that grows is given up at once rather than followed.
        while hashes.size_bytes <= before.st_size:
            space = pipeline.space()
            length = _read(descriptor, space, hashes.size_bytes, name)
            if length == 0:
                break
            hashes.add(space[:length])
            pipeline.commit(length)
            if progress is not None:
                progress(length)
        if hashes.size_bytes != before.st_size:
            raise _changed(name)
        pipeline.finish()
    after = _status(descriptor, name)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise _changed(name)
    return hashes.digests()


def _status(descriptor: int, name: str) -> os.stat_result:
    try:
        return os.fstat(descriptor)
    except OSError as error:
        raise _read_error(error, name) from error


def _read(descriptor: int, space: memoryview, offset: int, name: str) -> int:
    try:
        return os.preadv(descriptor, [space], offset)
    except OSError as error:
        raise _read_error(error, name) from error


def _check_regular(status: os.stat_result, name: str) -> None:
    """Refuse what is not a regular file, before anything is read from it."""
    if stat.S_ISDIR(status.st_mode):
        raise InvalidInputError(
            f"{name} is a folder; give a file in it.",
            kind="is-a-folder",
            details={"path": name},
        )
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInputError(
            f"{name} is not a regular file, so it has no digest.", details={"path": name}
        )


def _changed(name: str) -> ConflictError:
    return ConflictError(
        f"{name} changed while it was read; try again when nothing writes to it.",
        kind="in-use",
        details={"path": name},
    )


def _open_error(error: OSError | ValueError, name: str) -> RecallError:
    """Turn what `os.open` raised into an error that says what to do."""
    details = {"path": name, "reason": str(error)}
    code = error.errno if isinstance(error, OSError) else errno.EINVAL
    if code in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL):
        return InvalidInputError(
            f"there is no file {name}; check the path.", kind="invalid-path", details=details
        )
    if code in (errno.ENXIO, errno.ENODEV):
        return InvalidInputError(
            f"{name} is not a regular file, so it has no digest.", details=details
        )
    if code == errno.EWOULDBLOCK:
        # Not waited for, see O_NONBLOCK: somebody holds a lease, such as a release under way.
        return ConflictError(
            f"{name} is leased by another process; try again later.", kind="in-use", details=details
        )
    return _read_error(error, name)


def _read_error(error: OSError | ValueError, name: str) -> RecallError:
    details = {"path": name, "reason": str(error)}
    code = error.errno if isinstance(error, OSError) else errno.EINVAL
    if code in (errno.EACCES, errno.EPERM):
        return AccessError(f"{name} may not be read by this user.", details=details)
    if code == errno.EBADF:
        return InvalidInputError(f"{name} is not open for reading.", details=details)
    return SourceError(f"{name} cannot be read ({os.strerror(code or 0)}).", details=details)
