"""The questions and changes that the catalog answers: an index over sidecars and the tree.

Nothing here is evidence. Losing the catalog costs a rebuild (`recallfs.catalog.records.rebuild`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from recallfs.catalog import schema
from recallfs.catalog.engine import Database
from recallfs.catalog.rows import Row, entry_of, identity_values, rows_of
from recallfs.catalog.sidecar import Record
from recallfs.values import Entry, Identity, State, now_utc

_BATCH_ROWS = 500


class Lease(NamedTuple):
    """What the catalog says of a lease."""

    fence: int
    beat: int
    holder: str | None
    failure: str | None


class Intent(NamedTuple):
    """A change of evidence that was begun; it is deleted in the transaction that ends it."""

    entry_id: str
    action: str
    path: str
    details: Mapping[str, Any]
    holder: str


class Catalog:
    """One store's view of a catalog.

    Parameters
    ----------
    url : str or Path
        SQLAlchemy URL, or the file of an SQLite database.
    store_id : str
        Rows of other stores in the same database are never touched.

    Notes
    -----
    Safe to use from several threads and after a fork. Every method is one transaction.
    """

    def __init__(self, url: str | Path, store_id: str) -> None:
        self.store_id = store_id
        self._database = Database(url)

    def prepare(self) -> None:
        """Make or upgrade the schema if need be; see `Database.check_version`."""
        self._database.check_version()

    def close(self) -> None:
        """Close this process's connections."""
        self._database.close()

    # -- entries and paths ------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Tell whether no entry stands at any path of this store."""
        query = sa.select(schema.paths.c.path).where(schema.paths.c.store_id == self.store_id)
        with self._database.read() as connection:
            return connection.execute(query.limit(1)).first() is None

    def entry_at(self, path: str) -> Entry | None:
        """Return the entry at a path, or None."""
        with self._database.read() as connection:
            row = connection.execute(
                _ENTRY_AT, {"store_id": self.store_id, "path": path}
            ).one_or_none()
        return None if row is None else entry_of(row)

    def entry(self, entry_id: str) -> Entry | None:
        """Return the entry with this id that stands at some path, or None."""
        query = _ENTRIES.where(schema.paths.c.entry_id == entry_id)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else entry_of(row)

    def entries_with_sha256(self, sha256: str) -> list[Entry]:
        """Return the entries whose original has this digest."""
        return list(self._select(schema.entries.c.sha256 == sha256))

    def entries_below(self, folder: str) -> Iterator[Entry]:
        """Iterate over all entries at or below a folder, in path order."""
        return self._select(*([_below(folder)] if folder else []))

    def _select(self, *conditions: sa.ColumnElement[bool]) -> Iterator[Entry]:
        query = (
            _ENTRIES.where(schema.paths.c.store_id == self.store_id, *conditions)
            .order_by(schema.paths.c.path)
            .execution_options(yield_per=_BATCH_ROWS)
        )
        with self._database.read() as connection:
            for row in connection.execute(query):
                yield entry_of(row)

    def children(self, folder: str) -> tuple[list[Entry], list[str]]:
        """Return the entries right in a folder and the names of subfolders that hold entries."""
        paths = schema.paths.c
        query = _ENTRIES.where(paths.store_id == self.store_id, paths.parent == folder)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(paths.path))
            return [entry_of(row) for row in rows], self._subfolders(connection, folder)

    def _subfolders(self, connection: sa.Connection, folder: str) -> list[str]:
        """Skip through the index from one subfolder to the next, whatever they hold."""
        column = schema.paths.c.parent
        prefix = f"{folder}/" if folder else ""
        bound = prefix
        names: dict[str, None] = {}
        while True:
            query = sa.select(sa.func.min(column)).where(
                schema.paths.c.store_id == self.store_id, _inside(column, folder), column >= bound
            )
            found = connection.execute(query).scalar()
            if found is None:
                return list(names)
            name = found[len(prefix) :].split("/")[0]
            names[name] = None
            # 'a' is followed by siblings such as 'a-2' before what is below it, 'a/...'; and
            # '0' is the character after '/'.
            exact = found == prefix + name
            bound = f"{found}\x01" if exact else f"{prefix}{name}0"

    def see(self, entry: Entry, state: State, identity: Identity | None) -> None:
        """Note what was last seen at an entry's path, unless the record has changed since.

        Parameters
        ----------
        entry : Entry
            As it was read before looking.
        """
        query = sa.update(schema.paths).where(
            schema.paths.c.entry_id == entry.id, schema.paths.c.state == entry.state.value
        )
        with self._database.write() as connection:
            connection.execute(query.values(state=state.value, **identity_values(identity)))

    # -- evidence ---------------------------------------------------------------------------

    def put(self, records: Sequence[Record], environments: Mapping[str, str] | None = None) -> None:
        """Index records: new rows are added, the path follows the record, intents end.

        Parameters
        ----------
        environments : Mapping, optional
            JSON text of environments that the records name, by id.
        """
        with self._database.write() as connection:
            for identifier, content in (environments or {}).items():
                _insert_new(connection, schema.environments, [Row(id=identifier, content=content)])
            _put_records(connection, self.store_id, records)
            ids = [record.entry.id for record in records]
            for batch in _batches(ids):
                connection.execute(
                    sa.delete(schema.intents).where(schema.intents.c.entry_id.in_(batch))
                )

    def drop(self, entry_id: str) -> None:
        """Forget where an entry stands; its history stays. Ends the entry's intent."""
        with self._database.write() as connection:
            for table in (schema.paths, schema.trash, schema.intents):
                connection.execute(sa.delete(table).where(table.c.entry_id == entry_id))

    def clear(self) -> None:
        """Drop all that a rebuild will make again: every path and intent of this store."""
        with self._database.write() as connection:
            own = sa.select(schema.paths.c.entry_id).where(schema.paths.c.store_id == self.store_id)
            connection.execute(sa.delete(schema.trash).where(schema.trash.c.entry_id.in_(own)))
            for table in (schema.paths, schema.intents):
                connection.execute(sa.delete(table).where(table.c.store_id == self.store_id))

    def dependents(self, entry: Entry) -> list[Entry]:
        """Return the entries that are made from this one, or from the same bytes."""
        inputs, outputs = schema.derivation_inputs.c, schema.derivation_outputs.c
        made = (
            sa.select(outputs.entry_id)
            .join(schema.derivation_inputs, inputs.derivation_id == outputs.derivation_id)
            .where(sa.or_(inputs.entry_id == entry.id, inputs.sha256 == entry.sha256))
        )
        return list(self._select(schema.paths.c.entry_id.in_(made)))

    def outputs_for_key(self, key: str) -> dict[str, str]:
        """Return the outputs (name to entry id) of the newest derivation with this key.

        An output whose entry was forgotten is named all the same.
        """
        derivations, outputs = schema.derivations.c, schema.derivation_outputs.c
        own = (
            sa.select(outputs.derivation_id)
            .join(schema.entries, schema.entries.c.id == outputs.entry_id)
            .where(schema.entries.c.store_id == self.store_id)
        )
        query = (
            sa.select(derivations.id, outputs.name, outputs.entry_id)
            .join(schema.derivation_outputs, outputs.derivation_id == derivations.id)
            .where(derivations.key == key, derivations.id.in_(own))
            .order_by(derivations.started_at.desc(), derivations.id)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return {row.name: row.entry_id for row in rows if row.id == rows[0].id}

    def environment(self, identifier: str) -> dict[str, Any] | None:
        """Return a captured environment, or None."""
        query = sa.select(schema.environments.c.content).where(
            schema.environments.c.id == identifier
        )
        with self._database.read() as connection:
            content = connection.execute(query).scalar()
        return content and dict(json.loads(content))

    # -- work in hand -----------------------------------------------------------------------

    def intend(self, intents: Iterable[Intent]) -> None:
        """Record what is about to be changed, before anything is."""
        rows = [
            Row(
                entry_id=intent.entry_id,
                store_id=self.store_id,
                action=intent.action,
                path=intent.path,
                details=json.dumps(dict(intent.details)),
                holder=intent.holder,
            )
            for intent in intents
        ]
        with self._database.write() as connection:
            for batch in _batches(rows):
                ids = [row["entry_id"] for row in batch]
                connection.execute(
                    sa.delete(schema.intents).where(schema.intents.c.entry_id.in_(ids))
                )
                connection.execute(sa.insert(schema.intents), batch)

    def intents(self) -> list[Intent]:
        """Return all changes that were begun and not ended."""
        columns = schema.intents.c
        query = sa.select(schema.intents).where(columns.store_id == self.store_id)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [
            Intent(row.entry_id, row.action, row.path, json.loads(row.details), row.holder)
            for row in rows
        ]

    def intent(self, entry_id: str) -> Intent | None:
        """Return the change of an entry that was begun and not ended, or None."""
        return next((item for item in self.intents() if item.entry_id == entry_id), None)

    def drop_intent(self, entry_id: str) -> None:
        """End an intent that came to nothing."""
        with self._database.write() as connection:
            connection.execute(
                sa.delete(schema.intents).where(schema.intents.c.entry_id == entry_id)
            )

    def trashed(self, before: str | None = None) -> list[str]:
        """Return the ids of trashed entries, or of those whose stay ends before an ISO time."""
        trash, paths = schema.trash.c, schema.paths.c
        query = (
            sa.select(trash.entry_id)
            .join(schema.paths, paths.entry_id == trash.entry_id)
            .where(paths.store_id == self.store_id)
            .order_by(trash.trashed_at)
        )
        if before is not None:
            query = query.where(trash.purge_after <= before)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    # -- leases -----------------------------------------------------------------------------

    def lease(self, key: str) -> Lease | None:
        """Return a lease as it is."""
        query = sa.select(schema.leases).where(schema.leases.c.key == key)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Lease(row.fence, row.beat, row.holder, row.failure)

    def take_lease(self, key: str, holder: str, *, instead_of: Lease | None) -> int | None:
        """Take a lease that is free, or exactly as `instead_of` describes.

        Returns
        -------
        int or None
            The fencing number; None if somebody else was quicker.
        """
        columns = schema.leases.c
        with self._database.write() as connection:
            found = connection.execute(sa.select(schema.leases).where(columns.key == key)).first()
            if found is None:
                connection.execute(
                    sa.insert(schema.leases), Row(key=key, fence=1, beat=0, holder=holder)
                )
                return 1
            taken_over = instead_of is not None and (found.fence, found.beat) == (
                instead_of.fence,
                instead_of.beat,
            )
            if found.holder is not None and not taken_over:
                return None
            fence = int(found.fence) + 1
            connection.execute(
                sa.update(schema.leases)
                .where(columns.key == key)
                .values(fence=fence, beat=0, holder=holder, failure=None)
            )
            return fence

    def beat_lease(self, key: str, fence: int) -> bool:
        """Say that the holder is alive; False if the lease was taken over."""
        return self._update_lease(key, fence, beat=schema.leases.c.beat + 1)

    def beat_leases(self, fences: Mapping[str, int]) -> set[str]:
        """Beat for several leases, by key, in one transaction; return those taken over."""
        columns = schema.leases.c
        with self._database.write() as connection:
            return {
                key
                for key, fence in fences.items()
                if not connection.execute(
                    sa.update(schema.leases)
                    .where(columns.key == key, columns.fence == fence, columns.holder.is_not(None))
                    .values(beat=columns.beat + 1)
                ).rowcount
            }

    def free_lease(self, key: str, fence: int, failure: str | None = None) -> bool:
        """Give a lease back, with the reason if the work failed; False if it was taken over."""
        return self._update_lease(key, fence, holder=None, failure=failure)

    def _update_lease(self, key: str, fence: int, **values: Any) -> bool:
        columns = schema.leases.c
        with self._database.write() as connection:
            result = connection.execute(
                sa.update(schema.leases)
                .where(columns.key == key, columns.fence == fence, columns.holder.is_not(None))
                .values(**values)
            )
            return bool(result.rowcount)

    # -- what happened ----------------------------------------------------------------------

    def add_recall(
        self, entry: Entry, *, who: str, source: str, seconds: float, level: str
    ) -> None:
        """Note a recall, and that the file was wanted."""
        at = now_utc()
        with self._database.write() as connection:
            connection.execute(
                sa.insert(schema.recalls),
                Row(
                    entry_id=entry.id,
                    at=at,
                    who=who,
                    source=source,
                    size_bytes=entry.size_bytes,
                    seconds=seconds,
                    level=level,
                ),
            )
            connection.execute(
                sa.delete(schema.accesses).where(schema.accesses.c.entry_id == entry.id)
            )
            connection.execute(sa.insert(schema.accesses), Row(entry_id=entry.id, last_at=at))

    def recalls(self, entry_id: str, *, source: str | None = None) -> list[dict[str, Any]]:
        """Return the recalls of an entry, newest first."""
        columns = schema.recalls.c
        query = sa.select(schema.recalls).where(columns.entry_id == entry_id)
        if source is not None:
            query = query.where(columns.source == source)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(columns.id.desc()))
            return [dict(row._mapping) for row in rows]

    def add_event(self, action: str, entry: Entry, who: str, details: Mapping[str, Any]) -> None:
        """Add a line to the audit trail."""
        with self._database.write() as connection:
            connection.execute(
                sa.insert(schema.events),
                Row(
                    at=now_utc(),
                    who=who,
                    action=action,
                    entry_id=entry.id,
                    path=entry.path,
                    details=json.dumps(dict(details)),
                ),
            )

    def events(self, entry_id: str | None = None) -> list[dict[str, Any]]:
        """Return the audit trail (of one entry), oldest first."""
        own = sa.select(schema.entries.c.id).where(schema.entries.c.store_id == self.store_id)
        query = sa.select(schema.events).where(schema.events.c.entry_id.in_(own))
        query = query.order_by(schema.events.c.id)
        if entry_id is not None:
            query = query.where(schema.events.c.entry_id == entry_id)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [{**row._mapping, "details": json.loads(row.details)} for row in rows]

    def totals(self) -> dict[str, tuple[int, int]]:
        """Return the number of entries and their bytes, by recorded state."""
        paths, entries = schema.paths.c, schema.entries.c
        query = (
            sa.select(paths.state, sa.func.count(), sa.func.sum(entries.size_bytes))
            .join(schema.entries, entries.id == paths.entry_id)
            .where(paths.store_id == self.store_id)
            .group_by(paths.state)
        )
        with self._database.read() as connection:
            return {state: (count, int(size)) for state, count, size in connection.execute(query)}

    def recall_totals(self) -> list[tuple[str, int, int, float]]:
        """Return the count, bytes and seconds of recalls, by source."""
        recalls, paths = schema.recalls.c, schema.paths.c
        query = (
            sa.select(
                recalls.source,
                sa.func.count(),
                sa.func.sum(recalls.size_bytes),
                sa.func.sum(recalls.seconds),
            )
            .join(schema.paths, paths.entry_id == recalls.entry_id)
            .where(paths.store_id == self.store_id)
            .group_by(recalls.source)
            .order_by(recalls.source)
        )
        with self._database.read() as connection:
            return [(s, n, int(b), float(t)) for s, n, b, t in connection.execute(query)]

    def proved(self, at: str) -> dict[str, int]:
        """Return how many entries have a valid proof at an ISO time, and their bytes."""
        proofs, paths, entries = schema.proofs.c, schema.paths.c, schema.entries.c
        valid = (
            sa.select(proofs.entry_id)
            .where(
                proofs.made_at <= at,
                proofs.valid_until > at,
                proofs.id.not_in(sa.select(schema.revocations.c.proof_id)),
            )
            .distinct()
        )
        query = (
            sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(entries.size_bytes), 0))
            .select_from(schema.paths)
            .join(schema.entries, entries.id == paths.entry_id)
            .where(
                paths.store_id == self.store_id,
                paths.state == State.RESIDENT.value,
                paths.entry_id.in_(valid),
            )
        )
        with self._database.read() as connection:
            count, size = connection.execute(query).one()
        return {"files": count, "size_bytes": int(size)}


