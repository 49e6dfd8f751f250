"""Reading a remote object whole only to digest it: nothing of it is kept."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from recallfs.catalog.sidecar import Record
from recallfs.digest.stream import StreamDigester
from recallfs.errors import IntegrityError, SourceError, SourceTimeoutError
from recallfs.transfer.connections import OutOfTimeError, abandonable
from recallfs.transfer.remote import Remote, Stream
from recallfs.transfer.timing import Deadlines
from recallfs.values import Digests

PIECE_BYTES = 1024 * 1024
_CLOSING_S = 1.0
TRIES = 3
"""How often in a row reading may break off without a single byte."""


def digest_remote(
    remote: Remote,
    *,
    deadlines: Deadlines,
    size_bytes: int | None = None,
    dandi_etag: bool = False,
    progress: Callable[[int], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Digests:
    """Read an object whole and digest it.

    Parameters
    ----------
    size_bytes : int, optional
        What it should have. An object that says, or turns out, to be of another size is not read
        further.
    dandi_etag : bool
        Also take DANDI's etag; needs `size_bytes`.

    Raises
    ------
    NotRecallableError
        It is not there.
    IntegrityError
        It has another size, or changed while it was read.
    SourceError, AccessError
        It cannot be read; `SourceTimeoutError` after `Deadlines.read_s` of silence.
    """
    end = None if deadlines.total_s is None else time.monotonic() + deadlines.total_s
    failures = 0
    done = 0
    validator: str | None = None
    with StreamDigester(
        dandi_etag=dandi_etag, size_bytes=size_bytes if dandi_etag else None
    ) as digester:
        while True:
            try:
                stream = _opened(remote, done, size_bytes, validator, deadlines)
                try:
                    size = stream.stat.size_bytes
                    if size_bytes is not None and size not in (None, size_bytes):
                        raise _other_size(remote, size_bytes, size)
                    if done and (stream.start, stream.stat.validator) != (done, validator):
                        raise _changed(remote)
                    validator = stream.stat.validator
                    while piece := _piece(stream, remote, deadlines):
                        digester.update(piece)
                        done += len(piece)
                        failures = 0
                        if progress is not None:
                            progress(len(piece))
                        _check(remote, end, cancelled)
                        if size_bytes is not None and done > size_bytes:
                            raise _other_size(remote, size_bytes, done)
                    if size is not None and done < size:
                        raise SourceError(
                            f"{remote.source} broke off after {done} of {size} bytes "
                            f"({remote.describe}).",
                            details={"source": remote.source},
                        )
                finally:
                    with contextlib.suppress(OutOfTimeError):
                        abandonable(stream.close, _CLOSING_S)
                if size_bytes is not None and done != size_bytes:
                    raise _other_size(remote, size_bytes, done)
                return digester.finish()
            except SourceTimeoutError:
                raise
            except SourceError:
                failures += 1
                if failures == TRIES:
                    raise
                _check(remote, end, cancelled)
                time.sleep(0.1 * failures)


def _opened(
    remote: Remote, start: int, size_bytes: int | None, validator: str | None, deadlines: Deadlines
) -> Stream:
    stop = size_bytes if start else None
    try:
        return abandonable(lambda: remote.read(start, stop, validator=validator), deadlines.read_s)
    except OutOfTimeError:
        raise _silent(remote, deadlines) from None


def _piece(stream: Stream, remote: Remote, deadlines: Deadlines) -> bytes:
    """Read the next bytes into a new buffer: a read that comes too late still writes to its own."""

    def read() -> bytes:
        buffer = memoryview(bytearray(PIECE_BYTES))
        return bytes(buffer[: stream.readinto(buffer)])

    try:
        return abandonable(read, deadlines.read_s)
    except OutOfTimeError:
        raise _silent(remote, deadlines) from None


def _check(remote: Remote, end: float | None, cancelled: threading.Event | None) -> None:
    if cancelled is not None and cancelled.is_set():
        raise SourceError(f"reading {remote.describe} was cancelled.")
    if end is not None and time.monotonic() > end:
        raise SourceTimeoutError(f"{remote.source} was not done in time ({remote.describe}).")


def _silent(remote: Remote, deadlines: Deadlines) -> SourceTimeoutError:
    return SourceTimeoutError(
        f"{remote.source} sent nothing for {deadlines.read_s:g} s ({remote.describe}).",
        details={"source": remote.source},
    )


def _changed(remote: Remote) -> IntegrityError:
    return IntegrityError(
        f"{remote.describe} changed, or cannot be read from its middle on, after the connection "
        "broke; try again.",
        details={"source": remote.source, "url": remote.describe},
    )


def _other_size(remote: Remote, expected: int, actual: int | None) -> IntegrityError:
    return IntegrityError(
        f"{remote.describe} has {actual} bytes, on record are {expected}.",
        details={
            "source": remote.source,
            "url": remote.describe,
            "expected": f"{expected} bytes",
            "actual": f"{actual} bytes",
        },
    )


def read_right(
    remote: Remote,
    record: Record,
    *,
    deadlines: Deadlines,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Read an object whole; return if it is the bytes of an entry.

    Raises
    ------
    IntegrityError
        It is not: ``details`` say what was expected and what it is.
    RecallError
        As `digest_remote`.
    """
    sizes = {item.size_bytes for item in record.incarnations} or {record.entry.size_bytes}
    digests = digest_remote(
        remote,
        deadlines=deadlines,
        size_bytes=record.entry.size_bytes if len(sizes) == 1 else None,
        dandi_etag=not record.accepted and bool(record.dandi_etag),
        progress=progress,
    )
    if not record.accepts(digests):
        expected, actual = record.mismatch(digests)
        raise IntegrityError(
            f"{remote.describe} holds {actual}, on record is {expected}.",
            details={"expected": expected, "actual": actual, "url": remote.describe},
        )
