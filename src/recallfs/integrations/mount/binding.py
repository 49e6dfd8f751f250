"""libfuse 3, by way of mfusepy's declarations: what the kernel asks is handed to plain functions.

mfusepy knows how the structures of each libfuse are laid out. Its own callbacks are not used: they
drop the flags of a rename, and copy each byte that is read twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recallfs import log
from recallfs.errors import InvalidInputError, RecallError
from recallfs.integrations.mount import passthrough, structures
from recallfs.integrations.mount.contract import Attributes, Opened, Operations, Readable
from recallfs.integrations.mount.failures import errno_of
from recallfs.integrations.mount.nodes import HIDDEN, Node, Nodes

_CLONE_FS = 0x200
_PLUS = 1, 2  # FUSE_READDIR_PLUS, FUSE_FILL_DIR_PLUS
_SPLICE = 1 << 7  # FUSE_CAP_SPLICE_WRITE; with _SPLICE_MOVE the root's pages would leave memory
_KNOWS_DIRECT, _MAP_DIRECT = 17, 1 << 28  # FUSE_CAP_DIRECT_IO_ALLOW_MMAP
_MAX_THREADS = 512  # each one that waits for a recall has one

_POLL_S = 0.02
_PARTING_S = 1.0
_FILES = 1 << 32  # handles below are descriptors

_libc = ctypes.CDLL(None, use_errno=True)
_thread = threading.local()


@functools.cache
def load() -> Any:
    """Load mfusepy, and with it libfuse 3.

    Raises
    ------
    InvalidInputError
        One of them is not installed.
    """
    # Else it takes libfuse 2 where both are installed.
    name = os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
    try:
        import mfusepy
    except ImportError as error:
        raise InvalidInputError(
            "a mount needs the package mfusepy; `pip install 'recallfs[mount]'` brings it."
        ) from error
    except (OSError, AttributeError) as error:
        raise InvalidInputError(
            f"a mount needs libfuse 3, and there is no lib{name} here; install it (on Debian and "
            "Ubuntu `apt install fuse3`)."
        ) from error
    if mfusepy.fuse_version_major != 3:
        raise InvalidInputError("a mount needs libfuse 3, and FUSE_LIBRARY_NAME names another one.")
    return mfusepy


def context() -> tuple[int, int, int]:
    """Return user, group and process of the program whose request this thread serves."""
    place = _context_getter()() + ctypes.sizeof(ctypes.c_void_p)
    return _CONTEXT.unpack(ctypes.string_at(place, _CONTEXT.size))


@functools.cache
def _context_getter() -> Callable[[], int]:
    function = ctypes.PYFUNCTYPE(ctypes.c_void_p)
    return function(ctypes.cast(load()._libfuse.fuse_get_context, ctypes.c_void_p).value or 0)


def is_interrupted() -> bool:
    """Tell whether the program whose request this thread serves wants to wait no more."""
    return bool(load()._libfuse.fuse_interrupted())


_CONTEXT = struct.Struct("@IIi")
"""``struct fuse_context`` behind its first word: uid, gid, pid."""


class Server:
    """Serves a mount until it is gone.

    Parameters
    ----------
    operations : Operations
    attribute_s : float
        How long the kernel may hold what `getattr` answered.
    outside : Path, optional
        The mount, as a process sees it that is outside of this one's view of the disks.
    """

    def __init__(
        self, operations: Operations, *, attribute_s: float = 1.0, outside: Path | None = None
    ) -> None:
        self._fuse = load()
        self._operations = operations
        self._attribute_s = attribute_s
        self._files: dict[int, Readable] = {}
        self._folders: dict[int, str] = {}
        self._next = _FILES
        self._uses = 0
        self._opening = 0
        self._nodes = Nodes(outside)
        self._backings: passthrough.Backings | None = None
        self._is_direct = False
        self._lock = threading.Lock()

    @property
    def is_idle(self) -> bool:
        """Whether no file or folder is open, or being opened."""
        return self._uses == 0

    @property
    def is_opening(self) -> bool:
        """Whether programs wait for files to be opened."""
        return self._opening != 0

    def _use(self, count: int) -> None:
        with self._lock:
            self._uses += count

    def serve(self, descriptor: int) -> int:
        """Answer what comes from an open ``/dev/fuse``; return libfuse's exit code."""
        fuse = self._fuse
        table = fuse.fuse_operations()
        for name, prototype in ((field[0], field[1]) for field in table._fields_):
            method = getattr(self, f"_on_{name}", None)
            if method is not None:
                setattr(table, name, prototype(_guarded(name, method)))
        read_buf = structures.READ_BUF(self._read_buf())
        table.read_buf = ctypes.cast(read_buf, type(table.read_buf))
        if passthrough.is_possible(fuse):
            self._is_direct = passthrough.maps_direct()
            if passes := os.geteuid() == 0:
                self._backings = passthrough.Backings(descriptor)
            return passthrough.serve(fuse, table, descriptor, passes=passes)
        arguments = [b"recall", b"-f", b"/dev/fd/%d" % descriptor]
        if fuse.fuse_version_minor >= 12:  # before, there was no limit
            limits = b"max_threads=%d,max_idle_threads=%d" % (_MAX_THREADS, _MAX_THREADS)
            arguments[2:2] = [b"-o", limits]
        argv = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
        return int(
            fuse.fuse_main_real(
                len(arguments), argv, ctypes.byref(table), ctypes.sizeof(table), None
            )
        )

    # -- what libfuse calls -----------------------------------------------------------------

    def _on_init(self, connection: Any, config: Any) -> None:
        settings = config.contents
        settings.use_ino = 1
        settings.hard_remove = 0  # else `fstat` of a removed file that is open would fail
        settings.nullpath_ok = 1
        settings.entry_timeout = settings.attr_timeout = self._attribute_s
        settings.negative_timeout = 0.0
        about = connection.contents
        about.want |= about.capable & _SPLICE
        if self._fuse.fuse_version_minor >= _KNOWS_DIRECT:
            about.want |= about.capable & _MAP_DIRECT
            self._is_direct = bool(about.capable & _MAP_DIRECT)

    def _on_getattr(self, path: bytes | None, buffer: Any, info: Any) -> None:
        name, file = _text(path), self._file(info)
        node = None if name is None or file is not None else self._nodes.at(name)
        if node is not None:
            structures.fill_status(buffer, self._attributes_of(node))
        elif file is not None or name is None or not self._operations.fill(name, buffer):
            structures.fill_status(buffer, self._operations.getattr(name, file))

    def _attributes_of(self, node: Node) -> Attributes:
        """Return the attributes of a name that is open, and whose file may be another one now."""
        path, status = node.path, node.status()
        own = None if status is None else Attributes.from_stat(status)
        if own is not None and path.rpartition("/")[2].startswith(HIDDEN):
            return own
        attributes, error = None, None
        try:
            attributes = self._operations.getattr(path, None)
        except FileNotFoundError as gone:
            error = gone
        is_other = own is not None and (attributes is None or not node.is_of(attributes.identity))
        if own is not None and is_other:
            # Whoever looks for the name gets it with a new node; for the old one this waits in
            # vain.
            is_ours = context()[2] == os.getpid()
            if is_ours or not self._nodes.part(path).wait(_PARTING_S):
                return own
        if attributes is None:
            raise error or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return attributes

    def _on_opendir(self, path: bytes, info: Any) -> None:
        with self._lock:
            self._uses += 1
            self._next += 1
            self._folders[self._next] = os.fsdecode(path)
            info.contents.fh = self._next

    def _on_releasedir(self, _path: bytes | None, info: Any) -> None:
        del self._folders[info.contents.fh]
        self._use(-1)

    def _on_readdir(
        self, _path: bytes | None, buffer: Any, filler: Any, _offset: int, info: Any, flags: int
    ) -> None:
        status = self._fuse.c_stat()
        place = ctypes.byref(status)
        plus = _PLUS[1] if flags & _PLUS[0] else 0
        for name in (b".", b".."):
            filler(buffer, name, None, 0, 0)
        folder = self._folders[info.contents.fh].rstrip("/")
        for item, attributes in self._operations.readdir(folder or "/"):
            structures.set_status(status, attributes)
            node = self._nodes.at(f"{folder}/{item}")
            is_other = node is not None and not node.is_of(attributes.identity)
            if filler(buffer, os.fsencode(item), place, 0, 0 if is_other else plus):
                break

    def _on_readlink(self, path: bytes, buffer: Any, size: int) -> None:
        target = os.fsencode(self._operations.readlink(os.fsdecode(path)))[: size - 1] + b"\0"
        ctypes.memmove(buffer, target, len(target))

    def _on_access(self, path: bytes, mode: int) -> None:
        self._operations.access(os.fsdecode(path), mode)

    def _on_open(self, path: bytes, info: Any) -> None:
        flags = info.contents.flags
        self._keep(info, path, lambda: self._operations.open(os.fsdecode(path), flags))

    def _on_create(self, path: bytes, mode: int, info: Any) -> None:
        flags = info.contents.flags
        self._keep(info, path, lambda: self._operations.create(os.fsdecode(path), flags, mode))

    def _read_buf(self) -> Callable[[int, int, int, int, int], int]:
        """Return what answers reads: with addresses as numbers, because there are so many reads."""
        handle_at = self._fuse.fuse_file_info.fh.offset
        number_at, give_range = ctypes.c_uint64.from_address, structures.give_range
        served = _guarded("read_buf", self._read_parts)

        def read_buf(_path: int, result: int, size: int, offset: int, info: int) -> int:
            handle = number_at(info + handle_at).value
            if handle >= _FILES:
                return served(result, size, offset, handle)
            if not hasattr(_thread, "is_ours"):
                _begin_thread()
            # libfuse moves the bytes itself, and Python sees none of them.
            return give_range(result, handle, offset, size)

        return read_buf

    def _read_parts(self, result: int, size: int, offset: int, handle: int) -> None:
        structures.give_data(result, self._files[handle].read_at(offset, offset + size))

    def _on_write(self, _path: bytes | None, data: Any, size: int, offset: int, info: Any) -> int:
        address = ctypes.addressof(data.contents)
        return os.pwrite(info.contents.fh, (ctypes.c_char * size).from_address(address), offset)

    def _on_release(self, _path: bytes | None, info: Any) -> None:
        handle = info.contents.fh
        node = self._nodes.drop(handle)
        if self._backings is not None:
            self._backings.end(handle)  # first: the next file may have the same number
        if handle < _FILES:
            os.close(handle)
        else:
            self._files.pop(handle).close()
        self._use(-1)
        if not node.handles and node.path.rpartition("/")[2].startswith(HIDDEN):
            self._drop_hidden(node.path)

    def _on_fsync(self, _path: bytes | None, only_data: int, info: Any) -> None:
        if info.contents.fh < _FILES:
            (os.fdatasync if only_data else os.fsync)(info.contents.fh)

    def _on_flock(self, _path: bytes | None, info: Any, operation: int) -> None:
        if info.contents.fh >= _FILES:
            return  # nobody writes to what is read in parts
        while True:
            try:
                fcntl.flock(info.contents.fh, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                if operation & fcntl.LOCK_NB:
                    raise
                # Waited for in this way, it can be interrupted.
                if is_interrupted():
                    raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR)) from None
                time.sleep(_POLL_S)
            else:
                return

    def _on_fallocate(
        self, _path: bytes | None, mode: int, offset: int, size: int, info: Any
    ) -> None:
        if mode:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        os.posix_fallocate(info.contents.fh, offset, size)

    def _on_truncate(self, path: bytes | None, size: int, info: Any) -> None:
        self._operations.truncate(_text(path), size, self._file(info))

    def _on_mknod(self, path: bytes, mode: int, device: int) -> None:
        self._operations.mknod(os.fsdecode(path), mode, device)

    def _on_mkdir(self, path: bytes, mode: int) -> None:
        self._operations.mkdir(os.fsdecode(path), mode)

    def _on_rmdir(self, path: bytes) -> None:
        self._operations.rmdir(os.fsdecode(path))

    def _on_unlink(self, path: bytes) -> None:
        self._operations.unlink(os.fsdecode(path))

    def _on_symlink(self, target: bytes, path: bytes) -> None:
        self._operations.symlink(os.fsdecode(target), os.fsdecode(path))

    def _on_link(self, old: bytes, new: bytes) -> None:
        self._operations.link(os.fsdecode(old), os.fsdecode(new))

    def _on_rename(self, old: bytes, new: bytes, flags: int) -> None:
        source, target = os.fsdecode(old), os.fsdecode(new)
        if not self._nodes.is_parting(source, target):
            if target.rpartition("/")[2].startswith(HIDDEN):
                self._hide(source, target, flags)
                return
            self._operations.rename(source, target, flags)
        self._nodes.move(source, target)

    def _hide(self, source: str, target: str, flags: int) -> None:
        """Remove a file that is open, as far as libfuse knows: it looked a moment ago."""
        node = self._nodes.at(source)
        if node is None or not node.is_of(self._operations.getattr(source, None).identity):
            self._operations.unlink(source)  # it was closed, or is not the one that is open
            self._nodes.move(source, target)
            return
        self._operations.rename(source, target, flags)
        self._nodes.move(source, target)
        if not node.handles:
            self._drop_hidden(target)

    def _drop_hidden(self, path: str) -> None:
        """Remove a hidden file that was closed; libfuse forgets it if that happens meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            self._operations.unlink(path)

    def _on_chmod(self, path: bytes | None, mode: int, info: Any) -> None:
        self._operations.chmod(_text(path), mode, self._file(info))

    def _on_chown(self, path: bytes | None, uid: int, gid: int, info: Any) -> None:
        # 'As it is' is -1, which comes without its sign.
        owner, group = ctypes.c_int32(uid).value, ctypes.c_int32(gid).value
        self._operations.chown(_text(path), owner, group, self._file(info))

    def _on_utimens(self, path: bytes | None, times: Any, info: Any) -> None:
        self._operations.utimens(_text(path), structures.times_from(times), self._file(info))

    def _on_statfs(self, _path: bytes, buffer: Any) -> None:
        structures.fill_statfs(buffer, self._operations.statfs())

    def _on_getxattr(self, path: bytes, name: bytes, value: Any, size: int, *_: Any) -> int:
        filled = self._operations.fill_xattr(os.fsdecode(path), name, value, size)
        if filled is not None:
            return filled
        answer = self._operations.getxattr(os.fsdecode(path), os.fsdecode(name))
        return structures.give(answer, value, size)

    def _on_listxattr(self, path: bytes, value: Any, size: int) -> int:
        names = self._operations.listxattr(os.fsdecode(path))
        return structures.give(b"".join(os.fsencode(name) + b"\0" for name in names), value, size)

    def _on_setxattr(
        self, path: bytes, name: bytes, value: Any, size: int, flags: int, *_: Any
    ) -> None:
        data = ctypes.string_at(value, size)
        self._operations.setxattr(os.fsdecode(path), os.fsdecode(name), data, flags)

    def _on_removexattr(self, path: bytes, name: bytes) -> None:
        self._operations.removexattr(os.fsdecode(path), os.fsdecode(name))

    # -- open files -------------------------------------------------------------------------

    def _keep(self, info: Any, path: bytes, opening: Callable[[], Opened]) -> None:
        with self._lock:
            self._uses += 1
            self._opening += 1
        name = os.fsdecode(path)
        try:
            try:
                opened = opening()
            except FileNotFoundError:
                if self._nodes.at(name) is None:
                    raise
                raise self._parted(name) from None  # removed beside the mount
            handle, node = self._held(name, opened)
        except BaseException:
            self._use(-1)
            raise
        finally:
            with self._lock:
                self._opening -= 1
        info.contents.fh = handle
        info.contents.keep_cache = opened.is_unchanged
        # Of what is not here, the kernel is not to read ahead: that would be fetched.
        info.contents.direct_io = self._is_direct and not isinstance(opened.file, int)
        if self._backings is not None:
            native = opened.file if isinstance(opened.file, int) else None
            self._backings.begin(node, handle, native)

    def _held(self, path: str, opened: Opened) -> tuple[int, Node]:
        """Give an open file its handle and node."""
        if isinstance(opened.file, int):
            node = self._nodes.hold(path, opened.file, opened.file)
            if node is None:
                os.close(opened.file)
                raise self._parted(path)
            return opened.file, node
        with self._lock:
            self._next += 1
            handle = self._next
        self._files[handle] = opened.file
        node = self._nodes.hold(path, handle, None)
        assert node is not None  # noqa: S101 - of parts, none is another file
        return handle, node

    def _parted(self, path: str) -> OSError:
        """Return what makes the kernel look for a name again, which then has a new node."""
        self._nodes.part(path)
        return OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    def _file(self, info: Any) -> int | Readable | None:
        if not info:
            return None
        handle = int(info.contents.fh)
        return handle if handle < _FILES else self._files[handle]


def _guarded(name: str, method: Callable[..., int | None]) -> Callable[..., int]:
    """Turn what a method raises into what libfuse takes for an error."""

    def guarded(*arguments: Any) -> int:
        try:
            if not hasattr(_thread, "is_ours"):
                _begin_thread()
            return method(*arguments) or 0
        except BaseException as error:  # noqa: BLE001 - a caller in C would not see it
            number = errno_of(error)
            # What operations on names raise is told where the name is known.
            is_strange = number == errno.EIO and not isinstance(error, (OSError, RecallError))
            if is_strange or (name == "read_buf" and isinstance(error, RecallError)):
                log.event("mount", is_failure=True, operation=name, message=str(error))
            return -number

    return guarded


def _begin_thread() -> None:
    """Make a thread of libfuse one that Python knows for good, with a umask of its own."""
    _thread.is_ours = True
    # Else all that Python keeps of a thread would be made and dropped at each call.
    ctypes.pythonapi.PyGILState_Ensure()
    _thread.has_own_umask = _libc.unshare(_CLONE_FS) == 0


def has_own_umask() -> bool:
    """Tell whether this thread may change its umask without others noticing."""
    return bool(getattr(_thread, "has_own_umask", False))


def _text(path: bytes | None) -> str | None:
    return None if path is None else os.fsdecode(path)
