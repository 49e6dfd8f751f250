"""A view of the disks of one's own, in which a store that is mounted over itself is what it was.

A server whose store lies below its own mount would wait for itself, and so would each recipe that
it starts. Commands that work on the store look below the mount.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from recallfs.errors import AccessError
from recallfs.integrations.mount.point import KIND
from recallfs.integrations.mount.view import ROOT
from recallfs.mounts import read_mounts

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_MNT_DETACH = 2

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


def covered_roots() -> list[str]:
    """Return the roots of stores that are mounted over themselves, as far as they say so."""
    places = [mount.info.mount_point for mount in read_mounts() if mount.info.kind == KIND]
    return [place for place in places if _root_at(place) == os.fsencode(place)]


def _root_at(place: str) -> bytes | None:
    with contextlib.suppress(OSError):
        return os.getxattr(place, ROOT)
    return None


def look_below() -> list[str]:
    """Make this thread, and what it starts, see such roots instead of the mounts.

    Returns
    -------
    list of str
        Roots that stay covered: the system lets only root look below.
    """
    places = covered_roots()
    if not places or os.geteuid() != 0:
        return places
    folder = os.getcwd()
    leave()
    # Names, not what is open: a mount lets go of neither for the others.
    left = [place for place in places if _libc.umount2(os.fsencode(place), _MNT_DETACH) != 0]
    os.chdir(folder)
    return left
