"""The questions and changes that the catalog answers: an index over sidecars and the tree.

Nothing here is evidence. Losing the catalog costs a rebuild (`recallfs.catalog.rebuild`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from recallfs.catalog import schema
from recallfs.catalog.engine import insert_new
from recallfs.catalog.history import History
from recallfs.catalog.leases import Lease, Leases
from recallfs.catalog.rows import Row, entry_of, identity_values, rows_of
from recallfs.catalog.sidecar import Record
from recallfs.catalog.view import below
from recallfs.errors import ConflictError
from recallfs.values import Entry, Identity, State

__all__ = ["Catalog", "Intent", "Lease", "Place"]

_BATCH_ROWS = 500
_PAGE_ROWS = 2000

_Row = TypeVar("_Row")


class Place(NamedTuple):
    """Where an entry stands; all that is read of many where nothing else is asked."""

    path: str
    id: str


class Intent(NamedTuple):
    """A change of evidence that was begun; it is deleted in the transaction that ends it."""

    entry_id: str
    action: str
    path: str
    details: Mapping[str, Any]
    holder: str

    @property
    def claimed_path(self) -> str:
        """The path at which the entry will be afterwards."""
        return str(self.details.get("new", self.path))


class Catalog(Leases, History):
    """One store's view of a catalog.

    Parameters
    ----------
    url : str or Path
        SQLAlchemy URL, or the file of an SQLite database.
    store_id : str
        Rows of other stores in the same database are never touched.

    Notes
    -----
    Safe to use from several threads and after a fork. Every change is one transaction.
    """

    # -- entries and paths ------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Tell whether no entry stands at any path of this store."""
        query = sa.select(schema.paths.c.path).where(schema.paths.c.store_id == self.store_id)
        return not self.rows(query.limit(1))

    def entry_at(self, path: str) -> Entry | None:
        """Return the entry at a path, or None."""
        rows = self.rows(_ENTRY_AT, {"store_id": self.store_id, "path": path})
        return entry_of(rows[0]) if rows else None

    def entries_at(self, paths: Collection[str]) -> dict[str, Entry]:
        """Return the entries at several paths, by path; many times quicker than one by one."""
        found: dict[str, Entry] = {}
        for batch in _batches(paths):
            rows = self.rows(_ENTRIES_AT, {"store_id": self.store_id, "paths": batch})
            found.update({row.path: entry_of(row) for row in rows})
        return found

    def entry(self, entry_id: str) -> Entry | None:
        """Return the entry with this id that stands at some path, or None."""
        rows = self.rows(_ENTRIES.where(schema.paths.c.entry_id == entry_id))
        return entry_of(rows[0]) if rows else None

    def entries_by_id(self, entry_ids: Collection[str]) -> dict[str, Entry]:
        """Return those of several entries that stand at a path of this store, by id."""
        found: dict[str, Entry] = {}
        for batch in _batches(entry_ids):
            paths = schema.paths.c
            query = _ENTRIES.where(paths.store_id == self.store_id, paths.entry_id.in_(batch))
            found.update({row.id: entry_of(row) for row in self.rows(query)})
        return found

    def entries_with_sha256(self, sha256: str) -> list[Entry]:
        """Return the entries whose original has this digest."""
        return list(self._select(schema.entries.c.sha256 == sha256))

    def entries_below(self, folder: str) -> Iterator[Entry]:
        """Iterate over all entries at or below a folder, in path order."""
        return self._select(*([below(folder)] if folder else []))

    def places_below(self, folder: str) -> list[Place]:
        """Return path and id of all entries at or below a folder, in path order."""
        paths = schema.paths.c
        # In a file they are kept as the text that they are; of so many each conversion costs.
        path = sa.type_coerce(paths.path, sa.String) if self.is_file else paths.path
        query = sa.select(path, paths.entry_id).where(
            paths.store_id == self.store_id, *([below(folder)] if folder else [])
        )
        # What `Place` does, of which there is one call for each of so many files.
        new = tuple.__new__
        places = self.folded(query, lambda rows: [new(Place, row) for row in rows])
        return sorted(places)  # text sorts as its UTF-8 does

    def _select(self, *conditions: sa.ColumnElement[bool]) -> Iterator[Entry]:
        """Iterate page by page: no transaction stays open while the caller works."""
        column = schema.paths.c.path
        query = _ENTRIES.where(schema.paths.c.store_id == self.store_id, *conditions)
        query = query.order_by(column).limit(_PAGE_ROWS)
        rows = self.rows(query)
        while rows:
            yield from map(entry_of, rows)
            if len(rows) < _PAGE_ROWS:
                return
            rows = self.rows(query.where(column > rows[-1].path))

    def children(self, folder: str) -> tuple[list[Entry], list[str]]:
        """Return the entries right in a folder and the names of subfolders that hold entries."""
        paths = schema.paths.c
        query = _ENTRIES.where(paths.store_id == self.store_id, paths.parent == folder)
        # Sorted here: told to, SQLite goes through the whole store in the order of paths.
        rows = sorted(self.rows(query), key=lambda row: row.path.encode())
        subfolders = self._database.query(lambda connection: self._subfolders(connection, folder))
        return [entry_of(row) for row in rows], subfolders

    def _subfolders(self, connection: sa.Connection, folder: str) -> list[str]:
        """Skip through the index from one subfolder to the next, whatever they hold."""
        prefix = f"{folder}/" if folder else ""
        query = _NEXT_IN_FOLDER if folder else _NEXT_IN_ROOT
        bound = prefix or "\x01"  # no name begins with less
        names: dict[str, None] = {}
        while True:
            values = {"store_id": self.store_id, "bound": bound}
            end = {"end": f"{folder}0"} if folder else {}  # '0' is the character after '/'
            found = connection.execute(query, {**values, **end}).scalar()
            if found is None:
                return list(names)
            name = found[len(prefix) :].split("/")[0]
            names[name] = None
            # 'a' is followed by siblings such as 'a-2' before what is below it, 'a/...'.
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
            schema.paths.c.entry_id == entry.id,
            schema.paths.c.path == entry.path,
            schema.paths.c.state == entry.state.value,
        )
        values = query.values(state=state.value, **identity_values(identity))
        self._database.transact(lambda connection: connection.execute(values))

    # -- evidence ---------------------------------------------------------------------------

    def put(
        self,
        records: Sequence[Record],
        environments: Mapping[str, str] | None = None,
        *,
        replacing: Collection[str] = (),
        synced: bool = True,
    ) -> None:
        """Index records: new rows are added, the path follows the record, intents end.

        Parameters
        ----------
        environments : Mapping, optional
            JSON text of environments that the records name, by id.
        replacing : collection of str
            Ids of the entries that give up their paths to these; their intents stay.
        synced : bool
            False where a synced intent and sidecar let a power failure be made good.

        Raises
        ------
        ConflictError
            If another entry stands at a record's path. Nothing is changed then.
        """

        def change(connection: sa.Connection) -> None:
            _put_environments(connection, environments or {})
            ids = [record.entry.id for record in records]
            for batch in _batches([*ids, *replacing]):
                for drop in (_DROP_TRASH, _DROP_PATHS):
                    connection.execute(drop, {"ids": batch})
            for batch in _batches(ids):
                connection.execute(_DROP_INTENTS, {"ids": batch})
            _complete(connection, records)
            _put_records(connection, self.store_id, records)

        self._database.transact(change, store_id=self.store_id, synced=synced)

    def replace_all(
        self, records: Callable[[], Iterable[Record]], environments: Mapping[str, str]
    ) -> None:
        """Make the store's index anew, as one change.

        Parameters
        ----------
        records : callable
            Gives them one by one, so that they need not all be in memory; from the start again
            when the transaction has to be repeated.
        """

        def change(connection: sa.Connection) -> None:
            own = sa.select(schema.paths.c.entry_id).where(schema.paths.c.store_id == self.store_id)
            connection.execute(sa.delete(schema.trash).where(schema.trash.c.entry_id.in_(own)))
            for table in (schema.paths, schema.intents):
                connection.execute(sa.delete(table).where(table.c.store_id == self.store_id))
            _put_environments(connection, environments)
            waiting = iter(records())
            while batch := list(islice(waiting, _PAGE_ROWS)):
                _put_records(connection, self.store_id, batch)

        self._database.transact(change, store_id=self.store_id)

    def drop(self, entry_id: str) -> None:
        """Forget where an entry stands; its history stays. Ends the entry's intent."""

        def change(connection: sa.Connection) -> None:
            for table in (schema.paths, schema.trash, schema.intents):
                connection.execute(sa.delete(table).where(table.c.entry_id == entry_id))

        self._database.transact(change, store_id=self.store_id)

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
        rows = self.rows(query)
        return {row.name: row.entry_id for row in rows if row.id == rows[0].id}

    def outputs_of(self, derivation_id: str) -> dict[str, Entry]:
        """Return the entries that a derivation made and that still stand at a path, by name."""
        outputs = schema.derivation_outputs.c
        query = _ENTRIES.add_columns(outputs.name).join(
            schema.derivation_outputs, outputs.entry_id == schema.entries.c.id
        )
        rows = self.rows(
            query.where(
                schema.paths.c.store_id == self.store_id, outputs.derivation_id == derivation_id
            ).order_by(outputs.name)
        )
        return {row.name: entry_of(row) for row in rows}

    def environment_use(self) -> dict[str, list[tuple[str, str]]]:
        """Return path and state of the files that were made or proved in each environment."""
        paths, proofs = schema.paths.c, schema.proofs.c
        derivations, outputs = schema.derivations.c, schema.derivation_outputs.c
        proved = (
            sa.select(proofs.environment_id, paths.path, paths.state)
            .join(schema.paths, paths.entry_id == proofs.entry_id)
            .where(paths.store_id == self.store_id)
        )
        made = (
            sa.select(derivations.environment_id, paths.path, paths.state)
            .join(schema.derivation_outputs, outputs.derivation_id == derivations.id)
            .join(schema.paths, paths.entry_id == outputs.entry_id)
            .where(paths.store_id == self.store_id)
        )
        found: dict[str, set[tuple[str, str]]] = {}
        for row in (*self.rows(proved), *self.rows(made)):
            found.setdefault(row.environment_id, set()).add((row.path, row.state))
        return {identifier: sorted(files) for identifier, files in found.items()}

    def environment(self, identifier: str) -> dict[str, Any] | None:
        """Return a captured environment, or None."""
        column = schema.environments.c
        rows = self.rows(sa.select(column.content).where(column.id == identifier))
        return dict(json.loads(rows[0].content)) if rows else None

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

        def change(connection: sa.Connection) -> None:
            for batch in _batches(rows):
                connection.execute(_DROP_INTENTS, {"ids": [row["entry_id"] for row in batch]})
                connection.execute(_ADD_INTENTS, batch)

        self._database.transact(change, store_id=self.store_id)

    def intents(self) -> list[Intent]:
        """Return all changes that were begun and not ended."""
        rows = self.rows(_INTENTS, {"store_id": self.store_id})
        return [
            Intent(row.entry_id, row.action, row.path, json.loads(row.details), row.holder)
            for row in rows
        ]

    def intent(self, entry_id: str) -> Intent | None:
        """Return the change of an entry that was begun and not ended, or None."""
        return next((item for item in self.intents() if item.entry_id == entry_id), None)

    def drop_intent(self, entry_id: str) -> None:
        """End an intent that came to nothing."""
        ids = {"ids": [entry_id]}
        self._database.transact(lambda connection: connection.execute(_DROP_INTENTS, ids))

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
        return [row.entry_id for row in self.rows(query)]


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

