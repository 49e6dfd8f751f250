"""Snapshots: what keeps the bytes of a dropped file alive, as far as that can be seen.

What a file system tells only to root is not asked; then the answer is that it *may* keep them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from recallfs.catalog.store import Store
from recallfs.mounts import MountInfo, file_system

_FOLDERS = {
    "zfs": (".zfs/snapshot",),
    "btrfs": (".snapshots",),
    "ceph": (".snap",),
    "gpfs": (".snapshots",),
    "bcachefs": (".snapshots",),
}
_SERVER_FOLDERS = (".snapshot", ".zfs/snapshot", "~snapshot")
"""Where file servers (NetApp, Isilon, ZFS) show them, whatever the protocol."""

_MAY_KEEP = ("zfs", "btrfs", "bcachefs")
_POOL = "-tpool"

Look = Callable[[Path], Sequence[str] | None]
"""Lists a folder; None if it is not there or not to be seen."""


def places(info: MountInfo, root: Path) -> list[Path]:
    """Return where snapshots of a mount would be seen. Pure."""
    names = _FOLDERS.get(info.kind, ())
    if info.is_network:
        names = (*names, *(name for name in _SERVER_FOLDERS if name not in names))
    bases = dict.fromkeys((Path(info.mount_point), root))
    return [base / name for base in bases for name in names]


def told(info: MountInfo, root: Path, look: Look, layers: Sequence[str] = ()) -> str:
    """Say in one sentence that snapshots keep dropped bytes, or may; empty if none can.

    Parameters
    ----------
    look : callable
        Lists folders; tests give their own.
    layers : sequence of str
        What the device mapper calls the devices below the mounted one.
    """
    seen = [(place, look(place)) for place in places(info, root)]
    for place, names in seen:
        if names:
            return (
                f"the file system at {info.mount_point} ({info.kind}) keeps snapshots "
                f"({len(names)} in {place}); bytes that are in one are freed when it goes."
            )
    if any(name.endswith(_POOL) for name in layers):
        return (
            f"the file system at {info.mount_point} lies on a thin LVM volume: its pool has the "
            "bytes back after `fstrim`, and when no snapshot holds them."
        )
    if info.kind in _MAY_KEEP and not any(names is not None for _, names in seen):
        return (
            f"the file system at {info.mount_point} ({info.kind}) may keep snapshots, which only "
            "an administrator can list; bytes that are in one are freed when it goes."
        )
    return ""


def snapshot_warning(store: Store) -> str | None:
    """Say so if snapshots keep, or may keep, what is dropped from a store."""
    info = file_system(store.root)
    return told(info, store.root, _list, _layers(info.device)) or None


def _list(folder: Path) -> list[str] | None:
    try:
        return [place.name for place in folder.iterdir()]
    except OSError:
        return None


def _layers(device: str, block: Path = Path("/sys/dev/block")) -> list[str]:
    """Return the device mapper's names of a device and of those right below it."""
    here = block / device
    found = []
    for place in (here, *sorted(here.glob("slaves/*"))):
        try:
            found.append((place / "dm" / "uuid").read_text(encoding="utf-8").strip())
        except OSError:
            continue
    return found
