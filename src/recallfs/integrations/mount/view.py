"""What a mount shows: the files of the root and, beside them, those that can come back."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from typing import Any

from recallfs.catalog.store import Store
from recallfs.errors import InvalidInputError
from recallfs.integrations.mount.callers import Caller
from recallfs.integrations.mount.contract import Attributes
from recallfs.integrations.mount.nodes import HIDDEN
from recallfs.permissions import access_bits
from recallfs.resolve.presence import observe
from recallfs.values import CONTROL_FOLDER, Entry, State, normalise_path

STATE, SHA256 = "user.recall.state", "user.recall.sha256"
"""Extended attributes that tell of an entry."""

ROOT = "user.recall.root"
"""Extended attribute of the mount point: the store's root."""

_UNKNOWN = "unknown"
_BLOCK_BYTES = 512
_OPENAT2 = 437
_BENEATH = 0x02 | 0x04 | 0x08  # RESOLVE_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH
_libc = ctypes.CDLL(None, use_errno=True)
_libc.lgetxattr.restype = ctypes.c_ssize_t
_libc.lgetxattr.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
_HAS_LSTAT = hasattr(_libc, "lstat")  # not in glibc before 2.33


class _How(ctypes.Structure):
    """``struct open_how``."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class View:
    """The tree that a mount shows.

    Parameters
    ----------
    store : Store

    Notes
    -----
    The kernel has followed all symlinks before it asks; here none is followed, so that nobody is
    led out of the root, not even by one that is put there at that moment.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.root = os.fspath(store.root)
        self._descriptor = os.open(store.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._inodes: dict[str, int] = {}
        try:
            os.close(self._opened_beneath(".", os.O_PATH, 0))
            self._has_openat2 = True
        except OSError:
            self._has_openat2 = False

    # -- places -----------------------------------------------------------------------------

    def native(self, path: str) -> str:
        """Return where a path of the mount is on the disk.

        Raises
        ------
        FileNotFoundError
            It leads to what recallfs itself keeps.
        """
        if CONTROL_FOLDER in path.split("/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.root + path

    def relative(self, path: str) -> str | None:
        """Return a path of the mount as one of the store; None if no entry can have it."""
        try:
            return normalise_path(path)
        except InvalidInputError:
            return None

    def any_entry(self, path: str) -> Entry | None:
        """Return what is on record at a path of the mount."""
        relative = self.relative(path)
        return self.store.catalog.entry_at(relative) if relative else None

    def entry(self, path: str) -> Entry | None:
        """Return what is on record at a path whose bytes are not here, if they may come back."""
        entry = self.any_entry(path)
        return entry if entry is not None and self._is_shown(entry) else None

    def _is_shown(self, entry: Entry) -> bool:
        return entry.state is State.RELEASED or self.store.settings.recall_missing

    def holds_entries(self, path: str) -> bool:
        """Tell whether there are entries below a folder, here or not."""
        relative = self.relative(path)
        if not relative:
            return False
        entries, folders = self.store.catalog.children(relative)
        return bool(folders) or any(self._is_shown(entry) for entry in entries)

    def open_beneath(self, path: str, flags: int, mode: int = 0) -> int:
        """Open what is at a path of the mount; never by way of a symlink."""
        native = self.native(path)
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        if self._has_openat2:
            return self._opened_beneath(path.lstrip("/") or ".", flags, mode)
        return os.open(native, flags, mode)

    def _opened_beneath(self, relative: str, flags: int, mode: int) -> int:
        # With a mode, and nothing to make, the system refuses.
        how = _How(flags, mode if flags & os.O_CREAT else 0, _BENEATH)
        name, size = os.fsencode(relative), ctypes.sizeof(how)
        descriptor = _libc.syscall(_OPENAT2, self._descriptor, name, ctypes.byref(how), size)
        if descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), relative)
        return int(descriptor)

    # -- looking ----------------------------------------------------------------------------

    def attributes(self, path: str) -> Attributes:
        """Return what `lstat` tells, for a file that is not here as recorded."""
        try:
            status = os.lstat(self.native(path))
        except (FileNotFoundError, NotADirectoryError):
            entry = self.entry(path)
            if entry is not None:
                return self._recorded(path, entry)
            if self.holds_entries(path):
                return self._folder(path)
            raise
        return self.from_stat(status, path)

    def fill(self, path: str, status: Any) -> bool:
        """Fill in a ``struct stat`` of a file that is here; False if `attributes` must tell.

        It is asked for so often that Python looking into it takes most of the time.
        """
        if path in self._inodes or not _HAS_LSTAT:
            return False
        return bool(_libc.lstat(os.fsencode(self.native(path)), status) == 0)

    def fill_xattr(self, path: str, name: bytes, value: Any, size: int) -> int:
        """Fill in an extended attribute; return its length or -errno."""
        done: int = _libc.lgetxattr(os.fsencode(self.native(path)), name, value, size)
        if done >= 0:
            return done
        code = ctypes.get_errno()
        # What is not here has no attributes but ours.
        return -errno.ENODATA if code == errno.ENOENT else -code

    def from_stat(self, status: os.stat_result, path: str | None) -> Attributes:
        """Return what the system tells of a file that is here."""
        inode = status.st_ino
        if path is not None and self._inodes:
            # Whoever looked before it came back must not take it for another file.
            inode = self._inodes.get(path, inode)
        return Attributes.from_stat(status, inode)

    def forget(self, path: str) -> None:
        """Let the next file at a path be another one."""
        self._inodes.pop(path, None)

    def _recorded(self, path: str, entry: Entry) -> Attributes:
        recorded = entry.metadata
        inode = self._inodes.setdefault(path, int(entry.id[:15], 16))
        time_ns = recorded.mtime_ns
        return Attributes(
            stat.S_IFREG | recorded.mode,
            inode,
            1,
            recorded.uid,
            recorded.gid,
            0,
            entry.size_bytes,
            # Programs take a file without blocks for one that holds only zeros.
            -(-entry.size_bytes // _BLOCK_BYTES),
            time_ns,
            time_ns,
            time_ns,
        )

    def _folder(self, path: str) -> Attributes:
        """Return attributes of a folder that is there only for the files that belong in it."""
        root = os.stat(self.root)
        inode = hash(("folder", path)) & (2**60 - 1)
        return self.from_stat(root, None)._replace(inode=inode, links=2)

    def children(self, path: str) -> Iterator[tuple[str, Attributes]]:
        """List a folder."""
        prefix = path.rstrip("/") + "/"
        names = set()
        is_there = True
        try:
            scan = list(os.scandir(self.native(path)))
        except FileNotFoundError:
            scan, is_there = [], False
        for item in scan:
            if item.name == CONTROL_FOLDER or item.name.startswith(HIDDEN):
                continue
            try:
                status = item.stat(follow_symlinks=False)
            except OSError:
                continue  # gone since it was listed
            names.add(item.name)
            yield item.name, self.from_stat(status, prefix + item.name)
        relative = self.relative(path)
        if relative is None:
            return
        entries, folders = self.store.catalog.children(relative)
        if not is_there and not entries and not folders:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        for entry in entries:
            name = entry.path.rpartition("/")[2]
            if name not in names and self._is_shown(entry):
                yield name, self._recorded(prefix + name, entry)
        for name in folders:
            if name not in names and self.holds_entries(prefix + name):
                yield name, self._folder(prefix + name)

    def check_access(self, path: str, mode: int, caller: Caller) -> None:
        """Make sure that a caller may do something; see `os.access`.

        Raises
        ------
        PermissionError, FileNotFoundError
        """
        native = self.native(path)
        if mode & os.W_OK and os.statvfs(self.root).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        if os.path.lexists(native):
            follows = not os.path.islink(native)
            with caller.acting():
                if follows and not os.access(native, mode, effective_ids=True):
                    raise _denied(path)
            return
        entry = self.entry(path)
        if entry is None:
            if self.holds_entries(path):
                return
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        bits = access_bits(entry.metadata, caller.uid, caller.groups)
        if caller.uid == 0:
            bits |= 6 | (1 if entry.metadata.mode & 0o111 else 0)
        if mode & ~bits:
            raise _denied(path)

    # -- extended attributes ----------------------------------------------------------------

    def told(self, path: str) -> dict[str, bytes]:
        """Return what the extended attributes tell of an entry; nothing for other files."""
        if path == "/":
            return {ROOT: os.fsencode(self.root)}
        entry = self.any_entry(path)
        if entry is None:
            return {}
        state = observe(self.store, entry)
        if state is None:  # written since it was looked at: the record does not describe it
            return {STATE: _UNKNOWN.encode()}
        if state in (State.DIRTY, State.CONFLICT):
            return {STATE: state.value.encode()}
        return {STATE: state.value.encode(), SHA256: entry.sha256.encode()}


def _denied(path: str) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