_ENTRIES_AT = _ENTRIES.where(
    schema.paths.c.store_id == sa.bindparam("store_id"),
    schema.paths.c.path.in_(sa.bindparam("paths", expanding=True)),
)

_TAKEN = (
    sa.select(schema.paths.c.path)
    .where(
        schema.paths.c.store_id == sa.bindparam("store_id"),
        schema.paths.c.path.in_(sa.bindparam("paths", expanding=True)),
    )
    .limit(1)
)

# Each change of an entry needs these: made anew each time, they would cost more than to run them.
_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_DROP_TRASH = sa.delete(schema.trash).where(schema.trash.c.entry_id.in_(_IDS))
_DROP_PATHS = sa.delete(schema.paths).where(schema.paths.c.entry_id.in_(_IDS))
_DROP_INTENTS = sa.delete(schema.intents).where(schema.intents.c.entry_id.in_(_IDS))
_ADD_INTENTS = sa.insert(schema.intents)
_ADD_PATHS = sa.insert(schema.paths)
_INTENTS = sa.select(schema.intents).where(schema.intents.c.store_id == sa.bindparam("store_id"))
_CHANGEABLE = sa.select(
    *(schema.entries.c[name] for name in ("id", "sha1", "mode", "uid", "gid", "mtime_ns"))
).where(schema.entries.c.id.in_(_IDS))

