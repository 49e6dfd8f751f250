"""What the catalog says of many entries at once, for a release that is drawn up.

The sidecars are the evidence; each file that is then released is judged by its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from recallfs.catalog import schema
from recallfs.catalog.database import Catalog
from recallfs.values import Entry, InputRef, Level, Proof, State

_BATCH = 500


class Made(NamedTuple):
    """The derivation that a recall of an entry would run.

    Parameters
    ----------
    environment_id : str
        Of the newest valid proof, else of the run that was recorded.
    """

    id: str
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
    proofs : tuple of Proof
        Valid at the time asked about, newest first.
    """

    is_pinned: bool
    kept_bytes: int | None
    recalled_at: str
    proofs: tuple[Proof, ...]
    made: Made | None


def evidence_of(catalog: Catalog, entry_ids: Collection[str], at: str) -> dict[str, Evidence]:
    """Return what is indexed of entries that stand at a path, by id.

    Parameters
    ----------
    at : str
        ISO time at which a proof must be valid.

    Notes
    -----
    Some four queries for each 500 entries: a hundred thousand take about a second.
    """
    found: dict[str, Evidence] = {}
    for batch in _batches(entry_ids):
        proofs = _proofs(catalog, batch, at)
        made = _made(catalog, batch, proofs)
        paths, accesses = schema.paths.c, schema.accesses.c
        query = (
            sa.select(paths.entry_id, paths.is_pinned, paths.kept_bytes, accesses.last_at)
            .outerjoin(schema.accesses, accesses.entry_id == paths.entry_id)
            .where(paths.store_id == catalog.store_id, paths.entry_id.in_(batch))
        )
        for entry_id, is_pinned, kept_bytes, last_at in catalog.rows(query):
            valid = tuple(proof for proof, _ in proofs.get(entry_id, ()))
            found[entry_id] = Evidence(
                bool(is_pinned), kept_bytes, last_at or "", valid, made.get(entry_id)
            )
    return found


def released_from(catalog: Catalog, entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Return the paths of released files that are made from each entry or from the same bytes."""
    inputs, outputs, paths = (
        schema.derivation_inputs.c,
        schema.derivation_outputs.c,
        schema.paths.c,
    )
    found: dict[str, list[str]] = defaultdict(list)
    by_digest: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        by_digest[entry.sha256].append(entry.id)
    for column, keys in (
        (inputs.entry_id, [entry.id for entry in entries]),
        (inputs.sha256, list(by_digest)),
    ):
        for batch in _batches(keys):
            query = (
                sa.select(column, paths.path)
                .join(schema.derivation_outputs, outputs.derivation_id == inputs.derivation_id)
                .join(schema.paths, paths.entry_id == outputs.entry_id)
                .where(
                    column.in_(batch),
                    paths.store_id == catalog.store_id,
                    paths.state == State.RELEASED.value,
                )
            )
            for key, path in catalog.rows(query):
                for entry_id in by_digest.get(key, (key,)):
                    found[entry_id].append(path)
    return {entry_id: sorted(set(files)) for entry_id, files in found.items()}


def _proofs(
    catalog: Catalog, batch: Sequence[str], at: str
) -> dict[str, list[tuple[Proof, Made]]]:
    """Return the valid proofs of entries and what each ran, newest first."""
    proofs, derivations = schema.proofs.c, schema.derivations.c
    revoked = schema.revocations.c
    query = (
        sa.select(
            proofs.id,
            proofs.entry_id,
            proofs.derivation_id,
            proofs.environment_id,
            proofs.level,
            proofs.method,
            proofs.sha256,
            proofs.made_by,
            proofs.made_at,
            proofs.valid_until,
            proofs.seconds,
            derivations.recipe,
        )
        .join(schema.derivations, derivations.id == proofs.derivation_id)
        .outerjoin(schema.revocations, revoked.proof_id == proofs.id)
        .where(
            proofs.entry_id.in_(batch),
            proofs.made_at <= at,
            proofs.valid_until > at,
            revoked.proof_id.is_(None),
        )
    )
    found: dict[str, list[tuple[Proof, Made]]] = {}
    for row in catalog.rows(query):
        *values, recipe = row
        values[4] = Level(values[4])
        proof = Proof(*values)
        made = Made(proof.derivation_id, recipe, proof.environment_id, proof.seconds, ())
        found.setdefault(proof.entry_id, []).append((proof, made))
    for several in found.values():
        if len(several) > 1:
            several.sort(key=lambda pair: pair[0].made_at, reverse=True)
    return found


def _made(
    catalog: Catalog, batch: Sequence[str], proofs: dict[str, list[tuple[Proof, Made]]]
) -> dict[str, Made]:
    """Return the derivation of each entry: the newest proved one, else the last."""
    made = {entry_id: several[0][1] for entry_id, several in proofs.items()}
    derivations, outputs = schema.derivations.c, schema.derivation_outputs.c
    unproved = [entry_id for entry_id in batch if entry_id not in made]
    query = (
        sa.select(
            outputs.entry_id,
            derivations.id,
            derivations.recipe,
            derivations.environment_id,
            derivations.seconds,
        )
        .join(schema.derivations, derivations.id == outputs.derivation_id)
        .where(outputs.entry_id.in_(unproved))
        .order_by(derivations.started_at, derivations.id)
    )
    if unproved:
        made.update({entry_id: Made(*rest, ()) for entry_id, *rest in catalog.rows(query)})
    inputs = _inputs(catalog, {item.id for item in made.values()})
    return {
        entry_id: Made(item.id, item.recipe, item.environment_id, item.seconds, inputs[item.id])
        for entry_id, item in made.items()
    }


def _inputs(catalog: Catalog, derivations: Collection[str]) -> dict[str, tuple[InputRef, ...]]:
    columns = schema.derivation_inputs.c
    found: dict[str, tuple[InputRef, ...]] = defaultdict(tuple)
    for batch in _batches(derivations):
        query = sa.select(
            columns.derivation_id, columns.name, columns.entry_id, columns.path, columns.sha256
        ).where(columns.derivation_id.in_(batch))
        for derivation_id, *values in catalog.rows(query):
            found[derivation_id] += (InputRef(*values),)
    return found


def _batches(keys: Collection[Any]) -> Iterator[list[Any]]:
    waiting = list(keys)
    for start in range(0, len(waiting), _BATCH):
        yield waiting[start : start + _BATCH]
