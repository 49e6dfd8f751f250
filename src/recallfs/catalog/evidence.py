"""What the catalog says of many entries at once, for a release that is drawn up.

The sidecars are the evidence; each file that is then released is judged by its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from recallfs.catalog import schema
from recallfs.catalog.database import Catalog
from recallfs.values import Entry, InputRef, Level, State

_BATCH = 500
_LEVELS = {level.value: level for level in Level}


class Standing(NamedTuple):
    """A proof that counts, and what it ran."""

    id: str
    derivation_id: str
    environment_id: str
    level: Level
    method: str
    made_at: str
    seconds: float


class Made(NamedTuple):
    """The derivation that a recall of an entry would run.

    Parameters
    ----------
    environment_id : str
        Of the newest valid proof, else of the run that was recorded.
    """

    recipe: str
    environment_id: str
    seconds: float
    inputs: tuple[InputRef, ...]


class Evidence(NamedTuple):
    """What is indexed of an entry.

    Parameters
    ----------
    kept_bytes : int or None
        Of skeleton and residual; None if only the sidecar says.
    recalled_at : str
        ISO time; empty for never.
    proofs : tuple of Standing
        Valid at the time asked about, newest first.
    """

    is_pinned: bool
    kept_bytes: int | None
    recalled_at: str
    proofs: tuple[Standing, ...]
    made: Made | None


def evidence_of(catalog: Catalog, entry_ids: Collection[str], at: str) -> dict[str, Evidence]:
    """Return what is indexed of entries that stand at a path, by id.

    Parameters
    ----------
    at : str
        ISO time at which a proof must be valid.

    Notes
    -----
    Some four queries for each 500 entries.
    """
    wanted = set(entry_ids)
    is_most = len(wanted) * 4 > sum(count for count, _ in catalog.totals().values())
    # Of most of a store, what is not wanted costs less than to name all that is.
    batches: Iterable[list[str] | None] = [None] if is_most else _batches(wanted)
    found: dict[str, Evidence] = {}
    for batch in batches:
        inputs = _inputs(catalog, batch)
        ran = _unproved(catalog, batch, at)
        for entry_id, is_pinned, kept_bytes, last_at, *proof in _proofs(catalog, batch, at):
            if entry_id not in wanted:
                continue
            if proof[0] is None:
                last = ran.get(entry_id)
                made = None if last is None else Made(*last[1:], inputs.get(last[0], ()))
                found[entry_id] = Evidence(is_pinned, kept_bytes, last_at or "", (), made)
                continue
            identifier, derivation, environment, level, method, made_at, seconds, recipe = proof
            valid = Standing(
                identifier, derivation, environment, _LEVELS[level], method, made_at, seconds
            )
            known = found.get(entry_id)
            if known is not None:
                proofs = (*known.proofs, valid)
                newest_first = sorted(proofs, key=lambda each: each.made_at, reverse=True)
                made = known.made
                if newest_first[0] is valid:
                    made = Made(recipe, environment, seconds, inputs.get(derivation, ()))
                found[entry_id] = known._replace(proofs=tuple(newest_first), made=made)
                continue
            made = Made(recipe, environment, seconds, inputs.get(derivation, ()))
            found[entry_id] = Evidence(is_pinned, kept_bytes, last_at or "", (valid,), made)
    return found


def released_from(catalog: Catalog, entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Return the paths of released files that are made from each entry or from the same bytes."""
    inputs, outputs, paths = (
        schema.derivation_inputs.c,
        schema.derivation_outputs.c,
        schema.paths.c,
    )
    by_digest: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        by_digest[entry.sha256].append(entry.id)
    query = (
        sa.select(inputs.entry_id, inputs.sha256, paths.path)
        .select_from(schema.paths)
        .join(schema.derivation_outputs, outputs.entry_id == paths.entry_id)
        .join(schema.derivation_inputs, inputs.derivation_id == outputs.derivation_id)
        .where(paths.store_id == catalog.store_id, paths.state == State.RELEASED.value)
    )
    released, _ = catalog.totals().get(State.RELEASED.value, (0, 0))
    if released <= len(entries):
        rows = catalog.rows(query)
    else:
        ids = [entry.id for entry in entries]
        rows = [
            row
            for column, keys in ((inputs.entry_id, ids), (inputs.sha256, by_digest))
            for batch in _batches(keys)
            for row in catalog.rows(query.where(column.in_(batch)))
        ]
    found: dict[str, set[str]] = defaultdict(set)
    for entry_id, sha256, path in rows:
        for each in (entry_id, *by_digest.get(sha256, ())):
            found[each].add(path)
    return {entry_id: sorted(files) for entry_id, files in found.items()}


