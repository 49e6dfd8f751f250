"""Writing so that a reader sees all of it or nothing, whatever dies in between.

Everything that recallfs writes to a disk goes through here. The steps between which a process may
be killed are named (`FAULT_POINTS`), and the tests kill a process at each one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from recallfs.errors import CatalogError, ConflictError, SourceError

FAULT_POINTS = (
    "stage.created",  # the staging file exists and is empty
    "stage.written",  # all bytes are written, nothing is synced
    "stage.synced",  # the staging file is durable and verified
    "place.linked",  # the final name exists; the staging name still does too
    "place.unstaged",  # the staging name is gone; the catalog does not know yet
    "record.written",  # a sidecar's new form is written beside the old one
    "record.renamed",  # the new sidecar stands; the catalog does not know yet
    "catalog.recorded",  # the catalog knows; the lease is still held
    "release.vaulted",  # evidence is in the vault; nothing is dropped
    "release.intended",  # the intent to release is recorded; the file is in place
    "release.trashed",  # the file is in the trash; records say 'intended'
    "release.recorded",  # sidecar and catalog say 'released'; the bytes are in the trash
    "purge.hashed",  # the trashed bytes were hashed again; they still exist
    "purge.unlinked",  # the bytes are gone; the trash record is still there
)
"""Named moments at which a kill must leave every promise intact."""

_fault_hook: Callable[[str], None] | None = None


def set_fault_hook(hook: Callable[[str], None] | None) -> None:
    """Call `hook` with the name of each fault point that is passed (None: no longer).

    For tests; see `recallfs.testing.faults`.
    """
    global _fault_hook  # noqa: PLW0603 - one process-wide seam, so that no signature carries it
    _fault_hook = hook


def fault_point(name: str) -> None:
    """Mark a moment at which the process may be killed."""
    if _fault_hook is not None:
        _fault_hook(name)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems (CIFS, a few FUSE ones) cannot sync a folder, and say so this way.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the bytes of the file at `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def new_name(prefix: str = "") -> str:
    """Return a file name that no other process uses."""
    return f"{prefix}{uuid.uuid4().hex}"


def write_record(path: Path, content: bytes, *, mode: int = 0o664) -> None:
    """Write a small file whole: the old content or the new one, never a part.

    Parameters
    ----------
    path : Path
        Replaced if it exists. Its folder is made if need be.
    mode : int
        Permission bits before the umask.

    Raises
    ------
    SourceError
        Kind ``no-space`` if the disk is full; what was there before still is.
    """
    make_folder(path.parent)
    temporary = path.with_name(new_name(".new-"))
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fault_point("record.written")
        temporary.rename(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and is_full(error):
            raise no_space(error, path.parent) from error
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, durably; no error if it is there."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir()
    except OSError as error:
        if is_full(error):
            raise no_space(error, folder.parent) from error
        if not isinstance(error, FileExistsError):
            raise
        if not folder.is_dir():
            raise ConflictError(
                f"{folder} is a file where a folder is needed; move it away first."
            ) from None
        return
    sync_folder(folder.parent)


def place(staged: Path, final: Path) -> None:
    """Give a staged file its final name, without ever replacing what is there.

    Parameters
    ----------
    staged : Path
        Synced and verified, on the same file system as `final`. Gone afterwards.

    Raises
    ------
    ConflictError
        If something exists at `final`; `staged` is left as it was.
    """
    make_folder(final.parent)
    rename_without_replacing(staged, final)
    sync_folder(final.parent)


def rename_without_replacing(source: Path, target: Path) -> None:
    """Rename a file unless the target name is taken (RENAME_NOREPLACE, else link + unlink).

    Where the kernel has RENAME_NOREPLACE this is one step: whatever is at `source` at that moment
    moves, and nothing that somebody saves there a moment later is touched.

    Raises
    ------
    ConflictError
        If `target` exists.
    """
    if _rename_noreplace(source, target):
        fault_point("place.linked")
    else:
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            raise _taken(target) from None
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                raise
            raise CatalogError(
                f"the file system of {target.parent} has neither hard links nor RENAME_NOREPLACE "
                f"({error.strerror}); put the store on one that has.",
            ) from error
        fault_point("place.linked")
        source.unlink()
    fault_point("place.unstaged")


def _taken(target: Path) -> ConflictError:
    return ConflictError(f"{target} exists; it was left as it is.", details={"path": str(target)})


def _rename_noreplace(source: Path, target: Path) -> bool:
    """Call Linux' renameat2 with RENAME_NOREPLACE; False where there is no such thing."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        renameat2 = libc.renameat2
    except AttributeError:
        return False
    at_fdcwd, rename_noreplace = -100, 1
    if not renameat2(
        at_fdcwd, os.fsencode(source), at_fdcwd, os.fsencode(target), rename_noreplace
    ):
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        raise _taken(target)
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), os.fspath(source), None, os.fspath(target))


def no_space(error: OSError, folder: Path) -> SourceError:
    """Turn 'disk full' into the error that says which disk."""
    disk = next((place for place in (folder, *folder.parents) if place.is_mount()), folder)
    return SourceError(
        f"no space left on the disk at {disk} ({os.strerror(error.errno or 0)}); "
        "nothing was changed. Free some space and try again.",
        kind="no-space",
        details={"folder": str(folder)},
    )


def is_full(error: OSError) -> bool:
    """Tell whether an OSError means a full disk or an exhausted quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
