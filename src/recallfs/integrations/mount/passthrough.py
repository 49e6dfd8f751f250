"""What libfuse before 3.17 does not know of, and the kernel does.

Reading and writing without the server: the kernel takes the bytes from the file in the root. Linux
can do that from 6.9 on, for root's mounts. And mapping files whose reads come as they are asked for
(direct I/O), from 6.6 on. What libfuse answers passes through a function of ours, which adds the
words that are needed.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from fcntl import ioctl
from typing import Any

from recallfs.integrations.mount.nodes import Node

_OPEN = 1 << 30 | 16 << 16 | 229 << 8 | 1  # FUSE_DEV_IOC_BACKING_OPEN
_CLOSE = 1 << 30 | 4 << 16 | 229 << 8 | 2  # FUSE_DEV_IOC_BACKING_CLOSE
_VERSIONS = range(13, 17)
_THREADS = 512

_HEADER_BYTES, _INIT_BYTES, _ENTRY_BYTES, _OPEN_BYTES = 16, 64, 128, 16
_INIT_FLAGS, _INIT_FLAGS2, _INIT_DEPTH = 12, 32, 36  # where they are in struct fuse_init_out
_OPEN_FLAGS, _OPEN_BACKING = 8, 12  # and in struct fuse_open_out
_INIT_EXT, _MAP_DIRECT_2, _PASSTHROUGH_2 = 1 << 30, 1 << 4, 1 << 5
_MAPS_DIRECT = 6, 6  # Linux that does
_FOPEN_PASSTHROUGH = 1 << 7

_libc = ctypes.CDLL(None, use_errno=True)
_thread = threading.local()


class _Vector(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Arguments(ctypes.Structure):
    """``struct fuse_args``."""

    _fields_ = (
        ("count", ctypes.c_int),
        ("words", ctypes.POINTER(ctypes.c_char_p)),
        ("allocated", ctypes.c_int),
    )


_WRITEV = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_void_p,
    use_errno=True,
)
_libc.writev.restype = ctypes.c_ssize_t
_libc.writev.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]


class _Ways(ctypes.Structure):
    """``struct fuse_custom_io``."""

    _fields_ = (
        ("writev", _WRITEV),
        ("read", ctypes.c_void_p),
        ("splice_receive", ctypes.c_void_p),
        ("splice_send", ctypes.c_void_p),
        ("reserved", ctypes.c_void_p),
    )


def is_possible(fuse: Any) -> bool:
    """Tell whether this libfuse lets us add to what it answers.

    Parameters
    ----------
    fuse : module
        mfusepy.
    """
    names = ("fuse_new", "fuse_get_session", "fuse_session_custom_io", "fuse_loop_mt")
    return fuse.fuse_version_minor in _VERSIONS and all(
        hasattr(fuse._libfuse, name) for name in names
    )


def maps_direct() -> bool:
    """Tell whether the kernel maps files that are open for direct I/O."""
    numbers = re.findall(r"\d+", os.uname().release)
    return tuple(map(int, numbers[:2])) >= _MAPS_DIRECT


def serve(fuse: Any, table: Any, descriptor: int, *, passes: bool) -> int:
    """Do what `fuse_main_real` does, and tell the kernel more than libfuse would.

    Parameters
    ----------
    passes : bool
        Whether files are to pass through.
    """
    library = fuse._libfuse
    for name in ("fuse_new", "fuse_get_session", "fuse_loop_cfg_create"):
        getattr(library, name).restype = ctypes.c_void_p
    words = (ctypes.c_char_p * 2)(b"recall", None)
    arguments = _Arguments(1, words, 0)
    handle = ctypes.c_void_p(
        library.fuse_new(
            ctypes.byref(arguments),
            ctypes.byref(table),
            ctypes.c_size_t(ctypes.sizeof(table)),
            None,
        )
    )
    if not handle.value:
        return 1
    session = ctypes.c_void_p(library.fuse_get_session(handle))
    splice = ctypes.cast(_libc.splice, ctypes.c_void_p)
    ways = _Ways(
        _WRITEV(_writing(passes)), ctypes.cast(_libc.read, ctypes.c_void_p), splice, splice, None
    )
    if library.fuse_session_custom_io(session, ctypes.byref(ways), descriptor) != 0:
        return 1
    config = ctypes.c_void_p(library.fuse_loop_cfg_create())
    library.fuse_loop_cfg_set_max_threads(config, _THREADS)
    library.fuse_loop_cfg_set_idle_threads(config, _THREADS)
    return int(library.fuse_loop_mt(handle, config))


def _writing(passes: bool) -> Any:
    """Return what writes answers to the kernel."""
    is_first = True
    more = _MAP_DIRECT_2 | (_PASSTHROUGH_2 if passes else 0)

    writev = _libc.writev

    # With addresses as numbers, because there are so many answers.
    def write(descriptor: int, vector: int, count: int, _: Any) -> int:
        nonlocal is_first
        if is_first:
            is_first = False
            answer = _Vector.from_address(vector + ctypes.sizeof(_Vector))
            if count > 1 and answer.length >= _INIT_BYTES:
                base = answer.base
                _word(base + _INIT_FLAGS).value |= _INIT_EXT
                _word(base + _INIT_FLAGS2).value |= more
                _word(base + _INIT_DEPTH).value = int(passes)
        else:
            backing = getattr(_thread, "backing", 0)
            if backing:
                _thread.backing = 0
                _mark_open(vector, count, backing)
        done: int = writev(descriptor, vector, count)
        return done

    return write


def _mark_open(vector: int, count: int, backing: int) -> None:
    if count != 2:
        return  # the answer is an error
    answer = _Vector.from_address(vector + ctypes.sizeof(_Vector))
    if answer.length not in (_OPEN_BYTES, _ENTRY_BYTES + _OPEN_BYTES):
        return
    place = answer.base + answer.length - _OPEN_BYTES
    _word(place + _OPEN_FLAGS).value = _FOPEN_PASSTHROUGH
    _word(place + _OPEN_BACKING).value = backing


def _word(address: int) -> ctypes.c_uint32:
    return ctypes.c_uint32.from_address(address)


class Backings:
    """Files that the kernel reads and writes by itself.

    Parameters
    ----------
    device : int
        The open ``/dev/fuse``.

    Notes
    -----
    The kernel wants all that have a file open at a time to have it in one way.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._numbers: dict[tuple[int, int], list[int]] = {}
        self._served: dict[Node, int] = {}
        self._open: dict[int, tuple[int, int] | Node] = {}
        self._is_off = False

    def begin(self, node: Node, handle: int, descriptor: int | None) -> None:
        """Let the file that is being opened by this thread pass through, if it can.

        Parameters
        ----------
        descriptor : int or None
            None if only the server can read it.
        """
        if self._is_off:
            return
        with self._lock:
            if descriptor is not None and node not in self._served:
                status = os.fstat(descriptor)
                key = (status.st_dev, status.st_ino)
                number = self._number(key, descriptor)
                if number:
                    self._open[handle] = key
                    _thread.backing = number
                    return
            if not self._is_off:
                self._open[handle] = node
                self._served[node] = self._served.get(node, 0) + 1

    def _number(self, key: tuple[int, int], descriptor: int) -> int:
        if key in self._numbers:
            self._numbers[key][1] += 1
            return self._numbers[key][0]
        given = (ctypes.c_int32 * 4)(descriptor, 0, 0, 0)
        try:
            number = int(ioctl(self._device, _OPEN, given))
        except OSError:
            # Nothing is open in this way: then it is the kernel that cannot, or will not.
            self._is_off = not self._numbers and not self._served
            return 0
        self._numbers[key] = [number, 1]
        return number

    def end(self, handle: int) -> None:
        """Note that an open file was closed."""
        if self._is_off:
            return
        with self._lock:
            key = self._open.pop(handle, None)
            if isinstance(key, Node):
                self._served[key] -= 1
                if not self._served[key]:
                    del self._served[key]
            elif key is not None:
                known = self._numbers[key]
                known[1] -= 1
                if not known[1]:
                    del self._numbers[key]
                    ioctl(self._device, _CLOSE, ctypes.c_uint32(known[0]))
