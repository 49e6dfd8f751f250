"""Pins: entries that are to stay resident."""

from __future__ import annotations

from dataclasses import replace

from recallfs.catalog import changes
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Pin
from recallfs.catalog.store import Store
from recallfs.values import Entry, now_utc


def set_pin(store: Store, entry: Entry, is_pinned: bool, reason: str = "") -> str:
    """Pin an entry or end its pin; return its address."""
    pin = Pin(is_pinned, reason, user_name(), now_utc())
    with changes.edit(store, entry.id, "pin") as draft:
        draft.record = replace(draft.record, pins=(*draft.record.pins, pin))
    return store.url(entry.path)
