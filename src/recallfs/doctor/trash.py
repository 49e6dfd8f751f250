"""The trash: bytes that no record names, and bytes whose time is over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from recallfs.catalog import records
from recallfs.catalog.recovery import reconciled
from recallfs.catalog.store import Store
from recallfs.doctor.faults import Finding
from recallfs.errors import IntegrityError
from recallfs.values import format_size, now_utc

_ENTRY_ID = re.compile(r"[0-9a-f]{32}")


def check_trash(store: Store) -> Iterator[Finding]:
    """Hold each file of the trash against its record."""
    changing = {intent.entry_id for intent in store.catalog.intents()}
    for path in sorted((store.control / "trash").iterdir()):
        if path.name in changing:
            continue
        size = format_size(path.lstat().st_size)
        try:
            if not _ENTRY_ID.fullmatch(path.name):
                raise IntegrityError("its name is no entry's.")
            record = records.load(store, path.name)
        except IntegrityError as error:
            problem = f"{size} without a readable record: {error.message}"
            yield Finding("trash-unnamed", str(path), problem, store.name)
            continue
        if record.release is None or record.release.stage != "trashed":
            state = "purged" if record.release else "resident"
            problem = f"{size} of {store.url(record.entry.path)}, which is recorded as {state}."
            yield Finding(
                "trash-stray", str(path), problem, store.name,
                partial(_put_back, store, path.name),
            )  # fmt: skip
    named = store.catalog.trashed(before=now_utc())
    due = [entry_id for entry_id in named if store.trash_path(entry_id).exists()]
    if due:
        problem = f"{len(due)} files are due."
        yield Finding("trash-overdue", str(store.control / "trash"), problem, store.name)


def _put_back(store: Store, entry_id: str) -> str:
    with store.lock(entry_id):
        settled = reconciled(store, records.load(store, entry_id))
        store.catalog.put([settled])
    if store.trash_path(entry_id).exists():
        return "recorded as in the trash"
    return f"{store.url(settled.entry.path)} has its bytes"
