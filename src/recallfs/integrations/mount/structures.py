"""What libfuse hands over to be filled in: attributes, buffers of bytes, room for an answer."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from typing import Any

from recallfs.integrations.mount.contract import Attributes, Times

_BUFFER_IS_FILE = 2 | 4 | 8  # FUSE_BUF_IS_FD, _FD_SEEK, _FD_RETRY
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2

_libc_held = ctypes.PyDLL(None)  # for calls so short that letting go of the interpreter costs more
_libc_held.calloc.restype = _libc_held.malloc.restype = ctypes.c_void_p
_libc_held.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
_libc_held.malloc.argtypes = [ctypes.c_size_t]

READ_BUF = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int64,
    ctypes.c_void_p,
)
"""``read_buf`` of ``struct fuse_operations``, with addresses as numbers."""

_BUFFER = struct.Struct("@4Q i P i q")
"""``struct fuse_bufvec`` (count, idx, off) and its one buffer (size, flags, mem, fd, pos)."""
_BUFFER_BYTES = _BUFFER.size + 32  # later versions of libfuse have more in it


def fill_status(buffer: Any, attributes: Attributes) -> None:
    """Fill in a ``struct stat *``."""
    ctypes.memset(buffer, 0, ctypes.sizeof(buffer.contents))
    set_status(buffer.contents, attributes)


def set_status(status: Any, attributes: Attributes) -> None:
    """Set what we know of in a ``struct stat``."""
    status.st_mode = attributes.mode
    status.st_ino = attributes.inode
    status.st_nlink = attributes.links
    status.st_uid = attributes.uid
    status.st_gid = attributes.gid
    status.st_rdev = attributes.rdev
    status.st_size = attributes.size_bytes
    status.st_blocks = attributes.blocks
    for spec, time_ns in (
        (status.st_atimespec, attributes.atime_ns),
        (status.st_mtimespec, attributes.mtime_ns),
        (status.st_ctimespec, attributes.ctime_ns),
    ):
        spec.tv_sec, spec.tv_nsec = divmod(time_ns, 10**9)


def fill_statfs(buffer: Any, answer: os.statvfs_result) -> None:
    """Fill in a ``struct statvfs *``."""
    told = buffer.contents
    for name in (
        "f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree",
        "f_favail", "f_namemax",
    ):  # fmt: skip
        setattr(told, name, getattr(answer, name))


def times_from(given: Any) -> Times:
    """Read the two ``struct timespec`` of `utimens`; None if both are now."""
    if not given:
        return None
    two = given.contents
    if two.actime.tv_nsec == two.modtime.tv_nsec == _UTIME_NOW:
        return None
    return _time_ns(two.actime), _time_ns(two.modtime)


def _time_ns(spec: Any) -> int | None:
    if spec.tv_nsec == _UTIME_OMIT:
        return None
    if spec.tv_nsec == _UTIME_NOW:
        return time.time_ns()
    return int(spec.tv_sec) * 10**9 + int(spec.tv_nsec)


def give(answer: bytes, value: Any, size: int) -> int:
    """Write an answer where there is room for so many bytes; return its length or -errno."""
    if not size:
        return len(answer)  # asked how long it is
    if len(answer) > size:
        return -errno.ERANGE
    ctypes.memmove(value, answer, len(answer))
    return len(answer)


def give_range(result: int, descriptor: int, offset: int, size: int) -> int:
    """Answer a read by a range of an open file; return 0 or -errno."""
    place = _libc_held.calloc(1, _BUFFER_BYTES)
    if not place:
        return -errno.ENOMEM
    buffer = _BUFFER.pack(1, 0, 0, size, _BUFFER_IS_FILE, 0, descriptor, offset)
    ctypes.memmove(place, buffer, _BUFFER.size)
    ctypes.c_void_p.from_address(result).value = place
    return 0


def give_data(result: int, data: bytes) -> None:
    """Answer a read by bytes that are here."""
    place, memory = _libc_held.calloc(1, _BUFFER_BYTES), _libc_held.malloc(len(data) or 1)
    if not place or not memory:
        raise MemoryError
    ctypes.memmove(memory, data, len(data))
    ctypes.memmove(place, _BUFFER.pack(1, 0, 0, len(data), 0, memory, 0, 0), _BUFFER.size)
    ctypes.c_void_p.from_address(result).value = place