def _proofs(catalog: Catalog, batch: Sequence[str] | None, at: str) -> list[Any]:
    """Return each entry with its valid proofs, one a row; once without any if it has none."""
    paths, accesses = schema.paths.c, schema.accesses.c
    proofs, derivations, revoked = schema.proofs.c, schema.derivations.c, schema.revocations.c
    is_valid = sa.and_(
        proofs.entry_id == paths.entry_id,
        proofs.made_at <= at,
        proofs.valid_until > at,
        ~sa.exists().where(revoked.proof_id == proofs.id),
    )
    query = (
        sa.select(
            paths.entry_id,
            paths.is_pinned,
            paths.kept_bytes,
            accesses.last_at,
            proofs.id,
            proofs.derivation_id,
            proofs.environment_id,
            proofs.level,
            proofs.method,
            proofs.made_at,
            proofs.seconds,
            derivations.recipe,
        )
        .select_from(schema.paths)
        .outerjoin(schema.accesses, accesses.entry_id == paths.entry_id)
        .outerjoin(schema.proofs, is_valid)
        .outerjoin(schema.derivations, derivations.id == proofs.derivation_id)
        .where(paths.store_id == catalog.store_id)
    )
    return catalog.rows(query if batch is None else query.where(paths.entry_id.in_(batch)))


def _unproved(
    catalog: Catalog, batch: Sequence[str] | None, at: str
) -> dict[str, tuple[str, str, str, float]]:
    """Return the last derivation of each entry that has no valid proof."""
    paths, derivations, outputs = schema.paths.c, schema.derivations.c, schema.derivation_outputs.c
    is_unproved = sa.or_(paths.proved_until.is_(None), paths.proved_until <= at)
    query = (
        sa.select(
            paths.entry_id,
            derivations.id,
            derivations.recipe,
            derivations.environment_id,
            derivations.seconds,
        )
        .select_from(schema.paths)
        .join(schema.derivation_outputs, outputs.entry_id == paths.entry_id)
        .join(schema.derivations, derivations.id == outputs.derivation_id)
        .where(paths.store_id == catalog.store_id, is_unproved)
        .order_by(derivations.started_at, derivations.id)
    )
    rows = catalog.rows(query if batch is None else query.where(paths.entry_id.in_(batch)))
    return {entry_id: tuple(rest) for entry_id, *rest in rows}


def _inputs(catalog: Catalog, batch: Sequence[str] | None) -> dict[str, tuple[InputRef, ...]]:
    """Return the inputs of the derivations of entries; those that are the same are one object."""
    inputs, outputs, paths = (
        schema.derivation_inputs.c,
        schema.derivation_outputs.c,
        schema.paths.c,
    )
    own = (
        sa.select(outputs.derivation_id)
        .join(schema.paths, paths.entry_id == outputs.entry_id)
        .where(paths.store_id == catalog.store_id)
    )
    own = own if batch is None else own.where(paths.entry_id.in_(batch))
    query = sa.select(
        inputs.derivation_id, inputs.name, inputs.entry_id, inputs.path, inputs.sha256
    ).where(inputs.derivation_id.in_(own))
    found: dict[str, tuple[InputRef, ...]] = {}
    shared: dict[tuple[Any, ...], tuple[InputRef, ...]] = {}
    for derivation_id, *values in catalog.rows(query):
        before = found.get(derivation_id, ())
        key = (before, *values)
        several = shared.get(key)
        if several is None:
            several = shared[key] = (*before, InputRef(*values))
        found[derivation_id] = several
    return found


def _batches(keys: Collection[str]) -> Iterator[list[str]]:
    waiting = list(keys)
    for start in range(0, len(waiting), _BATCH):
        yield waiting[start : start + _BATCH]
