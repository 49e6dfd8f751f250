"""What a file system in Python does, and in which words: between `binding` and what it serves."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from recallfs.integrations.mount.nodes import FileIdentity


class Attributes(NamedTuple):
    """What `stat` tells of a file; times in nanoseconds."""

    mode: int
    inode: int
    links: int
    uid: int
    gid: int
    rdev: int
    size_bytes: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    identity: FileIdentity | None = None
    """Of the file in the root, where there is one."""

    @classmethod
    def from_stat(cls, status: os.stat_result, inode: int | None = None) -> Attributes:
        """Return what the system tells, with another inode if one is given."""
        return cls(
            status.st_mode,
            status.st_ino if inode is None else inode,
            status.st_nlink,
            status.st_uid,
            status.st_gid,
            status.st_rdev,
            status.st_size,
            status.st_blocks,
            status.st_atime_ns,
            status.st_mtime_ns,
            status.st_ctime_ns,
            (status.st_dev, status.st_ino),
        )


class Readable(Protocol):
    """An open file whose bytes are not all here: `recallfs.partial.reading.PartialFile`."""

    @property
    def size_bytes(self) -> int:
        """Length of the file."""

    def read_at(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`, or to the file's end."""

    def close(self) -> None:
        """Give up what it holds."""


class Opened(NamedTuple):
    """An open file.

    Parameters
    ----------
    file : int or Readable
        A descriptor, or something that is read by ranges.
    is_unchanged : bool
        Whether what the kernel still has of its bytes is right.
    """

    file: int | Readable
    is_unchanged: bool = False


Times = tuple[int | None, int | None] | None
"""Access and modification time in ns, each None to stay; None for both to become 'now'."""


class Operations(Protocol):
    """What a file system does; paths begin with ``/``. Each may raise what `errno_of` knows."""

    def getattr(self, path: str | None, file: int | Readable | None) -> Attributes: ...  # noqa: D102
    def fill(self, path: str, status: Any) -> bool: ...  # noqa: D102
    def readdir(self, path: str) -> Iterable[tuple[str, Attributes]]: ...  # noqa: D102
    def readlink(self, path: str) -> str: ...  # noqa: D102
    def access(self, path: str, mode: int) -> None: ...  # noqa: D102
    def open(self, path: str, flags: int) -> Opened: ...  # noqa: D102
    def create(self, path: str, flags: int, mode: int) -> Opened: ...  # noqa: D102
    def truncate(self, path: str | None, size: int, file: int | Readable | None) -> None: ...  # noqa: D102
    def mknod(self, path: str, mode: int, device: int) -> None: ...  # noqa: D102
    def mkdir(self, path: str, mode: int) -> None: ...  # noqa: D102
    def rmdir(self, path: str) -> None: ...  # noqa: D102
    def unlink(self, path: str) -> None: ...  # noqa: D102
    def symlink(self, target: str, path: str) -> None: ...  # noqa: D102
    def link(self, old: str, new: str) -> None: ...  # noqa: D102
    def rename(self, old: str, new: str, flags: int) -> None: ...  # noqa: D102
    def chmod(self, path: str | None, mode: int, file: int | Readable | None) -> None: ...  # noqa: D102
    def chown(  # noqa: D102
        self, path: str | None, uid: int, gid: int, file: int | Readable | None
    ) -> None: ...
    def utimens(self, path: str | None, times: Times, file: int | Readable | None) -> None: ...  # noqa: D102
    def statfs(self) -> os.statvfs_result: ...  # noqa: D102
    def fill_xattr(self, path: str, name: bytes, value: Any, size: int) -> int | None: ...  # noqa: D102
    def getxattr(self, path: str, name: str) -> bytes: ...  # noqa: D102
    def listxattr(self, path: str) -> list[str]: ...  # noqa: D102
    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None: ...  # noqa: D102
    def removexattr(self, path: str, name: str) -> None: ...  # noqa: D102