_ENTRIES = sa.select(
    schema.entries,
    schema.paths.c.path,
    schema.paths.c.state,
    schema.paths.c.device,
    schema.paths.c.inode,
    schema.paths.c.seen_size_bytes,
    schema.paths.c.seen_mtime_ns,
    schema.paths.c.seen_ctime_ns,
).join(schema.paths, schema.paths.c.entry_id == schema.entries.c.id)

_ENTRY_AT = _ENTRIES.where(
    schema.paths.c.store_id == sa.bindparam("store_id"),
    schema.paths.c.path == sa.bindparam("path"),
)


def _below(folder: str) -> sa.ColumnElement[bool]:
    return sa.or_(schema.paths.c.path == folder, _inside(schema.paths.c.path, folder))


def _inside(column: sa.Column[Any], folder: str) -> sa.ColumnElement[bool]:
    """Strictly below a folder; '0' is the character after '/'."""
    if not folder:
        return column != ""
    return sa.and_(column > f"{folder}/", column < f"{folder}0")


def _batches(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), _BATCH_ROWS):
        yield rows[start : start + _BATCH_ROWS]


def _insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert the rows whose primary keys are not there yet; append-only tables never change."""
    keys = list(table.primary_key.columns)
    for batch in _batches(rows):
        first = keys[0]
        known = connection.execute(
            sa.select(*keys).where(first.in_({row[first.name] for row in batch}))
        )
        there = {tuple(row) for row in known}
        new = {tuple(row[key.name] for key in keys): row for row in batch}
        fresh = [row for key, row in new.items() if key not in there]
        if fresh:
            connection.execute(sa.insert(table), fresh)


def _put_records(connection: sa.Connection, store_id: str, records: Sequence[Record]) -> None:
    for batch in _batches(records):
        rows = rows_of(store_id, batch)
        for table in (
            schema.entries,
            schema.incarnations,
            schema.copies,
            schema.derivations,
            schema.derivation_inputs,
            schema.derivation_outputs,
            schema.proofs,
            schema.revocations,
            schema.pins,
        ):
            if rows[table.name]:
                _insert_new(connection, table, rows[table.name])
        ids = [record.entry.id for record in batch]
        places = [record.entry.path for record in batch]
        for table in (schema.trash, schema.paths):
            connection.execute(sa.delete(table).where(table.c.entry_id.in_(ids)))
        connection.execute(
            sa.delete(schema.paths).where(
                schema.paths.c.store_id == store_id, schema.paths.c.path.in_(places)
            )
        )
        connection.execute(sa.insert(schema.paths), rows["paths"])
        if rows["trash"]:
            connection.execute(sa.insert(schema.trash), rows["trash"])
