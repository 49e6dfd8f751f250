"""Making sure that nobody has a file open, by a kernel lease.

A write lease (fcntl's F_SETLEASE) is granted only while no other descriptor is open on the inode,
whatever locks its openers did or did not take; flock would not see an HDF5 writer whose locking is
off. While it is held, anybody who opens the file waits until it is given back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recallfs.errors import AccessError, ConflictError, InvalidInputError


@dataclass(frozen=True)
class Watch:
    """A file that was opened for release.

    Parameters
    ----------
    descriptor : int
        Open for reading, and for writing where that was asked for.
    is_exclusive : bool
        Whether the kernel confirmed that nobody else has it open, and holds newcomers off.
    """

    path: Path
    descriptor: int
    is_exclusive: bool

    def check(self) -> None:
        """Raise if somebody waits to open the file, or opened it.

        Raises
        ------
        ConflictError
            Kind ``in-use``.
        """
        if self.is_exclusive and fcntl.fcntl(self.descriptor, fcntl.F_GETLEASE) != fcntl.F_WRLCK:
            raise _in_use(self.path)


@contextmanager
def watch(path: Path, *, writable: bool = False) -> Iterator[Watch]:
    """Open a file and keep everybody else from opening it, where the system can.

    Parameters
    ----------
    writable : bool
        Open it for writing too.

    Raises
    ------
    ConflictError
        Kind ``in-use`` if another process has it open.
    InvalidInputError
        If it is not a regular file.
    """
    try:
        # O_NONBLOCK: neither a FIFO nor somebody else's lease may make us wait.
        access = os.O_RDWR if writable else os.O_RDONLY
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise ConflictError(f"{path} is gone.", kind="in-use") from error
        if error.errno == errno.EWOULDBLOCK:
            raise _in_use(path) from error
        if error.errno == errno.ELOOP:
            raise InvalidInputError(f"{path} is a symlink, not a file.") from error
        if isinstance(error, PermissionError):
            wanted = "write" if writable else "read"
            raise AccessError(f"you cannot {wanted} {path}: {error.strerror}.") from error
        raise
    try:
        yield Watch(path, descriptor, _taken(path, descriptor))
    finally:
        # Given back before closing: a child that was forked meanwhile holds the descriptor too.
        if hasattr(fcntl, "F_SETLEASE"):
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(descriptor)


def _taken(path: Path, descriptor: int) -> bool:
    taken = take_lease(descriptor)
    if taken is None:
        return False
    if not taken:
        raise _in_use(path)
    return True


def take_lease(descriptor: int) -> bool | None:
    """Ask the kernel for a write lease on an open file.

    Parameters
    ----------
    descriptor : int
        Open for reading. Closing the last copy of it gives the lease back.

    Returns
    -------
    bool or None
        Whether it was granted; None if it cannot be: the caller is not the owner, or the file
        system has no leases. Some (NFS) refuse each lease as if the file were open.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        # The signal that tells of a waiter must be one that is ignored unless somebody handles it.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return False if error.errno == errno.EAGAIN else None
    return True


def _in_use(path: Path) -> ConflictError:
    return ConflictError(
        f"{path} is open in another process; it was left alone. Try again when it is closed.",
        kind="in-use",
        details={"path": str(path)},
    )
