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
"""Names and lengths, in days, of the spans by which `by_age` sorts; what is left is 'older'."""


class Amount(NamedTuple):
    """A number of files and their bytes."""

    files: int
    size_bytes: int


class TrashTotals(NamedTuple):
    """What waits in the trash; `due` is the part whose time is over."""

    waiting: Amount
    due: Amount
    next_purge: str | None


def by_recipe(catalog: Catalog) -> dict[str, dict[str, Amount]]:
    """Return files and bytes by recipe (empty for files that none made) and recorded state."""
    paths = schema.paths.c
    recipe = sa.func.coalesce(paths.recipe, "")
    query = (
        sa.select(recipe, paths.state, sa.func.count(), sa.func.sum(paths.size_bytes))
        .where(paths.store_id == catalog.store_id)
        .group_by(paths.state, recipe)
        .order_by(recipe)
    )
    found: dict[str, dict[str, Amount]] = {}
    for name, state, count, size in catalog.rows(query):
        found.setdefault(name, {})[state] = Amount(count, int(size))
    return found


def by_age(catalog: Catalog, now: datetime) -> dict[str, Amount]:
    """Return resident files and bytes by how long ago they were last written or recalled."""
    paths, accesses = schema.paths.c, schema.accesses.c
    spans = [(name, *_moments(now - timedelta(days=days))) for name, days in AGES]
    resident = (paths.store_id == catalog.store_id, paths.state == State.RESIDENT.value)
    written = sa.case(*((paths.mtime_ns >= ns, name) for name, _, ns in spans), else_="older")
    query = sa.select(written, sa.func.count(), sa.func.sum(paths.size_bytes)).where(*resident)
    found = {name: Amount(n, int(b)) for name, n, b in catalog.rows(query.group_by(written))}
    # Few files were ever recalled: those move from where their writing put them.
    used = sa.case(
        *((sa.or_(accesses.last_at >= iso, paths.mtime_ns >= ns), name) for name, iso, ns in spans),
        else_="older",
    )
    moved = (
        sa.select(written, used, sa.func.count(), sa.func.sum(paths.size_bytes))
        .join(schema.accesses, accesses.entry_id == paths.entry_id)
        .where(*resident)
        .group_by(written, used)
    )
    names = [*(name for name, _ in AGES), "older"]
    sums = {name: list(found.get(name, Amount(0, 0))) for name in names}
    for source, target, count, size in catalog.rows(moved):
        for name, sign in ((source, -1), (target, 1)):
            sums[name][0] += sign * count
            sums[name][1] += sign * int(size)
    return {name: Amount(*amount) for name, amount in sums.items()}


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


def derived_resident(catalog: Catalog) -> Amount:
    """Return how many resident files a recipe made, and their bytes: the most that could go."""
    paths = schema.paths.c
    query = _sum().where(
        paths.store_id == catalog.store_id,
        paths.state == State.RESIDENT.value,
        paths.recipe.is_not(None),
    )
    return _amount(catalog, query)


def releasable(catalog: Catalog, at: str) -> Amount:
    """Return the resident files that have a valid proof at an ISO time and are not pinned."""
    paths = schema.paths.c
    query = _sum().where(
        paths.store_id == catalog.store_id,
        paths.state == State.RESIDENT.value,
        paths.is_pinned.is_(sa.false()),
        paths.proved_until > at,
    )
    return _amount(catalog, query)


def trash_totals(catalog: Catalog, now: str) -> TrashTotals:
    """Return what waits in the trash at an ISO time."""
    paths, entries, trash = schema.paths.c, schema.entries.c, schema.trash.c
    is_due = sa.case((trash.purge_after <= now, 1), else_=0)
    query = (
        sa.select(
            is_due,
            sa.func.count(),
            sa.func.sum(entries.size_bytes),
            sa.func.min(trash.purge_after),
        )
        .select_from(schema.trash)
        .join(schema.paths, paths.entry_id == trash.entry_id)
        .join(schema.entries, entries.id == trash.entry_id)
        .where(paths.store_id == catalog.store_id)
        .group_by(is_due)
    )
    sums = {0: Amount(0, 0), 1: Amount(0, 0)}
    following = None
    for due, count, size, first in catalog.rows(query):
        sums[due] = Amount(count, int(size))
        following = following if due else first
    total = Amount(sums[0].files + sums[1].files, sums[0].size_bytes + sums[1].size_bytes)
    return TrashTotals(total, sums[1], following)


def recalls_since(catalog: Catalog, since: str) -> list[tuple[str, int, int, float]]:
    """Return source, count, bytes and seconds of the recalls since an ISO time."""
    recalls, paths = schema.recalls.c, schema.paths.c
    query = (
        sa.select(
            recalls.source,
            sa.func.count(),
            sa.func.sum(recalls.size_bytes),
            sa.func.sum(recalls.seconds),
        )
        .join(schema.paths, paths.entry_id == recalls.entry_id)
        .where(paths.store_id == catalog.store_id, recalls.at >= since)
        .group_by(recalls.source)
        .order_by(recalls.source)
    )
    return [(s, n, int(b), float(t)) for s, n, b, t in catalog.rows(query)]


def failures_since(catalog: Catalog, since: str, *, limit: int) -> list[dict[str, Any]]:
    """Return the newest events of the audit trail that say that something failed."""
    events = schema.events.c
    own = sa.select(schema.entries.c.id).where(schema.entries.c.store_id == catalog.store_id)
    query = (
        sa.select(schema.events)
        .where(events.at >= since, events.action.like("%-failed"), events.entry_id.in_(own))
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


def forgotten(catalog: Catalog, entry_ids: Sequence[str]) -> set[str]:
    """Return those of some entries that the audit trail says were forgotten on purpose."""
    events = schema.events.c
    query = sa.select(events.entry_id).where(
        events.action == "forget", events.entry_id.in_(list(entry_ids))
    )
    return {row.entry_id for row in catalog.rows(query)}


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


def _sum() -> sa.Select[Any]:
    size = schema.paths.c.size_bytes
    return sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(size), 0))


def _amount(catalog: Catalog, query: sa.Select[Any]) -> Amount:
    count, size = catalog.rows(query)[0]
    return Amount(count, int(size))


def _moments(moment: datetime) -> tuple[str, int]:
    """Write a moment as the catalog's two sorts of columns hold it."""
    utc = moment.astimezone(timezone.utc)
    return utc.isoformat(timespec="microseconds"), int(utc.timestamp() * 1e9)
