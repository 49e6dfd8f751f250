"""Sums and lists over a whole catalog: what `recall status` and `recall doctor` ask.

Nothing here is needed to open or to recall a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import sqlalchemy as sa

from recallfs.catalog import schema
from recallfs.catalog.database import Catalog, Lease
from recallfs.values import Entry, State

AGES = (("week", 7), ("month", 30), ("quarter", 91), ("year", 365))
"""Names and lengths, in days, of the spans by which `summarise` sorts; what is left is 'older'."""


class Amount(NamedTuple):
    """A number of files and their bytes."""

    files: int
    size_bytes: int


class TrashTotals(NamedTuple):
    """What waits in the trash; `due` is the part whose time is over."""

    waiting: Amount
    due: Amount
    next_purge: str | None


class Summary(NamedTuple):
    """What all entries of a store add up to.

    Parameters
    ----------
    states : dict of str to Amount
        By recorded state.
    recipes : dict of str to dict of str to Amount
        By recipe (empty for files that none made) and recorded state.
    ages : dict of str to Amount
        Resident files by how long ago they were last written or recalled; see `AGES`.
    derived, proved, releasable : Amount
        Resident files that a recipe made; that have a valid proof; that have one and no pin.
    """

    states: dict[str, Amount]
    recipes: dict[str, dict[str, Amount]]
    ages: dict[str, Amount]
    derived: Amount
    proved: Amount
    releasable: Amount


def summarise(catalog: Catalog, now: datetime) -> Summary:
    """Add up everything in one pass over one index: under a second for a million entries."""
    paths = schema.paths.c
    is_proved = paths.proved_until > now.isoformat(timespec="microseconds")
    terms = [is_proved, sa.and_(is_proved, paths.is_pinned.is_(sa.true()))]
    terms += [paths.mtime_ns >= _moments(now - timedelta(days=days))[1] for _, days in AGES]
    columns: list[sa.ColumnElement[Any]] = [sa.func.count(), sa.func.sum(paths.size_bytes)]
    for term in terms:
        columns.append(sa.func.sum(sa.case((term, 1), else_=0)))
        columns.append(sa.func.sum(sa.case((term, paths.size_bytes), else_=0)))
    query = (
        sa.select(paths.state, paths.recipe, *columns)
        .where(paths.store_id == catalog.store_id)
        .group_by(paths.state, paths.recipe)
        .order_by(paths.state, paths.recipe)
    )
    nothing = Amount(0, 0)
    states: dict[str, Amount] = {}
    recipes: dict[str, dict[str, Amount]] = {}
    derived = proved = pinned = nothing
    younger = [nothing] * len(AGES)
    for state, recipe, *numbers in catalog.rows(query):
        amounts = [Amount(n, int(b)) for n, b in zip(numbers[::2], numbers[1::2], strict=True)]
        states[state] = _plus(states.get(state, nothing), amounts[0])
        recipes.setdefault(recipe or "", {})[state] = amounts[0]
        if state == State.RESIDENT.value:
            derived = _plus(derived, amounts[0]) if recipe is not None else derived
            proved, pinned = _plus(proved, amounts[1]), _plus(pinned, amounts[2])
            younger = [_plus(*pair) for pair in zip(younger, amounts[3:], strict=True)]
    # Each span without the shorter ones in it.
    steps = [nothing, *younger, states.get(State.RESIDENT.value, nothing)]
    names = [*(name for name, _ in AGES), "older"]
    ages = {name: _plus(steps[i + 1], steps[i], -1) for i, name in enumerate(names)}
    _move_recalled(catalog, now, ages)
    releasable = _plus(proved, pinned, -1)
    return Summary(states, dict(sorted(recipes.items())), ages, derived, proved, releasable)


def _move_recalled(catalog: Catalog, now: datetime, ages: dict[str, Amount]) -> None:
    """Count files that were recalled since they were written by their recall; they are few."""
    paths, accesses, entries = schema.paths.c, schema.accesses.c, schema.entries.c
    spans = [(name, *_moments(now - timedelta(days=days))) for name, days in AGES]
    written = sa.case(*((entries.mtime_ns >= ns, name) for name, _, ns in spans), else_="older")
    used = sa.case(
        *(
            (sa.or_(accesses.last_at >= iso, entries.mtime_ns >= ns), name)
            for name, iso, ns in spans
        ),
        else_="older",
    )
    is_resident = sa.exists().where(
        paths.entry_id == entries.id, paths.state == State.RESIDENT.value
    )
    moved = (
        sa.select(written, used, sa.func.count(), sa.func.sum(entries.size_bytes))
        .join(schema.accesses, accesses.entry_id == entries.id)
        .where(
            # So told, every database begins with the few.
            entries.id.in_(sa.select(accesses.entry_id)),
            entries.store_id == catalog.store_id,
            is_resident,
        )
        .group_by(written, used)
    )
    for source, target, count, size in catalog.rows(moved):
        for name, sign in ((source, -1), (target, 1)):
            ages[name] = _plus(ages[name], Amount(count, int(size)), sign)


def _plus(one: Amount, other: Amount, sign: int = 1) -> Amount:
    return Amount(one.files + sign * other.files, one.size_bytes + sign * other.size_bytes)


def largest_idle(
    catalog: Catalog, now: datetime, *, idle: timedelta, limit: int
) -> list[tuple[str, int]]:
    """Return path and size of the largest resident derived files that are unused for a while."""
    paths, accesses = schema.paths.c, schema.accesses.c
    iso, ns = _moments(now - idle)
    recent = sa.select(accesses.entry_id).where(accesses.last_at >= iso)
    terms = (
        paths.store_id == catalog.store_id,
        paths.state == State.RESIDENT.value,
        paths.recipe.is_not(None),
        paths.mtime_ns < ns,
    )
    # The sizes alone come from an index; only what is large enough is looked at.
    sizes = sa.select(paths.size_bytes).where(*terms).order_by(paths.size_bytes.desc())
    least = catalog.rows(sizes.offset(limit + 1000).limit(1))
    large = [paths.size_bytes >= least[0].size_bytes] if least else []
    query = (
        sa.select(paths.path, paths.size_bytes)
        .where(*terms, *large, paths.entry_id.not_in(recent))
        .order_by(paths.size_bytes.desc(), paths.path)
        .limit(limit)
    )
    return [(path, int(size)) for path, size in catalog.rows(query)]


def much_kept(catalog: Catalog, now: datetime, share: float) -> list[tuple[str, int]]:
    """Return id and size of files that could be released but for what would be kept of them.

    Parameters
    ----------
    share : float
        Largest part of a file to keep.
    """
    paths = schema.paths.c
    query = (
        sa.select(paths.entry_id, paths.size_bytes)
        .where(
            paths.store_id == catalog.store_id,
            paths.state == State.RESIDENT.value,
            paths.proved_until > now.isoformat(timespec="microseconds"),
            paths.is_pinned.is_(sa.false()),
            paths.kept_bytes > share * paths.size_bytes,
        )
        .order_by(paths.size_bytes.desc(), paths.entry_id)
    )
    return [(entry_id, int(size)) for entry_id, size in catalog.rows(query)]


def trash_totals(catalog: Catalog, now: str) -> TrashTotals:
    """Return what waits in the trash at an ISO time."""
    entries, trash = schema.entries.c, schema.trash.c
    is_due = sa.case((trash.purge_after <= now, 1), else_=0)
    query = (
        sa.select(
            is_due,
            sa.func.count(),
            sa.func.sum(entries.size_bytes),
            sa.func.min(trash.purge_after),
        )
        .select_from(schema.trash)
        .join(schema.entries, entries.id == trash.entry_id)
        .where(entries.id.in_(sa.select(trash.entry_id)), entries.store_id == catalog.store_id)
        .group_by(is_due)
    )
    sums = {0: Amount(0, 0), 1: Amount(0, 0)}
    following = None
    for due, count, size, first in catalog.rows(query):
        sums[due] = Amount(count, int(size))
        following = following if due else first
    total = Amount(sums[0].files + sums[1].files, sums[0].size_bytes + sums[1].size_bytes)
    return TrashTotals(total, sums[1], following)


def failures_since(catalog: Catalog, since: str, *, limit: int) -> list[dict[str, Any]]:
    """Return the newest events of the audit trail that say that something failed."""
    events = schema.events.c
    query = (
        sa.select(schema.events)
        .join(schema.entries, schema.entries.c.id == events.entry_id)
        .where(
            events.at >= since,
            events.action.like("%-failed"),
            schema.entries.c.store_id == catalog.store_id,
        )
        .order_by(events.id.desc())
        .limit(limit)
    )
    rows = catalog.rows(query)
    return [{**row._mapping, "details": json.loads(row.details)} for row in rows]


def entries_with_prefix(catalog: Catalog, prefix: str) -> dict[str, Entry]:
    """Return the entries that stand at some path and whose id begins with hexadecimal digits."""
    column = schema.paths.c.entry_id
    conditions = [column >= prefix, column < f"{prefix}g"]  # 'g' follows the last digit
    return {entry.id: entry for entry in catalog._select(*conditions)}


def prefixes(catalog: Catalog) -> set[str]:
    """Return the first two digits of the ids of all entries that stand at some path."""
    start = sa.func.substr(schema.paths.c.entry_id, 1, 2)
    query = sa.select(start).where(schema.paths.c.store_id == catalog.store_id).distinct()
    return {row[0] for row in catalog.rows(query)}


def forgotten(catalog: Catalog, entry_ids: Sequence[str]) -> set[str]:
    """Return those of some entries that the audit trail says were forgotten on purpose."""
    events = schema.events.c
    query = sa.select(events.entry_id).where(
        events.action == "forget", events.entry_id.in_(list(entry_ids))
    )
    return {row.entry_id for row in catalog.rows(query)}


def not_restored(catalog: Catalog) -> list[str]:
    """Return the ids of entries that a recall could not give back to their owner."""
    events = schema.events.c
    own = sa.select(schema.paths.c.entry_id).where(schema.paths.c.store_id == catalog.store_id)
    query = sa.select(events.entry_id).where(
        events.action == "recall",
        events.details.like('%"not_restored"%'),
        events.entry_id.in_(own),
    )
    return sorted({row.entry_id for row in catalog.rows(query)})


def held_leases(catalog: Catalog) -> Iterator[tuple[str, Lease]]:
    """Iterate over the leases of this store that somebody holds, with their keys."""
    columns = schema.leases.c
    query = sa.select(schema.leases).where(columns.holder.is_not(None))
    rows = catalog.rows(query)
    for row in rows:
        kind, _, rest = row.key.partition(":")
        if (kind == "derivation" and rest.startswith(catalog.store_id)) or (
            kind == "entry" and catalog.entry(rest) is not None
        ):
            yield row.key, Lease(row.fence, row.beat, row.holder, row.failure)


def newest_moment(catalog: Catalog) -> str | None:
    """Return the latest time at which anything of this store was recorded, or None."""
    entries, proofs, recalls = schema.entries.c, schema.proofs.c, schema.recalls.c
    own = sa.select(entries.id).where(entries.store_id == catalog.store_id)
    queries = [
        sa.select(sa.func.max(entries.created_at)).where(entries.store_id == catalog.store_id),
        sa.select(sa.func.max(proofs.made_at)).where(proofs.entry_id.in_(own)),
        sa.select(sa.func.max(recalls.at)).where(recalls.entry_id.in_(own)),
    ]
    found = [catalog.rows(query)[0][0] for query in queries]
    return max((moment for moment in found if moment is not None), default=None)


def _moments(moment: datetime) -> tuple[str, int]:
    """Write a moment as the catalog's two sorts of columns hold it."""
    utc = moment.astimezone(timezone.utc)
    return utc.isoformat(timespec="microseconds"), int(utc.timestamp() * 1e9)
