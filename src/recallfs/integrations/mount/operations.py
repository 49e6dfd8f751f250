"""What a mount does when a program asks for something."""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from recallfs import log
from recallfs.catalog.store import Store
from recallfs.errors import RecallError
from recallfs.integrations.mount.callers import Caller
from recallfs.integrations.mount.changing import Changer, set_times
from recallfs.integrations.mount.contract import Attributes, Opened, Readable, Times
from recallfs.integrations.mount.reading import Opener, recalled
from recallfs.integrations.mount.view import View
from recallfs.resolve.stores import Stores

_OURS = "user.recall."
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _told(method: _Method) -> _Method:
    """Write errors of ours to the log: a program sees no more of them than a number."""

    @functools.wraps(method)
    def told(self: Any, path: str | None, *arguments: Any) -> Any:
        try:
            return method(self, path, *arguments)
        except RecallError as error:
            log.event(
                "mount",
                is_failure=True,
                operation=method.__name__,
                path=path,
                kind=error.kind,
                message=error.message,
            )
            raise

    return cast(_Method, told)


class MountOperations:
    """A store as a file system; see `recallfs.integrations.mount.contract.Operations`.

    Parameters
    ----------
    stores : Stores
    store : Store
    """

    def __init__(self, stores: Stores, store: Store) -> None:
        self._stores = stores
        self._view = View(store)
        self._opener = Opener(stores, self._view)
        self._changer = Changer(stores, self._view)

    # -- looking ----------------------------------------------------------------------------

    @_told
    def getattr(self, path: str | None, file: int | Readable | None) -> Attributes:
        """Tell what `stat` tells."""
        if isinstance(file, int):
            return self._view.from_stat(os.fstat(file), path)
        if path is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with Caller.current().acting():
            return self._view.attributes(path)

    def fill(self, path: str, status: Any) -> bool:
        """Let the system itself fill in a ``struct stat``, if nothing has to be added to it."""
        with Caller.current().acting():
            return self._view.fill(path, status)

    @_told
    def readdir(self, path: str) -> Iterable[tuple[str, Attributes]]:
        """List a folder."""
        self._view.check_access(path, os.R_OK, Caller.current())
        return list(self._view.children(path))

    def readlink(self, path: str) -> str:
        """Return a symlink's target."""
        with Caller.current().acting():
            return os.readlink(self._view.native(path))

    @_told
    def access(self, path: str, mode: int) -> None:
        """Make sure that the caller may do something."""
        self._view.check_access(path, mode, Caller.current())

    def statfs(self) -> os.statvfs_result:
        """Tell how full the disk is."""
        return os.statvfs(self._view.root)

    # -- open files -------------------------------------------------------------------------

    @_told
    def open(self, path: str, flags: int) -> Opened:
        """Open a file that is listed."""
        return self._opener.open(path, _native_flags(flags))

    @_told
    def create(self, path: str, flags: int, mode: int) -> Opened:
        """Make a file, and open it."""
        opened: list[int] = []

        def act(_native: str) -> None:
            flags_here = _native_flags(flags) | os.O_CREAT | (flags & os.O_EXCL)
            opened.append(self._view.open_beneath(path, flags_here, stat.S_IMODE(mode)))

        self._changer.make(path, act)
        return Opened(opened[0])

    @_told
    def truncate(self, path: str | None, size: int, file: int | Readable | None) -> None:
        """Cut a file, or make it longer."""
        if isinstance(file, int):
            os.ftruncate(file, size)
            return
        if path is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        emptied = os.O_TRUNC if size == 0 else 0
        opened = self._opener.open(path, os.O_WRONLY | emptied).file
        assert isinstance(opened, int)  # noqa: S101 - it is open for writing
        try:
            os.ftruncate(opened, size)
        finally:
            os.close(opened)

    # -- names ------------------------------------------------------------------------------

    @_told
    def mknod(self, path: str, mode: int, device: int) -> None:
        """Make a special file."""
        self._changer.make(path, lambda native: os.mknod(native, mode, device))

    @_told
    def mkdir(self, path: str, mode: int) -> None:
        """Make a folder."""
        self._changer.make(path, lambda native: os.mkdir(native, mode))

    @_told
    def rmdir(self, path: str) -> None:
        """Remove a folder that shows nothing."""
        self._changer.rmdir(path)

    @_told
    def unlink(self, path: str) -> None:
        """Remove a file and its entry."""
        self._changer.unlink(path)

    def symlink(self, target: str, path: str) -> None:
        """Make a symlink; the kernel follows it, as the program that reads it sees the disks."""
        self._changer.make(path, lambda native: os.symlink(target, native))

    @_told
    def link(self, old: str, new: str) -> None:
        """Give a file a second name, bringing it back first if need be."""
        source = self._view.native(old)
        entry = None if os.path.lexists(source) else self._view.entry(old)
        if entry is not None:
            recalled(self._stores, self._view.store, entry)
        self._changer.make(new, lambda native: os.link(source, native, follow_symlinks=False))

    @_told
    def rename(self, old: str, new: str, flags: int) -> None:
        """Give a file or folder another name."""
        self._changer.rename(old, new, flags)

    # -- attributes -------------------------------------------------------------------------

    @_told
    def chmod(self, path: str | None, mode: int, file: int | Readable | None) -> None:
        """Change a file's mode."""
        if path is not None:
            self._changer.set_mode(path, mode)
        else:
            with Caller.current().acting():
                os.fchmod(_descriptor(file), stat.S_IMODE(mode))

    @_told
    def chown(self, path: str | None, uid: int, gid: int, file: int | Readable | None) -> None:
        """Change a file's owner."""
        if path is not None:
            self._changer.set_owner(path, uid, gid)
        else:
            with Caller.current().acting():
                os.fchown(_descriptor(file), uid, gid)

    @_told
    def utimens(self, path: str | None, times: Times, file: int | Readable | None) -> None:
        """Change a file's times."""
        if path is not None:
            self._changer.set_times(path, times)
        else:
            with Caller.current().acting():
                set_times(_descriptor(file), times)

    def fill_xattr(self, path: str, name: bytes, value: Any, size: int) -> int | None:
        """Let the system itself fill in an attribute: its length or -errno; None if it is ours."""
        if name.startswith(_OURS.encode()):
            return None
        with Caller.current().acting():
            return self._view.fill_xattr(path, name, value, size)

    @_told
    def getxattr(self, path: str, name: str) -> bytes:
        """Return an extended attribute of ours."""
        self._view.native(path)
        value = self._view.told(path).get(name)
        if value is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA), path)
        return value

    @_told
    def listxattr(self, path: str) -> list[str]:
        """Return the names of extended attributes."""
        try:
            with Caller.current().acting():
                names = os.listxattr(self._view.native(path), follow_symlinks=False)
        except FileNotFoundError:
            names = []
        return [*names, *self._view.told(path)]

    @_told
    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        """Set an extended attribute of a file that is here."""
        with Caller.current().acting():
            os.setxattr(self._changeable(path, name), name, value, flags, follow_symlinks=False)

    @_told
    def removexattr(self, path: str, name: str) -> None:
        """Remove an extended attribute of a file that is here."""
        with Caller.current().acting():
            os.removexattr(self._changeable(path, name), name, follow_symlinks=False)

    def _changeable(self, path: str, name: str) -> str:
        native = self._view.native(path)
        if name.startswith(_OURS):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        if not os.path.lexists(native):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
        return native


def _native_flags(flags: int) -> int:
    """Leave out what the kernel sees to itself, such as where to append, and past which cache."""
    return flags & (os.O_ACCMODE | os.O_TRUNC | os.O_SYNC | os.O_DSYNC)


def _descriptor(file: int | Readable | None) -> int:
    if isinstance(file, int):
        return file
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
