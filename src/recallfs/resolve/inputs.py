"""Which entries hold the bytes of a derivation's inputs now."""

from __future__ import annotations

from pathlib import Path

from recallfs.catalog.store import Store
from recallfs.resolve.presence import has_bytes
from recallfs.values import Entry, InputRef, State


def entries_of_input(store: Store, reference: InputRef) -> list[Entry]:
    """Return the entries that have an input's recorded bytes; the one it was bound to first."""
    bound = store.catalog.entry(reference.entry_id)
    same = store.catalog.entries_with_sha256(reference.sha256)
    first = [bound] if bound is not None and bound.sha256 == reference.sha256 else []
    return first + [entry for entry in same if bound is None or entry.id != bound.id]


def was_released(store: Store, path: Path) -> bool:
    """Tell whether a file at a path of the store was released, and is not here."""
    relative = store.relative(path)
    entry = store.catalog.entry_at(relative) if relative else None
    return entry is not None and not has_bytes(path) and entry.state is State.RELEASED
