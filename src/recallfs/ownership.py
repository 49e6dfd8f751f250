"""Owner, group, mode and ACL of files: read, given back, and handed down from a folder.

What recallfs keeps for several people has the permissions of the folder that it is made in, not
those that one member's umask would give it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from recallfs.permissions import Acl, limited, narrowed
from recallfs.values import Metadata

_ACCESS, _DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def metadata_of(file: Path | int) -> Metadata:
    """Read what a recall restores, of a path or an open file; symlinks are followed."""
    status = os.stat(file)  # noqa: PTH116 - it may be a descriptor
    acl = _read_acl(file, _ACCESS)
    return Metadata.from_stat(status, "" if acl is None else str(acl))


def own_groups() -> frozenset[int]:
    """Return the groups that this process acts with."""
    return frozenset((os.getegid(), *os.getgroups()))


def restore(path: Path, wanted: Metadata, *, concerned: bool = False) -> tuple[str, ...]:
    """Give a file its recorded owner, group, mode, ACL and time, durably, as far as one may.

    Parameters
    ----------
    path : Path
        A regular file; a symlink is not followed.
    concerned : bool
        Whether the file only tells of the one that the metadata are of, such as its skeleton: then
        it is never executable, and keeps its own time.

    Returns
    -------
    tuple of str
        What differs from the record afterwards: some of ``owner``, ``group``, ``mode``, ``acl``.
        Nobody has more access than recorded.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = metadata_of(descriptor)
        if concerned:
            acl = Acl.of(wanted).within(0o666)
            wanted = replace(wanted, mode=acl.mode, mtime_ns=found.mtime_ns, acl=acl.text)
        if found != wanted and os.geteuid() in (0, found.uid):
            _restore(descriptor, found, wanted)
        os.fsync(descriptor)
        return differences(metadata_of(descriptor), wanted)
    finally:
        os.close(descriptor)


def _restore(descriptor: int, found: Metadata, wanted: Metadata) -> None:
    with contextlib.suppress(OSError):
        # Nobody looks in while owner and bits do not fit.
        os.fchmod(descriptor, found.mode & wanted.mode & 0o777)
    if (found.uid, found.gid) != (wanted.uid, wanted.gid):
        for uid in (wanted.uid, -1):
            # Only root gives files away; a member of the group may still set that.
            with contextlib.suppress(OSError):
                os.fchown(descriptor, uid, wanted.gid)
                break
    status = os.fstat(descriptor)
    given = limited(wanted, status.st_uid, status.st_gid, own_groups())
    acl = Acl.of(given)
    if not _write_acl(descriptor, acl):
        acl = acl.flattened()
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, given.mode & 0o7000 | acl.mode)
    os.utime(descriptor, ns=(status.st_atime_ns, wanted.mtime_ns))


def differences(found: Metadata, wanted: Metadata) -> tuple[str, ...]:
    """Name what differs between two files' permissions."""
    pairs = {
        "owner": (found.uid, wanted.uid),
        "group": (found.gid, wanted.gid),
        "mode": (found.mode, wanted.mode),
        "acl": (found.acl, wanted.acl),
    }
    return tuple(name for name, (one, other) in pairs.items() if one != other)


