"""Locks of a store: ranges of one file, freed by the kernel when their holder dies.

Each entry has a byte of its own in ``.recall/locks/store``, so that work on one never waits for
another's. They belong to the open file, not to the process: threads exclude one another too.
Network file systems carry them from host to host.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recallfs.atomic import make_shared_file

_ENTRIES = 1 << 60
EVIDENCE = _ENTRIES + 1
"""Byte of the one who decides what rests on what."""

WRITERS = _ENTRIES + 2
"""Byte that all writers of evidence share, and who needs them all gone has alone."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.001, 0.05
_HAS_RANGES = hasattr(fcntl, "F_OFD_SETLK")


def entry_byte(entry_id: str) -> int:
    """Return the byte of an entry, or of anything else that has a hexadecimal digest."""
    return int(entry_id[:15], 16)


@contextmanager
def locked(
    path: Path,
    byte: int,
    *,
    shared: bool = False,
    on_wait: Callable[[float], None] | None = None,
) -> Iterator[None]:
    """Hold a lock.

    Parameters
    ----------
    path : Path
        The file, which exists.
    on_wait : callable, optional
        Told now and then how many seconds the caller has waited; may raise.
    """
    if not _HAS_RANGES:
        # Without such locks (macOS), files take the place of bytes; some entries share one.
        path = path.with_name(f"{path.name}-{byte if byte > _ENTRIES else byte >> 52:x}")
        make_shared_file(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _wait(descriptor, byte, shared, on_wait)
        try:
            yield
        finally:
            # Closing is not enough where a child that was forked meanwhile has the descriptor too.
            with contextlib.suppress(OSError):
                _set(descriptor, byte, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _wait(
    descriptor: int, byte: int, shared: bool, on_wait: Callable[[float], None] | None
) -> None:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    start, pause = time.monotonic(), _FIRST_WAIT_S
    while not _set(descriptor, byte, kind):
        if on_wait is not None:
            on_wait(time.monotonic() - start)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_WAIT_S)


def _set(descriptor: int, byte: int, kind: int) -> bool:
    """Set a lock or take it away without waiting; False if somebody else has it."""
    try:
        if not _HAS_RANGES:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        types = {
            fcntl.LOCK_SH: fcntl.F_RDLCK,
            fcntl.LOCK_EX: fcntl.F_WRLCK,
            fcntl.LOCK_UN: fcntl.F_UNLCK,
        }
        lock = struct.pack("hhqqi4x", types[kind], os.SEEK_SET, byte, 1, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
            return False
        raise
    return True
