"""Writing so that a reader sees all of it or nothing, whatever dies in between.

Everything that recallfs writes to a disk goes through here. The steps between which a process may
be killed are named (`FAULT_POINTS`), and the tests kill a process at each one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from recallfs.errors import CatalogError, ConflictError, IntegrityError, SourceError
from recallfs.ownership import create_shared, create_shared_folder, restore
from recallfs.values import Metadata

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
    "blocks.made",  # a file in parts is laid out beside its place
    "blocks.written",  # parts are written, and may not be durable
    "blocks.synced",  # they are durable, and not marked as such
    "blocks.marked",  # they are marked
)
"""Named moments at which a kill must leave every promise intact."""

_COPY_BYTES = 1024**2

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


def write_record(
    path: Path,
    content: bytes | Sequence[bytes] | BinaryIO,
    *,
    mode: int | None = None,
    like: Metadata | None = None,
    concerned: Iterable[Metadata] = (),
) -> None:
    """Write a file whole: the old content or the new one, never a part.

    Parameters
    ----------
    path : Path
        Replaced if it exists. Its folder is made if need be.
    content : bytes, sequence of bytes, or binary file
        Pieces follow one another; a file is copied from where it stands to its end.
    mode : int, optional
        Permission bits before the umask. By default those of the folder count, and no umask.
    like : Metadata, optional
        Of the one file that this record tells of: owner and permissions follow it.
    concerned : iterable of Metadata
        Of several such files; only who could read all of them can read the record.

    Raises
    ------
    SourceError
        Kind ``no-space`` if the disk is full; what was there before still is.
    """
    if mode is None:
        make_shared_folder(path.parent)
    else:
        make_folder(path.parent)
    temporary = path.with_name(new_name(".new-"))
    try:
        if mode is None and like is None:
            descriptor = create_shared(temporary, concerned=concerned)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(temporary, flags, 0o600 if mode is None else mode)
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(content, Sequence):
                file.writelines([content] if isinstance(content, bytes) else content)
            else:
                shutil.copyfileobj(content, file, _COPY_BYTES)
            file.flush()
            if like is not None:
                restore(temporary, like, concerned=True)
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


def make_shared_folder(folder: Path, model: Path | None = None) -> None:
    """Make a folder and its parents for all who share the one above them, or the folder `model`.

    Unlike `make_folder` it asks no umask, and the folder appears with its final permissions.
    """
    if folder.is_dir():
        return
    if model is None:
        make_shared_folder(folder.parent)
    else:
        make_folder(folder.parent)
    temporary = folder.with_name(new_name(".new-"))
    try:
        create_shared_folder(temporary, model)
        # An empty folder that another process has just made may give way to an equal one.
        os.rename(temporary, folder)  # noqa: PTH104 - Path.rename's own words are the same
    except OSError as error:
        if temporary.is_dir():
            temporary.rmdir()
        if is_full(error):
            raise no_space(error, folder.parent) from error
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and folder.is_dir():
            return
        if error.errno == errno.ENOTDIR:
            raise ConflictError(
                f"{folder} is a file where a folder is needed; move it away first."
            ) from None
        raise
    sync_folder(folder.parent)


def make_shared_file(path: Path) -> None:
    """Make an empty file for all who share its folder, unless there is one."""
    if os.path.lexists(path):
        return
    temporary = path.with_name(new_name(".new-"))
    os.close(create_shared(temporary))
    try:
        # Under its name it never has other permissions than the final ones.
        if not _rename_noreplace(temporary, path):
            os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)


def read_record(path: Path) -> bytes:
    """Read a small file that we keep; see `open_record`."""
    with open_record(path) as file:
        return file.read()


def open_record(path: Path) -> BinaryIO:
    """Open a file that we keep; a symlink in its place is not followed.

    Raises
    ------
    IntegrityError
        Kind ``damaged-record`` if it is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise not_ours(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise not_ours(path)
    return os.fdopen(descriptor, "rb")


def refuse_links(base: Path, folder: Path) -> None:
    """Make sure that no folder between `base` and `folder`, itself included, is a symlink.

    Raises
    ------
    IntegrityError
        Kind ``damaged-record``: what is reached through it may be anybody's.
    """
    place = base
    for name in folder.relative_to(base).parts:
        place = place / name
        try:
            if not stat.S_ISDIR(place.lstat().st_mode):
                raise not_ours(place)
        except FileNotFoundError:
            return


def is_regular(path: Path) -> bool:
    """Tell whether a regular file is at a path; symlinks are not followed."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def not_ours(path: Path) -> IntegrityError:
    """Say that something in a folder of ours is not what we put there."""
    return IntegrityError(
        f"{path} is a symlink or something else that recallfs did not make; it was not followed. "
        "Find out who put it there, and remove it.",
        kind="damaged-record",
        details={"name": str(path)},
    )


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


@contextmanager
def said_if_full(folder: Path) -> Iterator[None]:
    """Turn 'disk full' into the error that says which disk, for what is written to a folder."""
    try:
        yield
    except OSError as error:
        if is_full(error) and not isinstance(error, SourceError):
            raise no_space(error, folder) from error
        raise


def has_no_room(path: Path) -> bool:
    """Tell whether the disk of a file has no byte or no inode left."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail == 0 or (disk.f_files > 0 and disk.f_favail == 0)


def is_full(error: OSError) -> bool:
    """Tell whether an OSError means a full disk or an exhausted quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
