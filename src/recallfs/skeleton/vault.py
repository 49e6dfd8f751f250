"""The vault: a second failure domain that holds the evidence of everything released.

::

    <vault>/<store id>/entries/aa/<entry id>.rsc1
    <vault>/<store id>/environments/<id>.json
    <vault>/<store id>/skeletons/aa/<digest>.rsk1
"""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from recallfs.atomic import is_full, no_space, write_record
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.errors import AccessError, IntegrityError, SourceError
from recallfs.skeleton.format import Skeleton


def keep_skeleton(store: Store, digest: str, content: bytes) -> None:
    """Write a skeleton into the store, durably, and read it back."""
    _write_and_read_back(store.skeleton_path(digest), content)


def load_skeleton(store: Store, record: Record) -> Skeleton | None:
    """Read an entry's skeleton, from the store or else from the vault; None if it has none.

    Raises
    ------
    IntegrityError
        Kind ``damaged-record`` if neither copy is whole.
    """
    if record.skeleton is None:
        return None
    local = store.skeleton_path(record.skeleton.digest)
    problem: Exception | None = None
    for path in (local, vault_place(store, local)):
        try:
            return Skeleton.from_bytes(path.read_bytes())
        except (OSError, IntegrityError) as error:
            problem = problem or error
    raise IntegrityError(
        f"the skeleton of {store.url(record.entry.path)} is whole neither in the store nor in "
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
    _write_and_read_back(vault_place(store, store.sidecar_path(record.entry.id)), sidecar)
    paths = [
        store.environment_path(identifier)
        for identifier in {
            *(derivation.environment_id for derivation in record.derivations),
            *(proof.environment_id for proof in record.proofs),
        }
    ]
    if record.skeleton is not None:
        _secure_skeleton(store, record.skeleton.digest)
    for path in paths:
        _write_and_read_back(vault_place(store, path), path.read_bytes())


def _check_vault(store: Store) -> None:
    """Refuse a vault that was there once and is not now: its disk is not mounted, most likely."""
    marker = store.control / "vault-used"
    known = marker.read_text(encoding="utf-8") if marker.exists() else ""
    if known != str(store.vault):
        write_record(marker, str(store.vault).encode())
    elif not (store.vault / store.id).is_dir():
        raise SourceError(
            f"the vault {store.vault} no longer holds what was put there; mount its disk, or "
            "restore it, before more is released.",
            details={"vault": str(store.vault)},
        )


def _secure_skeleton(store: Store, digest: str) -> None:
    """Make sure that store and vault both hold a skeleton whole; one whole copy mends the other."""
    local = store.skeleton_path(digest)
    places = (local, vault_place(store, local))
    for path in places:
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if blake3(content).hexdigest() == digest:
            for place in places:
                _write_and_read_back(place, content)
            return
    raise IntegrityError(
        f"the skeleton {local} is whole neither in the store nor in the vault; "
        "`recall prove` makes it again.",
        kind="damaged-record",
        details={"name": str(local)},
    )


def vault_place(store: Store, path: Path) -> Path:
    """Return where the vault keeps the copy of a file of the store's control folder."""
    return store.vault / store.id / path.relative_to(store.control)


def _write_and_read_back(path: Path, content: bytes) -> None:
    try:
        if path.exists() and path.read_bytes() == content:
            return
        write_record(path, content)
        written = path.read_bytes()
    except PermissionError as error:
        raise AccessError(f"{path} cannot be written: {error.strerror}.") from error
    except OSError as error:
        if is_full(error):
            raise no_space(error, path.parent) from error
        raise SourceError(f"{path} cannot be written: {error}.") from error
    if written != content:
        raise IntegrityError(
            f"{path} reads back other than it was written; check the disk.", kind="damaged-record"
        )
