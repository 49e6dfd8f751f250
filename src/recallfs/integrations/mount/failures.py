"""What a program sees when something fails: an errno for each error."""

from __future__ import annotations

import errno

from recallfs.errors import (
    AccessError,
    ConflictError,
    InvalidInputError,
    RecallError,
)

_BUSY = frozenset(("in-use", "pinned", "relied-on"))
_OF_INPUT = {
    "unknown-entry": errno.ENOENT,
    "is-a-folder": errno.EISDIR,
    "invalid-path": errno.EINVAL,
}


def errno_of(error: BaseException) -> int:
    """Return the errno that stands for an error.

    Notes
    -----
    An outage, a mismatch and a file that nothing can bring back are ``EIO``, never 'no such file':
    programs take that for a file that never was.
    """
    if isinstance(error, AccessError):
        return errno.EACCES
    if isinstance(error, ConflictError):
        return errno.EBUSY if error.kind in _BUSY else errno.EEXIST
    if isinstance(error, InvalidInputError):
        return _OF_INPUT.get(error.kind, errno.EIO)
    if isinstance(error, RecallError):
        return errno.ENOSPC if error.kind == "no-space" else errno.EIO
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno > 0:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    return errno.EIO
