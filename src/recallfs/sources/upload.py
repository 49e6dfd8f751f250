"""Writing a file to a mirror: under a name for the time being, read back, then under its own.

A folder on a disk and a server that renames (SFTP) get the bytes below ``.recallfs-partial`` first,
so that the final name never stands for a part. An object store shows an object when it is complete;
it is written to directly, and taken away again should it read back wrong.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recallfs.atomic import is_full, make_folder, no_space, place, sync_folder
from recallfs.catalog.holder import Holder
from recallfs.errors import AccessError, ConflictError, InvalidInputError, RecallError, SourceError
from recallfs.sources.disks import given_path
from recallfs.transfer.addresses import shown
from recallfs.transfer.remote import FsspecRemote
from recallfs.transfer.timing import Deadlines

PARTIAL_FOLDER = ".recallfs-partial"
"""Folder below a mirror's URL for what is not complete yet."""

_RENAMING = ("sftp", "ssh", "smb")
"""Protocols whose servers rename a file in one step."""

_PIECE_BYTES = 4 * 1024 * 1024

_TRIES = 100


def upload(
    url: str,
    options: Mapping[str, Any],
    file: Path,
    suffix: str,
    *,
    source: str,
    check: Callable[[str], None],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Copy a file to a place below a URL, without replacing anything there.

    Parameters
    ----------
    url : str
        Of a mirror, not a chain.
    file : Path
        Regular file; symlinks are not followed.
    suffix : str
        POSIX path below the URL.
    source : str
        Name of the mirror, for messages.
    check : callable
        Called with the suffix under which the bytes are to be read back; raises if they are wrong,
        and then they are removed.

    Raises
    ------
    ConflictError
        Something is there already.
    SourceError
        It could not be written; kind ``no-space`` if it is full.
    AccessError
        It may not be written.
    """
    folder = given_path(url)
    if folder is not None:
        _upload_to_folder(folder, file, suffix, source=source, check=check, progress=progress)
        return
    failure: RecallError
    try:
        _upload_by_fsspec(url, options, file, suffix, check=check, progress=progress)
        return
    except RecallError:
        raise
    except Exception as error:  # noqa: BLE001 - back ends raise what they like
        failure = _failure(source, url, options, error)
    # Raised here, so that what a back end said, perhaps with secrets, is not its cause.
    raise failure


def _upload_to_folder(
    folder: Path,
    file: Path,
    suffix: str,
    *,
    source: str,
    check: Callable[[str], None],
    progress: Callable[[int], None] | None,
) -> None:
    partial = folder / PARTIAL_FOLDER
    staged = partial / _own_name()
    with _mapped_locally(source, folder):
        _reserve(staged, file)
        try:
            _sweep(partial)
            _copy(file, staged, progress)
            check(f"{PARTIAL_FOLDER}/{staged.name}")
            final = folder / suffix
            make_folder(final.parent)
            place(staged, final)
        finally:
            staged.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                partial.rmdir()  # unless somebody else is at work


def _reserve(staged: Path, file: Path) -> None:
    """Make an empty file for the copy, in a folder that whoever has finished there removes."""
    # As `cp` does: who may not read the file may not read its copy.
    mode = 0o600 | (file.lstat().st_mode & 0o777)
    for _ in range(_TRIES):
        make_folder(staged.parent)
        try:
            os.close(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
            return
        except FileNotFoundError:  # removed since it was made
            continue
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(staged.parent))


def _copy(file: Path, staged: Path, progress: Callable[[int], None] | None) -> None:
    with contextlib.ExitStack() as stack:
        source = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, source)
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInputError(f"{file} is not a regular file.")
        target = os.open(staged, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, target)
        while piece := os.read(source, _PIECE_BYTES):
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(target, rest) :]
            if progress is not None:
                progress(len(piece))
        os.fsync(target)
        if hasattr(os, "posix_fadvise"):
            # What is read back shall come from the disk, as far as the system can be told.
            os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
    sync_folder(staged.parent)


def _upload_by_fsspec(
    url: str,
    options: Mapping[str, Any],
    file: Path,
    suffix: str,
    *,
    check: Callable[[str], None],
    progress: Callable[[int], None] | None,
) -> None:
    import fsspec

    is_renaming = urlsplit(url).scheme in _RENAMING
    name = f"{PARTIAL_FOLDER}/{_own_name()}" if is_renaming else suffix
    file_system, base = fsspec.core.url_to_fs(url, **options)
    base = base.rstrip("/")
    written, final = f"{base}/{name}", f"{base}/{suffix}"
    if file_system.exists(final):
        raise FileExistsError
    is_ours = False
    try:
        if is_renaming:
            file_system.makedirs(written.rpartition("/")[0], exist_ok=True)
            _sweep_by_fsspec(file_system, f"{base}/{PARTIAL_FOLDER}")
        is_ours = True
        file_system.put_file(str(file), written, callback=_callback(progress))
        check(name)
        if is_renaming:
            file_system.makedirs(final.rpartition("/")[0], exist_ok=True)
            # SFTP's rename replaces: somebody who came first is noticed up to this moment.
            if file_system.exists(final):
                raise FileExistsError
            file_system.mv(written, final)
        is_ours = False
    finally:
        if is_ours:
            with contextlib.suppress(Exception):
                file_system.rm_file(written)
        if is_renaming:
            with contextlib.suppress(Exception):
                file_system.rmdir(f"{base}/{PARTIAL_FOLDER}")  # unless somebody is at work


def _own_name() -> str:
    return f"{Holder.current().token()}-{uuid.uuid4().hex}"


def _is_left_behind(name: str) -> bool:
    holder = Holder.from_token(name)
    return holder is not None and holder.is_known_dead()


def _sweep(partial: Path) -> None:
    """Remove what killed pushes of this computer left."""
    for left in partial.iterdir():
        if _is_left_behind(left.name):
            left.unlink(missing_ok=True)


def _sweep_by_fsspec(file_system: Any, folder: str) -> None:
    for left in file_system.ls(folder, detail=False):
        if _is_left_behind(left.rpartition("/")[2]):
            with contextlib.suppress(FileNotFoundError):
                file_system.rm_file(left)


def _callback(progress: Callable[[int], None] | None) -> Any:
    """Return what fsspec tells of the bytes that it writes."""
    from fsspec.callbacks import Callback

    class Told(Callback):  # type: ignore[misc] # fsspec is untyped
        told = 0

        def call(self, *arguments: Any, **options: Any) -> None:
            if progress is not None and self.value > self.told:
                progress(self.value - self.told)
                self.told = self.value

    return Told()


@contextmanager
def _mapped_locally(source: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except RecallError:
        raise
    except OSError as error:
        if is_full(error):
            raise no_space(error, folder) from error
        why = error.strerror or str(error)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise AccessError(
                f"{source} cannot be written to ({folder}: {why}).", details={"source": source}
            ) from error
        raise SourceError(
            f"{source} could not be written to ({folder}: {why}).", details={"source": source}
        ) from error


def _failure(source: str, url: str, options: Mapping[str, Any], error: Exception) -> RecallError:
    if isinstance(error, FileExistsError):
        return ConflictError(f"something is there already in {source}.")
    if isinstance(error, OSError) and is_full(error):
        return SourceError(
            f"{source} is full ({shown(url)}); free some space there and push again.",
            kind="no-space",
            details={"source": source},
        )
    if isinstance(error, FileNotFoundError):
        return SourceError(
            f"{source} could not be written to: {shown(url)} is not there. Make it first.",
            details={"source": source},
        )
    if isinstance(error, PermissionError):
        return AccessError(
            f"{source} may not be written to ({shown(url)}); check its options and rights.",
            details={"source": source},
        )
    remote = FsspecRemote(url, options, deadlines=Deadlines(), source=source)
    return remote.mapped(error)
