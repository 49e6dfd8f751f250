"""What this computer and its file systems can do, tried out in a folder of the store."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from recallfs.atomic import rename_without_replacing
from recallfs.catalog import statistics
from recallfs.catalog.store import Store
from recallfs.doctor.faults import Finding
from recallfs.errors import AccessError, CatalogError, SourceError
from recallfs.exclusive import watch
from recallfs.recipes.sandbox import can_hide
from recallfs.values import format_size

NETWORK = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.glusterfs", "fuse.rclone",
        "fuse.s3fs", "fuse.sshfs", "fuse.juicefs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
        "orangefs", "panfs", "smb3", "smbfs", "virtiofs",
    }
)  # fmt: skip
"""File systems that other computers may have mounted too, as the kernel names them."""

_BROKEN_HDF5 = ("1.12.2", "1.14.2")
_SPACE_BYTES = 1_000_000_000
_INODES = 10_000
_CLOCK_TOLERANCE = timedelta(minutes=2)


class Mount(NamedTuple):
    """Where a file system is mounted, and which kind it is."""

    point: Path
    kind: str


def check_computer() -> Iterator[Finding]:
    """Check what does not depend on a store."""
    if not can_hide():
        problem = "The kernel refuses private mounts."
        yield Finding("no-namespaces", "this computer", problem)
    import h5py

    version = h5py.version.hdf5_version
    if version in _BROKEN_HDF5:
        yield Finding("hdf5-version", f"HDF5 {version}", "h5py was built with it.")


def check_disk(store: Store) -> Iterator[Finding]:
    """Check the disk that a store is on: kind, space, inodes."""
    mount = mount_of(store.root)
    if mount is not None and mount.kind in NETWORK and store.settings.catalog is None:
        problem = f"It is on {mount.kind} (mounted at {mount.point}), with an SQLite catalog."
        yield Finding("wal-on-network", str(store.root), problem, store.name)
    status = os.statvfs(store.root)
    free = status.f_bavail * status.f_frsize
    if free < _SPACE_BYTES:
        problem = f"{format_size(free)} are free."
        yield Finding("space-low", str(store.root), problem, store.name)
    # Some file systems (btrfs) make inodes as they are needed and report none at all.
    if status.f_files and status.f_favail < _INODES:
        problem = f"{status.f_favail:,} inodes are free."
        yield Finding("inodes-low", str(store.root), problem, store.name)


def check_abilities(store: Store) -> Iterator[Finding]:
    """Try out, with files of our own, what recalls and releases need of the file system."""
    try:
        with store.staging() as folder:
            yield from _try_out(store, folder)
    except AccessError as error:
        yield Finding("not-writable", str(store.root), error.message, store.name)
    except SourceError as error:
        yield Finding("space-low", str(store.root), error.message, store.name)


def _try_out(store: Store, folder: Path) -> Iterator[Finding]:
    place, name = str(store.root), store.name
    first = folder / "probe-a"
    first.write_bytes(b"x")
    with watch(first) as watched:
        if not watched.is_exclusive:
            problem = "The file system gives no leases (F_SETLEASE)."
            yield Finding("no-leases", place, problem, name)
    if (folder / "PROBE-A").exists():
        yield Finding("case-insensitive", place, "PROBE-A is found as probe-a.", name)
    composed = folder / unicodedata.normalize("NFC", "probe-\u00e9")
    composed.write_bytes(b"x")
    decomposed = unicodedata.normalize("NFD", composed.name)
    if decomposed in os.listdir(folder) or (folder / decomposed).exists():  # noqa: PTH208 - names as they are stored
        yield Finding("names-normalised", place, "A composed letter is found decomposed.", name)
    try:
        rename_without_replacing(first, folder / "probe-b")
    except CatalogError as error:
        yield Finding("no-safe-rename", place, error.message, name)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        yield Finding("no-folder-sync", place, f"fsync of a folder: {error.strerror}.", name)
    finally:
        os.close(descriptor)


def check_clock(store: Store) -> Iterator[Finding]:
    """Check that nothing on record is younger than now."""
    newest = statistics.newest_moment(store.catalog)
    moments = [] if newest is None else [datetime.fromisoformat(newest)]
    with contextlib.suppress(FileNotFoundError):
        changed = (store.control / "entries").stat().st_mtime
        moments.append(datetime.fromtimestamp(changed, tz=timezone.utc))
    now = datetime.now(timezone.utc)
    latest = max(moments, default=now)
    if latest > now + _CLOCK_TOLERANCE:
        problem = (
            f"The newest record is of {latest.isoformat(timespec='seconds')}; this clock says "
            f"{now.isoformat(timespec='seconds')}."
        )
        yield Finding("clock-set-back", "this computer", problem, store.name)


def check_rights(store: Store) -> Iterator[Finding]:
    """Check that a store which is shared with a group is shared whole."""
    shared = store.root.stat()
    if not shared.st_mode & 0o020:
        return
    parts = [store.control, *(path for path in store.control.iterdir() if path.is_dir())]
    parts += [path for path in store.control.glob("catalog.sqlite*") if "damaged" not in path.name]
    for path in sorted(parts):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if status.st_gid != shared.st_gid or not status.st_mode & 0o020:
            problem = f"It has the group {status.st_gid} and the mode {status.st_mode & 0o7777:o}."
            yield Finding("group-cannot-write", str(path), problem, store.name)


def mount_of(place: Path, table: str | None = None) -> Mount | None:
    """Return the mount that a path is on, or None where the system does not say.

    Parameters
    ----------
    table : str, optional
        What ``/proc/self/mountinfo`` holds; read there by default.
    """
    if table is None:
        try:
            table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    found: Mount | None = None
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(_unescape(fields[4]))
        # Of two mounts on one folder the later one is on top.
        if place.is_relative_to(point) and (
            found is None or len(point.parts) >= len(found.point.parts)
        ):
            found = Mount(point, after.split()[0])
    return found


def _unescape(text: str) -> str:
    """Read a path as the kernel writes it: blanks and backslashes in octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
