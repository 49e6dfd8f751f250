"""A view of the disks of one's own, in which a mount that comes later is not seen.

A server whose store lies below its own mount would wait for itself, and so would each recipe that
it starts.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from recallfs.errors import AccessError

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000

_libc = ctypes.CDLL(None, use_errno=True)


def leave() -> None:
    """Leave the common view of the disks; call it while this process has one thread.

    Raises
    ------
    AccessError
        The system lets only root do that.
    """
    uid, gid = os.geteuid(), os.getegid()
    as_root = uid == 0
    if _libc.unshare(_CLONE_NEWNS | (0 if as_root else _CLONE_NEWUSER)) != 0:
        raise AccessError(
            "a store is mounted over itself only where the system gives this user a view of the "
            f"disks of their own ({os.strerror(ctypes.get_errno())}); mount it at another folder, "
            "or as root."
        )
    if not as_root:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    if _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        raise AccessError(
            f"the view of the disks cannot be parted: {os.strerror(ctypes.get_errno())}."
        )
