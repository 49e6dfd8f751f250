"""Records as rows of the catalog's tables and back; no SQL here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from recallfs.catalog import schema
from recallfs.catalog.sidecar import Record
from recallfs.catalog.standing import standing_values
from recallfs.values import Derivation, Entry, Identity, Metadata, State, parent_of

Row = dict[str, Any]

_STATES = {state.value: state for state in State}


def entry_of(row: Any) -> Entry:
    """Read an entry from a row of `entries` joined with `paths`."""
    identity = None
    if row.inode is not None:
        identity = Identity(
            row.device, row.inode, row.seen_size_bytes, row.seen_mtime_ns, row.seen_ctime_ns
        )
    return Entry(
        row.id,
        row.path,
        row.size_bytes,
        row.sha256,
        row.sha1,
        Metadata(row.mode, row.uid, row.gid, row.mtime_ns),
        row.created_at,
        _STATES[row.state],
        identity,
    )


def identity_values(identity: Identity | None) -> Row:
    """Spell an identity as columns of `paths`."""
    names = ("device", "inode", "seen_size_bytes", "seen_mtime_ns", "seen_ctime_ns")
    if identity is None:
        return dict.fromkeys(names)
    values = (
        identity.device,
        identity.inode,
        identity.size_bytes,
        identity.mtime_ns,
        identity.ctime_ns,
    )
    return dict(zip(names, values, strict=True))


def rows_of(store_id: str, records: Sequence[Record]) -> dict[str, list[Row]]:
    """Spell records as the rows of every table that indexes them."""
    rows: dict[str, list[Row]] = {table: [] for table in schema.metadata.tables}
    for record in records:
        rows["entries"].append(_entry_row(store_id, record.entry))
        rows["paths"].append(_path_row(store_id, record))
        _add_evidence(rows, record)
        for derivation in record.derivations:
            _add_derivation(rows, derivation)
    return rows


def _entry_row(store_id: str, entry: Entry) -> Row:
    return Row(
        id=entry.id,
        store_id=store_id,
        size_bytes=entry.size_bytes,
        sha256=entry.sha256,
        sha1=entry.sha1,
        mode=entry.metadata.mode,
        uid=entry.metadata.uid,
        gid=entry.metadata.gid,
        mtime_ns=entry.metadata.mtime_ns,
        created_at=entry.created_at,
    )


def _path_row(store_id: str, record: Record) -> Row:
    entry = record.entry
    return Row(
        store_id=store_id,
        path=entry.path,
        parent=parent_of(entry.path),
        entry_id=entry.id,
        state=entry.state.value,
        size_bytes=entry.size_bytes,
        mtime_ns=entry.metadata.mtime_ns,
        recipe=record.derivations[-1].recipe if record.derivations else None,
        proved_until=_proved_until(record),
        is_pinned=record.is_pinned,
        kept_bytes=record.kept_bytes,
        **standing_values(record),
        **identity_values(entry.identity),
    )


def _add_evidence(rows: dict[str, list[Row]], record: Record) -> None:
    """Spell what a release may rest on, and what became of the bytes."""
    entry = record.entry
    for item in record.incarnations:
        rows["incarnations"].append(
            Row(
                entry_id=entry.id,
                sha256=item.sha256,
                size_bytes=item.size_bytes,
                level=item.level.value,
                recorded_at=item.recorded_at,
            )
        )
    rows["copies"].extend(Row(entry_id=entry.id, **vars(copy)) for copy in record.copies)
    rows["proofs"].extend(
        Row(
            **{
                name: value
                for name, value in vars(proof).items()
                if name in schema.proofs.columns and name != "level"
            },
            level=proof.level.value,
        )
        for proof in record.proofs
    )
    rows["revocations"].extend(vars(item).copy() for item in record.revocations)
    rows["pins"].extend(Row(entry_id=entry.id, **vars(pin)) for pin in record.pins)
    if record.release is not None and record.release.stage == "trashed":
        rows["trash"].append(
            Row(
                entry_id=entry.id,
                trashed_at=record.release.at,
                purge_after=record.release.purge_after,
            )
        )


def _proved_until(record: Record) -> str | None:
    revoked = {item.proof_id for item in record.revocations}
    return max((p.valid_until for p in record.proofs if p.id not in revoked), default=None)


def _add_derivation(rows: dict[str, list[Row]], derivation: Derivation) -> None:
    rows["derivations"].append(
        Row(
            id=derivation.id,
            key=derivation.key,
            recipe=derivation.recipe,
            version=derivation.version,
            source_digest=derivation.source_digest,
            parameters=json.dumps(dict(derivation.parameters)),
            seed="" if derivation.seed is None else f"{derivation.seed:032x}",
            started_at=derivation.started_at,
            threads=derivation.threads,
            environment_id=derivation.environment_id,
            seconds=derivation.seconds,
            cpu_seconds=derivation.cpu_seconds,
            peak_memory_bytes=derivation.peak_memory_bytes,
        )
    )
    rows["derivation_inputs"].extend(
        Row(derivation_id=derivation.id, **vars(item)) for item in derivation.inputs
    )
    rows["derivation_outputs"].extend(
        Row(derivation_id=derivation.id, **vars(item)) for item in derivation.outputs
    )
