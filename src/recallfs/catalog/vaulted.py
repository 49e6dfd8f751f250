"""The vault's copies of sidecars: where they are, and that they follow what a sidecar says."""

from __future__ import annotations

import warnings
from pathlib import Path

from recallfs import log
from recallfs.atomic import read_record, refuse_links, write_record
from recallfs.catalog.sidecar import Record, encode
from recallfs.catalog.store import Store
from recallfs.errors import IntegrityWarning, RecallError

VAULT_USED = "vault-used"
"""File in the control folder that names the vault, once there was anything in it."""


def was_used(store: Store) -> bool:
    """Tell whether anything was put into the vault."""
    return (store.control / VAULT_USED).exists()


def vault_place(store: Store, path: Path) -> Path:
    """Return where the vault keeps the copy of a file of the store's control folder."""
    kept = store.vault / store.id / path.relative_to(store.control)
    refuse_links(store.vault, kept.parent)
    return kept


def is_behind(copy: Record, record: Record) -> bool:
    """Tell whether an older record lacks what would matter if it took the newer one's place.

    Revocations and pins always matter, or a file could be released that must not be. Of a released
    file its permissions and the places of its copies do, too. Whether its bytes are at its path
    does not: the file system has the last word on that.
    """
    if any(getattr(copy, name) != getattr(record, name) for name in ("pins", "revocations")) or (
        copy.entry.path != record.entry.path
    ):
        return True
    return record.release is not None and (
        copy.entry.metadata != record.entry.metadata or _places(copy) != _places(record)
    )


def _places(record: Record) -> set[tuple[str, str]]:
    return {(copy.source, copy.location) for copy in record.copies}


def follow(store: Store, before: Record, after: Record) -> None:
    """Write a changed sidecar over its copy in the vault, if it has one; for use under its lock.

    Most changes need none, and do not look at the vault. If it cannot be written, that is a
    warning: `recall verify` finds such a copy, and `recall doctor --fix` mends it.
    """
    if not is_behind(before, after) or not was_used(store):
        return
    try:
        if not (store.vault / store.id).is_dir():
            raise FileNotFoundError(f"{store.vault} no longer holds what was put there")
        kept = vault_place(store, store.sidecar_path(after.entry.id))
        content = encode(after)
        if kept.exists() and read_record(kept) != content:
            write_record(kept, content)
    except (RecallError, OSError) as error:
        url = store.url(after.entry.path)
        why = error.message if isinstance(error, RecallError) else str(error)
        log.event(
            "vault-behind", is_failure=True, store=store.name, path=after.entry.path, message=why
        )
        warnings.warn(
            f"what the vault has of {url} does not say what was changed just now ({why}); "
            "`recall doctor --fix` writes it once the vault can be written.",
            IntegrityWarning,
            stacklevel=2,
        )
