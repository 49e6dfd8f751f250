"""Who asks: a program's user, groups and name, and doing what it asks with its rights."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from recallfs.integrations.mount.binding import context

_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206}
_MEMORY_S = 1.0
_KNOWN = 256

_libc = ctypes.CDLL(None, use_errno=True)
_NOTHING = contextlib.nullcontext()
_groups: dict[tuple[int, int], tuple[float, frozenset[int]]] = {}


def can_become_others() -> bool:
    """Tell whether this process can do what others ask with their rights."""
    return os.geteuid() == 0 and platform.machine() in _SETGROUPS


@dataclass(frozen=True)
class Caller:
    """A program that asks for something.

    Parameters
    ----------
    uid, gid : int
        That it acts with.
    pid : int
        0 if it is in a container whose numbers mean nothing here.
    """

    uid: int
    gid: int
    pid: int

    @classmethod
    def current(cls) -> Caller:
        """Return whose request this thread of libfuse serves."""
        return cls(*context())

    @property
    def groups(self) -> frozenset[int]:
        """All groups that it acts with, as far as the system tells."""
        key = (self.pid, self.uid)
        until, groups = _groups.get(key, (0.0, frozenset()))
        if until < time.monotonic():
            groups = frozenset((self.gid,)) | _groups_of(self.pid)
            if len(_groups) >= _KNOWN:
                _groups.clear()
            _groups[key] = (time.monotonic() + _MEMORY_S, groups)
        return groups

    def is_among(self, patterns: Sequence[str]) -> bool:
        """Tell whether its name fits one of these globs."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            name = Path(f"/proc/{self.pid}/comm").read_text().rstrip("\n")
            return any(fnmatchcase(name, pattern) for pattern in patterns)
        return False

    def descends_from(self, ancestor: int) -> bool:
        """Tell whether a process started it, directly or not, or is it."""
        pid = self.pid
        while pid > 1:
            if pid == ancestor:
                return True
            try:
                # The name before it may hold anything, even parentheses.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                pid = int(fields[1])
            except (OSError, ValueError, IndexError):
                return False
        return False

    def acting(self) -> contextlib.AbstractContextManager[None]:
        """Make this thread act on files with the caller's rights, if it can."""
        return _NOTHING if self.uid == 0 or os.geteuid() != 0 else self._acting()

    @contextlib.contextmanager
    def _acting(self) -> Iterator[None]:
        own_uid, own_gid = os.geteuid(), os.getegid()
        own_groups = os.getgroups()
        _set_groups(self.groups)
        _libc.setfsgid(self.gid)
        _libc.setfsuid(self.uid)
        try:
            yield
        finally:
            _libc.setfsuid(own_uid)
            _libc.setfsgid(own_gid)
            _set_groups(own_groups)


def _groups_of(pid: int) -> frozenset[int]:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("Groups:"):
                return frozenset(map(int, line.split()[1:]))
    return frozenset()


def _set_groups(groups: Sequence[int] | frozenset[int]) -> None:
    """Set the groups of this thread alone; the C library's own function sets those of all."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    number = _SETGROUPS[platform.machine()]
    if _libc.syscall(number, len(groups), array) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
