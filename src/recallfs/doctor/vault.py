"""The vault as a place: whether it is there, and whether it would survive the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from recallfs.atomic import read_record, write_record
from recallfs.catalog.store import Store
from recallfs.catalog.store_file import STORE_FILE
from recallfs.catalog.vaulted import vault_place, was_used
from recallfs.doctor.faults import Finding
from recallfs.sources.disks import disk_of


def is_there(store: Store) -> bool:
    """Tell whether the vault can be read, or was never needed so far."""
    return (store.vault / store.id).is_dir() or not was_used(store)


def check_vault(store: Store) -> Iterator[Finding]:
    """Check the vault as a place; what is in it is checked with the evidence."""
    if not is_there(store):
        problem = "It no longer holds what was put there."
        yield Finding("vault-unreachable", str(store.vault), problem, store.name)
    elif disk_of(store.vault) == disk_of(store.root):
        problem = "It is on the same disk as the store."
        yield Finding("vault-same-disk", str(store.vault), problem, store.name)
    place = vault_place(store, store.control / STORE_FILE)
    if place.parent.is_dir() and not place.exists():
        problem = "It does not say which store it belongs to."
        yield Finding(
            "vault-copy-missing", str(place), problem, store.name, lambda: _copy(store, place)
        )


def _copy(store: Store, place: Path) -> str:
    write_record(place, read_record(store.control / STORE_FILE))
    return "written from the store's"