def usual_metadata(place: Path, mtime_ns: int) -> Metadata:
    """Return what a plain `open` for writing would give a file at `place`.

    A file that is there keeps its own; a new one gets the umask's mode, the group of a setgid
    folder and the folder's default ACL.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(place.lstat().st_mode):
            there = metadata_of(place)
            return replace(there, mode=there.mode & 0o777, mtime_ns=mtime_ns)
    folder = next(parent for parent in place.parents if parent.is_dir())
    status, default = folder.stat(), _read_acl(folder, _DEFAULT)
    gid = status.st_gid if status.st_mode & stat.S_ISGID else os.getegid()
    if default is None:
        return Metadata(0o666 & ~_umask(), os.geteuid(), gid, mtime_ns)
    acl = default.within(0o666)
    return Metadata(acl.mode, os.geteuid(), gid, mtime_ns, acl.text)


def create_shared(path: Path, *, concerned: Iterable[Metadata] = ()) -> int:
    """Create a file that those share who share its folder; return it open for reading and writing.

    Parameters
    ----------
    concerned : iterable of Metadata
        Files that it tells of: it is readable only for those who can read all of them.

    Raises
    ------
    FileExistsError
    """
    folder = path.parent
    has_default = _read_acl(folder, _DEFAULT) is not None
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # Under a default ACL the system itself does what we want, and no umask counts.
    descriptor = os.open(path, flags, 0o666 if has_default else 0o600)
    try:
        _share(descriptor, folder, 0o666, has_default=has_default, concerned=concerned)
    except BaseException:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def create_shared_folder(path: Path, model: Path | None = None) -> None:
    """Make a folder that those share who share its parent, or the folder `model`.

    Raises
    ------
    FileExistsError
    """
    model = model or path.parent
    has_default = model == path.parent and _read_acl(model, _DEFAULT) is not None
    path.mkdir(mode=0o777 if has_default else 0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not has_default:
            # Of another parent than the model, it may have got that one's lists.
            plain = Acl.from_mode(0o700)
            acl = _read_acl(model, _DEFAULT) or plain
            access = _read_acl(model, _ACCESS)
            if acl is plain and access is not None:
                acl = access.handed_down(model.stat().st_uid)
            for name in (_ACCESS, _DEFAULT):
                # As default it is handed down by the system itself, also to what SQLite makes.
                _write_acl(descriptor, acl, name)
        _share(descriptor, model, 0o777, has_default=has_default)
    finally:
        os.close(descriptor)


def _share(
    descriptor: int,
    model: Path,
    bits: int,
    *,
    has_default: bool,
    concerned: Iterable[Metadata] = (),
) -> None:
    wanted = model.stat()
    # What root makes in somebody's store is theirs, or they could not change it later.
    uid = wanted.st_uid if os.geteuid() == 0 else -1
    status = os.fstat(descriptor)
    if uid not in (-1, status.st_uid) or status.st_gid != wanted.st_gid:
        with contextlib.suppress(OSError):
            os.fchown(descriptor, uid, wanted.st_gid)
    gid = os.fstat(descriptor).st_gid
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if not has_default:
        acl = _read_acl(model, _ACCESS) or Acl.from_mode(wanted.st_mode)
        group = acl.group_bits if gid == wanted.st_gid else acl.group_bits & acl.other
        own = _read_acl(descriptor, _ACCESS)  # that of a new folder has the whole list already
        mode = bits & (own.mode if own else acl.owner << 6 | group << 3 | acl.other)
    if stat.S_ISDIR(status.st_mode) and (mode & 0o020 or wanted.st_mode & stat.S_ISGID):
        # What is made inside keeps the group, also where the store's root does not ask for it.
        mode |= stat.S_ISGID
    os.fchmod(descriptor, narrowed(mode, gid, concerned))


def _umask() -> int:
    """Return the umask, without changing it where the system tells it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        return int(status.partition("\nUmask:")[2].split()[0], 8)
    mask = os.umask(0o077)  # what another thread makes meanwhile is private, not everybody's
    os.umask(mask)
    return mask


def _read_acl(file: Path | int, name: str) -> Acl | None:
    """Read an ACL; None if there is none, or the file system has no such thing."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        return Acl.from_bytes(os.getxattr(file, name))
    except (OSError, ValueError):
        return None


def _write_acl(file: int, acl: Acl, name: str = _ACCESS) -> bool:
    """Set an ACL, or remove it where plain bits are enough; False if the system keeps none."""
    if not hasattr(os, "setxattr"):
        return acl.is_plain
    try:
        if acl.is_plain:
            with contextlib.suppress(OSError):
                os.removexattr(file, name)
        else:
            os.setxattr(file, name, bytes(acl))
    except OSError:
        return False
    return True
