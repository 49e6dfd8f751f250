"""The vault: a second failure domain that holds the evidence of everything released.

::

    <vault>/<store id>/entries/aa/<entry id>.rsc1
    <vault>/<store id>/environments/<id>.json
    <vault>/<store id>/code/aa/<digest>.diff
    <vault>/<store id>/skeletons/aa/<digest>.rsk1
    <vault>/<store id>/residuals/aa/<digest>.rsd1
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from recallfs.atomic import (
    is_full,
    make_shared_folder,
    no_space,
    open_record,
    read_record,
    write_record,
)
from recallfs.catalog.sidecar import Record, ResidualRef, decode
from recallfs.catalog.store import Store
from recallfs.catalog.store_file import STORE_FILE
from recallfs.catalog.vaulted import VAULT_USED, vault_place
from recallfs.errors import AccessError, IntegrityError, RecallError, SourceError
from recallfs.ownership import metadata_of
from recallfs.skeleton.container import damaged, record_digest
from recallfs.values import Metadata

# NumPy and h5py stand below these; commands that read no skeleton start twice as quickly without.
if TYPE_CHECKING:
    from recallfs.skeleton.format import Skeleton
    from recallfs.skeleton.residual import Residual

_Kept = TypeVar("_Kept")


def keep_skeleton(store: Store, digest: str, content: bytes, metadata: Metadata) -> None:
    """Write a skeleton into the store, durably, and read it back.

    Parameters
    ----------
    metadata : Metadata
        Of the file: who cannot read that cannot read its skeleton.
    """
    _write_and_read_back(store.skeleton_path(digest), content, metadata)


def keep_residual(store: Store, record: Path, metadata: Metadata) -> ResidualRef:
    """Copy a residual into the store, durably, and read it back; see `keep_skeleton`."""
    digest = record_digest(record)
    _copy_and_read_back(record, store.residual_path(digest), digest, metadata)
    return ResidualRef(digest, record.stat().st_size)


def load_skeleton(store: Store, record: Record) -> Skeleton | None:
    """Read an entry's skeleton, from the store or else from the vault; None if it has none.

    Raises
    ------
    IntegrityError
        Kind ``damaged-record`` if neither copy is whole.
    AccessError
        The caller may not read it.
    """
    if record.skeleton is None:
        return None
    from recallfs.skeleton.format import Skeleton

    def decode(path: Path) -> Skeleton:
        return Skeleton.from_bytes(read_record(path))

    return _load(store, record, "skeleton", store.skeleton_path(record.skeleton.digest), decode)


def skeleton_place(store: Store, record: Record) -> Path:
    """Return where an entry's skeleton is whole: in the store, or else in the vault.

    Raises
    ------
    IntegrityError
        Kind ``damaged-record`` if it is in neither, or the entry has none.
    """
    if record.skeleton is not None:
        digest = record.skeleton.digest
        local = store.skeleton_path(digest)
        for path in (local, vault_place(store, local)):
            if _has_digest(path, digest):
                return path
    raise IntegrityError(
        f"the skeleton of {store.url(record.entry.path)} is whole neither in the store nor in the "
        "vault.",
        kind="damaged-record",
        details={"path": record.entry.path},
    )


def load_residual(store: Store, record: Record, derivation_id: str) -> Residual | None:
    """Read the residual that a derivation's result needs, from the store or else from the vault.

    Parameters
    ----------
    derivation_id : str
        Of the derivation that is run.

    Returns
    -------
    Residual or None
        None if the entry has none, or has one for another derivation.

    Raises
    ------
    IntegrityError
        Kind ``damaged-record`` if neither copy is whole, or it belongs to another file.
    AccessError
        The caller may not read it.
    """
    reference = record.residual
    if reference is None or record.skeleton is None:
        return None
    from recallfs.skeleton.residual import Residual

    def decode(path: Path) -> Residual:
        if record_digest(path) != reference.digest:
            raise damaged("it is not the residual on record")
        return Residual.open(path)

    residual = _load(store, record, "residual", store.residual_path(reference.digest), decode)
    if (residual.sha256, residual.skeleton) != (record.entry.sha256, record.skeleton.digest):
        raise IntegrityError(
            f"the residual on record for {store.url(record.entry.path)} was made for another file "
            f"(sha256 {residual.sha256[:16]}…) or another skeleton; `recall prove` makes a new "
            "one while the original is here.",
            kind="damaged-record",
            details={"path": record.entry.path},
        )
    return residual if residual.derivation_id == derivation_id else None


def _load(
    store: Store, record: Record, what: str, local: Path, decode: Callable[[Path], _Kept]
) -> _Kept:
    """Read a kept part of an entry, from the store or else from the vault."""
    problem: Exception | None = None
    for path in (local, vault_place(store, local)):
        try:
            return decode(path)
        except PermissionError as error:
            problem = AccessError(
                f"you may not read {path}, the {what} of {store.url(record.entry.path)}."
            )
            problem.__cause__ = error
        except (OSError, IntegrityError) as error:
            problem = problem or error
    if isinstance(problem, AccessError):
        raise problem
    raise IntegrityError(
        f"the {what} of {store.url(record.entry.path)} is whole neither in the store nor in "
        f"the vault: {problem}",
        kind="damaged-record",
        details={"path": record.entry.path},
    )


def secure(store: Store, record: Record, sidecar: bytes) -> None:
    """Copy an entry's evidence to the vault and read each copy back.

    Parameters
    ----------
    sidecar : bytes
        The sidecar as it will stand.

    Raises
    ------
    SourceError
        If the vault cannot be written; nothing may be dropped then.
    """
    _check_vault(store)
    with _said_plainly(store.vault):
        make_shared_folder(store.vault, store.root)
    _write_and_read_back(vault_place(store, store.sidecar_path(record.entry.id)), sidecar)
    environments = {
        *(derivation.environment_id for derivation in record.derivations),
        *(proof.environment_id for proof in record.proofs),
    }
    # Which store it was, for the day on which its disk is lost.
    paths = [store.control / STORE_FILE, *map(store.environment_path, sorted(environments))]
    if record.skeleton is not None:
        digest = record.skeleton.digest
        _secure_kept(store, store.skeleton_path(digest), digest, record.entry.metadata)
    if record.residual is not None:
        digest = record.residual.digest
        _secure_kept(store, store.residual_path(digest), digest, record.entry.metadata)
    changes = {derivation.code.diff for derivation in record.derivations if derivation.code}
    paths += map(store.code_path, sorted(changes - {""}))
    for path in paths:
        _write_and_read_back(vault_place(store, path), read_record(path))
    secure_inputs(store, record)
    contents = store.contents_path(record.entry.sha256)
    if contents.exists():  # no recall rests on it, so it may be missing
        copy = vault_place(store, contents)
        _write_and_read_back(copy, read_record(contents), record.entry.metadata)


def secure_inputs(store: Store, record: Record) -> None:
    """Copy the sidecars of what a file is made from, which may never be released themselves.

    An input that was catalogued from an archive is known nowhere else.
    """
    waiting, seen = [record], {record.entry.id}
    while waiting:
        for derivation in waiting.pop().derivations:
            for item in derivation.inputs:
                path = store.sidecar_path(item.entry_id)
                if item.entry_id in seen or not path.exists():
                    continue
                seen.add(item.entry_id)
                kept = vault_place(store, path)
                if not kept.exists():
                    content = read_record(path)
                    waiting.append(decode(content, name=str(path)))
                    _write_and_read_back(kept, content)


def _check_vault(store: Store) -> None:
    """Refuse a vault that was there once and is not now: its disk is not mounted, most likely."""
    marker = store.control / VAULT_USED
    known = marker.read_text(encoding="utf-8") if marker.exists() else ""
    if known != str(store.vault):
        write_record(marker, str(store.vault).encode())
    elif not (store.vault / store.id).is_dir():
        raise SourceError(
            f"the vault {store.vault} no longer holds what was put there; mount its disk, or "
            "restore it, before more is released.",
            details={"vault": str(store.vault)},
        )


def _secure_kept(store: Store, local: Path, digest: str, metadata: Metadata) -> None:
    """Make sure that store and vault both hold a part whole; one whole copy mends the other."""
    places = (local, vault_place(store, local))
    for path in places:
        if _has_digest(path, digest):
            for place in places:
                _copy_and_read_back(path, place, digest, metadata)
            return
    raise IntegrityError(
        f"{local} is whole neither in the store nor in the vault; `recall prove` makes it again.",
        kind="damaged-record",
        details={"name": str(local)},
    )


def _copy_and_read_back(source: Path, target: Path, digest: str, metadata: Metadata) -> None:
    with _said_plainly(target):
        if _has_digest(target, digest) and _is_as_private(target, metadata):
            return
        with open_record(source) as content:
            write_record(target, content, like=metadata)
        _forget_pages(target)
    _refuse_other(target, is_same=_has_digest(target, digest))


def _has_digest(path: Path, digest: str) -> bool:
    try:
        return record_digest(path) == digest
    except (OSError, IntegrityError):
        return False


def _write_and_read_back(path: Path, content: bytes, metadata: Metadata | None = None) -> None:
    with _said_plainly(path):
        if _has(path, content) and (metadata is None or _is_as_private(path, metadata)):
            return
        write_record(path, content, like=metadata)
        _forget_pages(path)
        written = read_record(path)
    _refuse_other(path, is_same=written == content)


def _forget_pages(path: Path) -> None:
    """Ask the system to read a file from its disk next time, not from memory."""
    if hasattr(os, "posix_fadvise"):
        with open_record(path) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _refuse_other(path: Path, *, is_same: bool) -> None:
    if not is_same:
        raise IntegrityError(
            f"{path} reads back other than it was written; check the disk.", kind="damaged-record"
        )


@contextmanager
def _said_plainly(path: Path) -> Iterator[None]:
    """Say which place it was that could not be written."""
    try:
        yield
    except RecallError:
        raise
    except PermissionError as error:
        raise AccessError(f"{path} cannot be written: {error.strerror}.") from error
    except OSError as error:
        if is_full(error):
            raise no_space(error, path.parent) from error
        raise SourceError(f"{path} cannot be written: {error}.") from error


def _has(path: Path, content: bytes) -> bool:
    try:
        return read_record(path) == content
    except (FileNotFoundError, PermissionError, IntegrityError):
        return False  # what cannot be read is replaced


def _is_as_private(path: Path, metadata: Metadata) -> bool:
    """Tell whether a kept file is open to nobody whom the file's permissions keep out."""
    kept = metadata_of(path)
    same_group = kept.gid == metadata.gid or not kept.mode & 0o070
    return same_group and kept.acl == metadata.acl and not kept.mode & ~metadata.mode & 0o077
