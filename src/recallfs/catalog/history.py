"""What happened: recalls, accesses and the audit trail; and what they and the entries add up to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from recallfs.catalog import schema
from recallfs.catalog.rows import Row
from recallfs.catalog.view import View, below
from recallfs.values import Entry, Level, State, now_utc

_PAGE_ROWS = 2000

PROOF_SCHEMES = ("sha256", "h5c1", "rsk1", "rsd1")
"""What proofs rest on: digest of bytes or of content, format of skeletons or of residuals."""


class History(View):
    """The part of the catalog that nobody's bytes depend on."""

    def add_recall(
        self, entry: Entry, *, who: str, source: str, seconds: float, level: str
    ) -> None:
        """Note a recall, and that the file was wanted."""
        at = now_utc()
        row = Row(
            entry_id=entry.id,
            at=at,
            who=who,
            source=source,
            size_bytes=entry.size_bytes,
            seconds=seconds,
            level=level,
        )
        accesses = schema.accesses

        def change(connection: sa.Connection) -> None:
            connection.execute(sa.insert(schema.recalls), row)
            connection.execute(sa.delete(accesses).where(accesses.c.entry_id == entry.id))
            connection.execute(sa.insert(accesses), Row(entry_id=entry.id, last_at=at))

        self._database.transact(change, store_id=self.store_id)

    def recalls(self, entry_id: str, *, source: str | None = None) -> list[dict[str, Any]]:
        """Return the recalls of an entry, newest first."""
        columns = schema.recalls.c
        query = sa.select(schema.recalls).where(columns.entry_id == entry_id)
        if source is not None:
            query = query.where(columns.source == source)
        rows = self.rows(query.order_by(columns.id.desc()))
        return [dict(row._mapping) for row in rows]

    def add_event(self, action: str, entry: Entry, who: str, details: Mapping[str, Any]) -> None:
        """Add a line to the audit trail."""
        row = Row(
            at=now_utc(),
            who=who,
            action=action,
            entry_id=entry.id,
            path=entry.path,
            details=json.dumps(dict(details)),
        )
        self._database.transact(
            lambda connection: connection.execute(sa.insert(schema.events), row)
        )

    def events(self, entry_id: str | None = None) -> list[dict[str, Any]]:
        """Return the audit trail (of one entry), oldest first."""
        entries = schema.entries.c
        query = (
            sa.select(schema.events)
            .join(schema.entries, entries.id == schema.events.c.entry_id)
            .where(entries.store_id == self.store_id)
            .order_by(schema.events.c.id)
        )
        if entry_id is not None:
            query = query.where(schema.events.c.entry_id == entry_id)
        rows = self.rows(query)
        return [{**row._mapping, "details": json.loads(row.details)} for row in rows]

    def trail(self, since: str = "", until: str = "") -> Iterator[dict[str, Any]]:
        """Iterate over the audit trail by time, a page at once: it may be long.

        Parameters
        ----------
        since, until : str
            ISO times; from the first, and before the second.
        """
        events, entries = schema.events.c, schema.entries.c
        query = (
            sa.select(schema.events)
            .join(schema.entries, entries.id == events.entry_id)
            .where(entries.store_id == self.store_id, events.at >= since)
            .order_by(events.at, events.id)
            .limit(_PAGE_ROWS)
        )
        if until:
            query = query.where(events.at < until)
        page = query
        while rows := self.rows(page):
            for row in rows:
                yield {**row._mapping, "details": json.loads(row.details)}
            last = rows[-1]
            later = sa.and_(events.at == last.at, events.id > last.id)
            page = query.where(sa.or_(events.at > last.at, later))

    def restore_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Add events that happened earlier."""
        rows = [{**event, "details": json.dumps(event["details"])} for event in events]
        if rows:
            self._database.transact(
                lambda connection: connection.execute(sa.insert(schema.events), rows)
            )

    def totals(self) -> dict[str, tuple[int, int]]:
        """Return the number of entries and their bytes, by recorded state."""
        paths = schema.paths.c
        query = (
            sa.select(paths.state, sa.func.count(), sa.func.sum(paths.size_bytes))
            .where(paths.store_id == self.store_id)
            .group_by(paths.state)
        )
        return {state: (count, int(size)) for state, count, size in self.rows(query)}

    def releasable(
        self, at: str, *, folder: str = "", unused_since: datetime | None = None, min_bytes: int = 0
    ) -> Iterator[tuple[str, int]]:
        """Iterate over what a release may look at, largest files first.

        Parameters
        ----------
        at : str
            ISO time at which a proof must be valid.
        unused_since : datetime, optional
            Only files that were neither written nor recalled since then.

        Yields
        ------
        path : str
        size_bytes : int
            Of entries that are resident, proved and not pinned.
        """
        paths = schema.paths.c
        terms = [
            *self._idle(folder, unused_since),
            paths.proved_until > at,
            paths.size_bytes >= min_bytes,
        ]
        while True:
            # Two steps, of which the first reads nothing but an index.
            sizes = sa.select(paths.size_bytes).where(*terms).order_by(paths.size_bytes.desc())
            last = self.rows(sizes.offset(_PAGE_ROWS - 1).limit(1))
            page = [paths.size_bytes >= last[0].size_bytes] if last else []
            rows = sa.select(paths.path, paths.size_bytes).where(*terms, *page)
            for row in self.rows(rows.order_by(paths.size_bytes.desc(), paths.path)):
                yield row.path, row.size_bytes
            if not last:
                return
            terms.append(paths.size_bytes < last[0].size_bytes)

    def came_back(
        self, *, folder: str = "", unused_since: datetime | None = None
    ) -> list[tuple[str, int]]:
        """Return path and size of files that were released once and are here again, largest first.

        Parameters
        ----------
        unused_since : datetime, optional
            Only files that were neither written nor recalled since then.
        """
        paths, events = schema.paths.c, schema.events.c
        terms = [
            *self._idle(folder, unused_since),
            paths.entry_id.in_(sa.select(events.entry_id).where(events.action == "release")),
        ]
        query = sa.select(paths.path, paths.size_bytes).where(*terms)
        rows = self.rows(query.order_by(paths.size_bytes.desc(), paths.path))
        return [(row.path, row.size_bytes) for row in rows]

    def _idle(self, folder: str, unused_since: datetime | None) -> list[sa.ColumnElement[bool]]:
        """Return the terms of entries that are here, not pinned, and unused for so long."""
        paths, accesses = schema.paths.c, schema.accesses.c
        terms = [
            paths.store_id == self.store_id,
            paths.state == State.RESIDENT.value,
            paths.is_pinned.is_(sa.false()),
        ]
        if folder:
            terms.append(below(folder))
        if unused_since is not None:
            iso, ns = unused_since.isoformat(), int(unused_since.timestamp() * 1e9)
            recent = sa.select(accesses.entry_id).where(accesses.last_at >= iso)
            terms += [paths.mtime_ns < ns, paths.entry_id.not_in(recent)]
        return terms

    def recall_totals(self, since: str = "") -> list[tuple[str, int, int, float]]:
        """Return source, count, bytes and seconds of recalls, perhaps only since an ISO time."""
        recalls, entries = schema.recalls.c, schema.entries.c
        query = (
            sa.select(
                recalls.source,
                sa.func.count(),
                sa.func.sum(recalls.size_bytes),
                sa.func.sum(recalls.seconds),
            )
            .join(schema.entries, entries.id == recalls.entry_id)
            .where(entries.store_id == self.store_id, recalls.at >= since)
            .group_by(recalls.source)
            .order_by(recalls.source)
        )
        return [(s, n, int(b), float(t)) for s, n, b, t in self.rows(query)]

    def proofs(
        self,
        *,
        recipe: str = "",
        environment: str = "",
        level: str = "",
        scheme: str = "",
        before: str = "",
    ) -> Iterator[tuple[str, str]]:
        """Iterate over proofs that were not revoked.

        Parameters
        ----------
        recipe, environment, level : str
            Only those of this recipe, of environments whose id begins so, of this level.
        scheme : str
            Only those that rest on this digest or format, one of `PROOF_SCHEMES`.
        before : str
            Only those that were made before this ISO time.

        Yields
        ------
        entry_id, proof_id : str
        """
        proofs, entries = schema.proofs.c, schema.entries.c
        derivations = schema.derivations.c
        query = (
            sa.select(proofs.entry_id, proofs.id)
            .join(schema.entries, entries.id == proofs.entry_id)
            .where(
                entries.store_id == self.store_id,
                proofs.id.not_in(sa.select(schema.revocations.c.proof_id)),
            )
            .order_by(proofs.entry_id, proofs.id)
        )
        if recipe:
            query = query.join(schema.derivations, derivations.id == proofs.derivation_id).where(
                derivations.recipe == recipe
            )
        if environment:
            query = query.where(proofs.environment_id.startswith(environment, autoescape=True))
        if level:
            query = query.where(proofs.level == level)
        if scheme:
            query = query.where(_rests_on(scheme))
        if before:
            query = query.where(proofs.made_at < before)
        for row in self.rows(query):
            yield row.entry_id, row.id

    def recipes(self) -> list[str]:
        """Return the names of the recipes that files were made or proved by."""
        derivations, outputs = schema.derivations.c, schema.derivation_outputs.c
        query = (
            sa.select(derivations.recipe)
            .distinct()
            .join(schema.derivation_outputs, outputs.derivation_id == derivations.id)
            .join(schema.entries, schema.entries.c.id == outputs.entry_id)
            .where(schema.entries.c.store_id == self.store_id)
        )
        return sorted(row.recipe for row in self.rows(query))

    def without_ground(self, at: str) -> tuple[int, int]:
        """Return count and bytes of released entries with neither a valid proof nor a copy."""
        paths = schema.paths.c
        return self._amount(
            State.RELEASED,
            sa.or_(paths.proved_until.is_(None), paths.proved_until <= at),
            paths.entry_id.not_in(sa.select(schema.copies.c.entry_id)),
        )

    def proved(self, at: str) -> dict[str, int]:
        """Return how many resident entries have a valid proof at an ISO time, and their bytes."""
        files, size_bytes = self._amount(State.RESIDENT, schema.paths.c.proved_until > at)
        return {"files": files, "size_bytes": size_bytes}

    def _amount(self, state: State, *terms: sa.ColumnElement[bool]) -> tuple[int, int]:
        """Return count and bytes of the entries in a state of which the terms hold."""
        paths = schema.paths.c
        columns = sa.func.count(), sa.func.coalesce(sa.func.sum(paths.size_bytes), 0)
        count, size = self.rows(
            sa.select(*columns).where(
                paths.store_id == self.store_id, paths.state == state.value, *terms
            )
        )[0]
        return count, int(size)


def _rests_on(scheme: str) -> sa.ColumnElement[bool]:
    """Return the condition that a proof rests on a digest or format."""
    proofs = schema.proofs.c
    is_exact = proofs.level == Level.EXACT.value
    conditions: dict[str, sa.ColumnElement[bool]] = {
        "sha256": is_exact,
        "h5c1": sa.not_(is_exact),
        "rsk1": sa.or_(sa.not_(is_exact), proofs.method != "direct"),
        "rsd1": proofs.method == "residual",
    }
    return conditions[scheme]
