"""Which file system a path is on, and whether other computers may be writing to it too.

SQLite's write-ahead log needs memory that all its users share, which a network file system does
not give: two hosts would each see a log of their own.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import NamedTuple

_MOUNTINFO = Path("/proc/self/mountinfo")

_NETWORK_KINDS = frozenset(
    (
        "9p", "acfs", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "gfs", "gfs2", "glusterfs",
        "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2",
        "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs",
    )
)  # fmt: skip
# What a FUSE daemon does behind its mount cannot be known from here; most lead to another computer.
# A disk served by FUSE (ntfs-3g) has a kind of its own, 'fuseblk'.
_FUSE = re.compile(r"fuse(\..*)?")
_REMOTE_SOURCE = re.compile(r"//|[^/]+:/")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class MountInfo(NamedTuple):
    """The mount that a path is on.

    Parameters
    ----------
    kind : str
        The system's name of the file system's type, such as ``ext4``; empty where it is not known.
    source : str
        What is mounted: a device, ``host:/export``, or a word without meaning.
    mount_point : str
        Absolute path.
    is_network : bool
        Whether other computers may use the same files; False where it is not known.
    device : str
        Number of the file system; equal for all its mounts. Empty where it is not known.
    subtree : str
        Folder of the file system that is mounted: ``/``, unless part of it is (a bind mount).
    """

    kind: str
    source: str
    mount_point: str
    is_network: bool
    device: str = ""
    subtree: str = "/"


_UNKNOWN = MountInfo("", "", "/", False)


class _Mount(NamedTuple):
    id: int
    parent: int
    info: MountInfo


def is_network(path: Path) -> bool:
    """Tell whether a path is on a file system that other computers may use too."""
    return file_system(path).is_network


def file_system(path: Path) -> MountInfo:
    """Return the mount that a path is on, or would be on if it were made.

    Parameters
    ----------
    path : Path
        Symlinks are followed.

    Notes
    -----
    Linux only: where there is no ``/proc/self/mountinfo`` nothing is known, and that is no error.
    A folder that is mounted when it is first used (autofs) is used, so that the answer is of what
    is mounted there and not of the trigger.
    """
    real = Path(os.path.realpath(path))
    found = find(read_mounts(), real)
    if found.kind == "autofs":
        with contextlib.suppress(OSError):
            os.scandir(real if real.is_dir() else real.parent).close()
        found = find(read_mounts(), real)
    return found


def is_within(path: Path, folder: Path) -> bool:
    """Tell whether a path is a folder or below it, by whatever names and mounts it is reached.

    Symlinks are resolved, and so are bind mounts, where the system lists its mounts.
    """
    real, above = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if real.is_relative_to(above):
        return True
    mounts = read_mounts()
    device, place = _true_place(mounts, real)
    other, base = _true_place(mounts, above)
    return bool(device) and device == other and place.is_relative_to(base)


def _true_place(mounts: list[_Mount], path: Path) -> tuple[str, PurePath]:
    """Return a path's file system, and where in that it is."""
    info = find(mounts, path)
    return info.device, PurePath(info.subtree) / path.relative_to(info.mount_point)


def read_mounts(table: Path = _MOUNTINFO) -> list[_Mount]:
    """Read the mounts that this process sees; none where the system does not list them."""
    try:
        content = table.read_bytes()
    except OSError:
        return []
    return [mount for mount in map(_parse, content.splitlines()) if mount is not None]


def find(mounts: Iterable[_Mount], path: PurePath) -> MountInfo:
    """Find the mount of an absolute path without symlinks.

    Notes
    -----
    Goes down from the root as the kernel does, from a mount to the one on top of it: the longest
    mount point that begins a path may lie hidden below a later mount.
    """
    below = {}
    root = None
    for mount in mounts:
        # Nothing can be mounted twice at one place of one mount; a second one lies on the first.
        below[mount.parent, mount.info.mount_point] = mount
        if root is None and mount.info.mount_point == "/":
            root = mount
    if root is None:
        return _UNKNOWN
    here = root
    for folder in (*reversed(path.parents), path):
        while (above := below.get((here.id, str(folder)))) is not None and above != here:
            here = above
    return here.info


def _parse(line: bytes) -> _Mount | None:
    """Read a line of mountinfo (proc(5)): ids, mount point, and after a lone dash what it is."""
    fields = line.split(b" ")
    try:
        dash = fields.index(b"-", 6)
        number, parent = int(fields[0]), int(fields[1])
        kind, source = (_text(field) for field in fields[dash + 1 : dash + 3])
    except ValueError:
        return None
    return _Mount(
        number,
        parent,
        MountInfo(
            kind=kind,
            source=source,
            mount_point=_text(fields[4]),
            is_network=kind in _NETWORK_KINDS
            or bool(_FUSE.fullmatch(kind) or _REMOTE_SOURCE.match(source)),
            device=fields[2].decode("ascii", "replace"),
            subtree=_text(fields[3]),
        ),
    )


def _text(field: bytes) -> str:
    """Undo the octal escapes of spaces, tabs, newlines, backslashes and number signs."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))
