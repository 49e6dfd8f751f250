"""Sidecars, the catalog's rows and the vault's copies, held against each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from recallfs.atomic import make_folder, write_record
from recallfs.catalog import records, statistics
from recallfs.catalog.recovery import reconciled
from recallfs.catalog.sidecar import SUFFIX, Record, decode, encode
from recallfs.catalog.store import Store
from recallfs.catalog.vaulted import is_behind, vault_place
from recallfs.doctor.faults import Finding
from recallfs.errors import CatalogError, IntegrityError, SourceError
from recallfs.skeleton.vault import secure_inputs
from recallfs.values import Entry, State

_LEFTOVER_AGE_S = 86_400
_SHARDS = tuple(f"{number:02x}" for number in range(256))


@dataclass(frozen=True)
class _Side:
    """One of the two places where a record is kept."""

    path: Path
    record: Record | None = None
    damage: str | None = None
    is_newer: bool = False

    @property
    def is_absent(self) -> bool:
        return self.record is None and self.damage is None


def check_evidence(
    store: Store, *, has_vault: bool, each: Callable[[Record], Iterator[Finding]]
) -> Iterator[Finding]:
    """Hold every entry's sidecar against its row and the vault's copy.

    Parameters
    ----------
    has_vault : bool
        Whether the vault can be read; without it only the store is looked at.
    each : callable
        More checks, given every whole record.

    Notes
    -----
    One of 256 parts of the store is held in memory at a time. Entries that are being changed just
    now are left out.
    """
    changing = {intent.entry_id for intent in store.catalog.intents()}
    occupied = statistics.prefixes(store.catalog)
    for shard in _SHARDS:
        folder = store.control / "entries" / shard
        vaulted = _files(vault_place(store, folder)) if has_vault else {}
        # To ask for each part of a small store would take longer than all else here.
        is_empty = shard not in occupied and not vaulted and not _files(folder)
        rows = {} if is_empty else statistics.entries_with_prefix(store.catalog, shard)
        own = {} if is_empty else _files(folder)  # after the rows: a row has its sidecar already
        for entry_id in sorted({*rows, *own, *vaulted} - changing):
            local = _read(store.sidecar_path(entry_id))
            copy = _read(vault_place(store, local.path)) if has_vault else None
            yield from _check_entry(store, entry_id, rows.get(entry_id), local, copy)
            if local.record is not None:
                yield from each(local.record)
        yield from _leftovers(store, folder)


def _check_entry(
    store: Store, entry_id: str, row: Entry | None, local: _Side, copy: _Side | None
) -> Iterator[Finding]:
    if local.is_newer:
        yield Finding("sidecar-newer", str(local.path), "It has a newer format.", store.name)
    elif local.record is not None:
        yield from _check_row(store, local.record, row)
        yield from _check_copy(store, local.record, copy)
    elif local.is_absent and row is None and copy is not None:
        yield from _only_in_vault(store, entry_id, copy)
    else:
        fault = "sidecar-missing" if local.is_absent else "sidecar-damaged"
        problem = local.damage or f"The sidecar of {row.path if row else entry_id} is gone."
        mend = _restoring(store, row, copy.record) if copy and copy.record else None
        yield Finding(fault, str(local.path), problem, store.name, mend)


def _check_row(store: Store, record: Record, row: Entry | None) -> Iterator[Finding]:
    entry = record.entry
    if row is None:
        other = store.catalog.entry_at(entry.path)
        if other is not None and (other.created_at, other.id) > (entry.created_at, entry.id):
            yield Finding(
                "sidecar-superseded",
                str(store.sidecar_path(entry.id)),
                f"{store.url(entry.path)} has a newer record.",
                store.name,
                lambda: _retire(store, entry.id),
            )
            return
        problem = "It has a sidecar and no row."
        yield Finding(
            "row-missing", store.url(entry.path), problem, store.name, _indexing(store, entry.id)
        )
        return
    is_released = entry.state is State.RELEASED
    if row.path != entry.path or (row.state is State.RELEASED) != is_released:
        problem = (
            f"The catalog has it at {row.path!r} as {row.state.value}, the sidecar at "
            f"{entry.path!r} as {entry.state.value}."
        )
        yield Finding(
            "row-differs", store.url(entry.path), problem, store.name, _indexing(store, entry.id)
        )


def _check_copy(store: Store, record: Record, copy: _Side | None) -> Iterator[Finding]:
    if copy is None:
        return
    if copy.record is not None:
        if is_behind(copy.record, record):
            yield Finding(
                "vault-copy-behind",
                str(copy.path),
                f"The sidecar of {store.url(record.entry.path)} was changed since.",
                store.name,
                _copying(store, record.entry.id, copy.path),
            )
    elif copy.damage is not None:
        yield Finding(
            "vault-copy-damaged",
            str(copy.path),
            copy.damage,
            store.name,
            _copying(store, record.entry.id, copy.path),
        )
    elif record.release is not None:
        yield Finding(
            "vault-copy-missing",
            str(copy.path),
            f"The sidecar of {store.url(record.entry.path)} has no copy there.",
            store.name,
            _copying(store, record.entry.id, copy.path),
        )


def _only_in_vault(store: Store, entry_id: str, copy: _Side) -> Iterator[Finding]:
    """Tell a loss from an entry that was forgotten, or written over, on purpose."""
    record = copy.record
    put_away = store.control / "superseded" / f"{entry_id}{SUFFIX}"
    if record is None or put_away.exists() or statistics.forgotten(store.catalog, [entry_id]):
        return
    other = store.catalog.entry_at(record.entry.path)
    problem = f"The store has no sidecar of {store.url(record.entry.path)}."
    if other is not None:
        problem += " Another file is recorded at its path."
    mend = _restoring(store, None, record) if other is None else None
    yield Finding("sidecar-only-in-vault", str(copy.path), problem, store.name, mend)


def _leftovers(store: Store, folder: Path) -> Iterator[Finding]:
    for path in folder.glob(".new-*"):
        try:
            age = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue
        if age > _LEFTOVER_AGE_S:
            problem = "A record that was never finished."
            yield Finding("write-leftover", str(path), problem, store.name, partial(_remove, path))


def _files(folder: Path) -> Mapping[str, Path]:
    return {path.stem: path for path in folder.glob(f"*{SUFFIX}")}


def _read(path: Path) -> _Side:
    """Read a record, whatever it is in."""
    try:
        record = decode(path.read_bytes(), name=str(path))
    except FileNotFoundError:
        return _Side(path)
    except CatalogError:
        return _Side(path, damage="It has a newer format.", is_newer=True)
    except IntegrityError as error:
        return _Side(path, damage=error.message)
    except OSError as error:
        return _Side(path, damage=f"{path} cannot be read: {error.strerror}.")
    if record.entry.id != path.stem:
        return _Side(path, damage=f"{path} holds the record of the entry {record.entry.id}.")
    return _Side(path, record)


def _restoring(store: Store, row: Entry | None, record: Record) -> Callable[[], str]:
    """Return what puts the vault's record into the store, in line with where the bytes are."""

    def mend() -> str:
        path = store.sidecar_path(record.entry.id)
        with store.lock(record.entry.id):
            if path.exists():
                damaged = store.control / "rejected" / path.name
                make_folder(damaged.parent)
                path.rename(damaged)
            # The catalog knows of a rename that came after the copy.
            entry = replace(record.entry, path=row.path) if row else record.entry
            restored = replace(record, entry=entry)
            write_record(path, encode(restored))
            store.catalog.put([reconciled(store, restored)])
        return f"restored from {vault_place(store, path)}"

    return mend


def _indexing(store: Store, entry_id: str) -> Callable[[], str]:
    def mend() -> str:
        with store.lock(entry_id):
            store.catalog.put([reconciled(store, records.load(store, entry_id))])
        return "the catalog follows the sidecar"

    return mend


def _copying(store: Store, entry_id: str, place: Path) -> Callable[[], str]:
    def mend() -> str:
        record = records.load(store, entry_id)
        content = encode(record)
        write_record(place, content)
        if place.read_bytes() != content:
            raise SourceError(f"{place} reads back other than it was written; check the disk.")
        secure_inputs(store, record)
        return "written from the store's"

    return mend


def _retire(store: Store, entry_id: str) -> str:
    records.retire(store, entry_id)
    return f"moved to {store.control / 'superseded'}"


def _remove(path: Path) -> str:
    path.unlink(missing_ok=True)
    return "removed"