_NEXT_IN_ROOT = sa.select(sa.func.min(schema.paths.c.parent)).where(
    schema.paths.c.store_id == sa.bindparam("store_id"),
    schema.paths.c.parent >= sa.bindparam("bound"),
)
_NEXT_IN_FOLDER = _NEXT_IN_ROOT.where(schema.paths.c.parent < sa.bindparam("end"))


def _batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    waiting = iter(rows)
    while batch := list(islice(waiting, _BATCH_ROWS)):
        yield batch


def _put_environments(connection: sa.Connection, environments: Mapping[str, str]) -> None:
    rows = [Row(id=identifier, content=content) for identifier, content in environments.items()]
    insert_new(connection, schema.environments, rows)


def _complete(connection: sa.Connection, records: Sequence[Record]) -> None:
    """Add the digests of entries whose bytes were not here before, and note new permissions."""
    columns = schema.entries.c
    for batch in _batches(records):
        ids = [record.entry.id for record in batch]
        rows = connection.execute(_CHANGEABLE, {"ids": ids})
        known = {row.id: row for row in rows}
        for entry in (record.entry for record in batch if record.entry.id in known):
            row, now = known[entry.id], entry.metadata
            values: dict[str, str | int] = {}
            if entry.sha1 and not row.sha1:
                values.update(sha256=entry.sha256, sha1=entry.sha1)
            if (row.mode, row.uid, row.gid, row.mtime_ns) != (
                now.mode, now.uid, now.gid, now.mtime_ns,
            ):  # fmt: skip
                values.update(mode=now.mode, uid=now.uid, gid=now.gid, mtime_ns=now.mtime_ns)
            if values:
                connection.execute(
                    sa.update(schema.entries).where(columns.id == entry.id).values(values)
                )


def _put_records(connection: sa.Connection, store_id: str, records: Sequence[Record]) -> None:
    """Index records whose paths and trash rows are gone already."""
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
            insert_new(connection, table, rows[table.name])
        places = [record.entry.path for record in batch]
        taken = connection.execute(_TAKEN, {"store_id": store_id, "paths": places}).scalar()
        if taken is None and len(set(places)) < len(places):
            taken = next(place for place in places if places.count(place) > 1)
        if taken is not None:
            raise ConflictError(
                f"another entry stands at {taken!r}; it was left as it is.",
                details={"path": taken},
            )
        connection.execute(_ADD_PATHS, rows["paths"])
        insert_new(connection, schema.trash, rows["trash"])
