"""What the catalog says of many files at once, for a release that is drawn up.

The sidecars are the evidence; each file that is then released is judged by its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from recallfs.catalog import schema
from recallfs.catalog.database import Catalog
from recallfs.catalog.standing import read_inputs, read_standing
from recallfs.catalog.view import below
from recallfs.values import InputRef, Level, State

_BATCH = 500
_LEVELS = {level.value: level for level in Level}


class Counted(NamedTuple):
    """A proof that counts."""

    id: str
    environment_id: str
    level: Level
    method: str
    made_at: str
    seconds: float


class Listed(NamedTuple):
    """A file as the catalog has it, with what a recall of it would run.

    Parameters
    ----------
    device, inode, seen_size_bytes, seen_mtime_ns, seen_ctime_ns : int or None
        Of the file when its digests were last known to be right. Device and inode as the column
        holds them: the upper half of their range is folded into the negative numbers.
    kept_bytes : int or None
        Of skeleton and residual; None if only the sidecar says.
    recalled_at : str or None
        ISO time; None for never.
    proof_id, level, method, made_at
        Of the newest proof that was valid at the time asked about; None if there is none.
    environment_id, seconds, recipe
        Of that proof, else of the run that was recorded; None if there is neither.
    inputs : tuple of InputRef
        Of that derivation, by name. Those that are the same are one object.
    others : tuple of Counted
        Further valid proofs, newest first.
    """

    path: str
    id: str
    state: str
    size_bytes: int
    sha256: str
    mtime_ns: int
    device: int | None
    inode: int | None
    seen_size_bytes: int | None
    seen_mtime_ns: int | None
    seen_ctime_ns: int | None
    is_pinned: bool
    kept_bytes: int | None
    recalled_at: str | None
    proof_id: str | None
    environment_id: str | None
    level: str | None
    method: str | None
    made_at: str | None
    seconds: float | None
    recipe: str | None
    inputs: tuple[InputRef, ...]
    others: tuple[Counted, ...] = ()

    @property
    def proofs(self) -> tuple[Counted, ...]:
        """All valid proofs, newest first."""
        if self.proof_id is None:
            return ()
        return (_counted(self), *self.others)


def listing(catalog: Catalog, entry_ids: Collection[str], at: str) -> dict[str, Listed]:
    """Return what is indexed of entries that stand at a path, by id; perhaps of others as well.

    Parameters
    ----------
    at : str
        ISO time at which a proof must be valid.

    Notes
    -----
    One query for each 500 entries, or one in all. Of entries whose newest proof is not the only
    one, or does not count, further tables are asked.
    """
    batches: list[sa.ColumnElement[bool]] = [_of(batch) for batch in _batches(entry_ids)]
    if len(batches) > 1 and _is_most(catalog, len(entry_ids)):
        # Of most of a store, what is not asked for costs less than to name all that is.
        batches = [_in_store(catalog)]
    return {item.id: item for item in _listed(catalog, batches, at)}


def listed_below(catalog: Catalog, folder: str, at: str) -> list[Listed]:
    """Return what is indexed of all entries at or below a folder, in path order.

    Parameters
    ----------
    at : str
        ISO time at which a proof must be valid.
    """
    here = below(folder) if folder else sa.true()
    wanted = schema.paths.c.store_id == catalog.store_id
    if catalog.is_file and _is_most(catalog, _count(catalog, here)):
        wanted = _in_store(catalog)
    return sorted(_listed(catalog, [sa.and_(wanted, here)], at))  # text sorts as its UTF-8 does


def released_from(catalog: Catalog, entries: Collection[Listed]) -> dict[str, list[str]]:
    """Return the paths of released files that are made from each entry or from the same bytes."""
    released = _count(catalog, schema.paths.c.state == State.RELEASED.value)
    if not released:
        return {}
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


class _Shared:
    """Inputs of derivations, of which files that are made from the same have the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[InputRef, ...]] = {(): ()}
        self._more: dict[tuple[int, tuple[Any, ...]], tuple[InputRef, ...]] = {}
        self._sorted: dict[tuple[InputRef, ...], tuple[InputRef, ...]] = {}
        self.spelled = _Spelled(self)

    def one(self, values: tuple[Any, ...]) -> tuple[InputRef, ...]:
        """Return a single input."""
        inputs = self._known.get(values)
        if inputs is None:
            name, entry_id, path, sha256 = values
            inputs = () if name is None else (InputRef(name, entry_id, path, sha256),)
            self._known[values] = inputs
        return inputs

    def more(self, inputs: tuple[InputRef, ...], values: tuple[Any, ...]) -> tuple[InputRef, ...]:
        """Return inputs with one more. The objects live on, so that each has an `id` of its own."""
        key = (id(inputs), values)
        if key not in self._more:
            self._more[key] = self.in_order((*inputs, *self.one(values)))
        return self._more[key]

    def in_order(self, inputs: tuple[InputRef, ...]) -> tuple[InputRef, ...]:
        """Sort by name: a server gives the rows of a derivation in any order."""
        if len(inputs) > 1:
            inputs = tuple(sorted(inputs, key=lambda each: each.name))
        return self._sorted.setdefault(inputs, inputs)


class _Spelled(dict[str, tuple[InputRef, ...]]):
    """Inputs by the text that is kept of them."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared

    def __missing__(self, text: str) -> tuple[InputRef, ...]:
        inputs = self[text] = self._shared.in_order(read_inputs(text))
        return inputs


def _listed(catalog: Catalog, batches: Collection[sa.ColumnElement[bool]], at: str) -> list[Listed]:
    """Return what is indexed of the entries of which conditions hold."""
    shared = _Shared()
    found: list[Listed] = []
    rest: list[str] = []
    quick = _quick_query(catalog)
    for condition in batches:
        plain, more = catalog.folded(
            quick.where(condition), lambda rows: _read_quickly(rows, at, shared)
        )
        found += plain
        rest += more
    closely: dict[str, Listed] = {}
    several = len(rest) > _BATCH and _is_most(catalog, len(rest))
    query = _query(catalog, at)
    for condition in batches if several else map(_of, _batches(rest)):
        closely.update(catalog.folded(query.where(condition), lambda rows: _gathered(rows, shared)))
    if several:
        closely = {entry_id: closely[entry_id] for entry_id in rest if entry_id in closely}
    unproved = [item.id for item in closely.values() if item.proof_id is None]
    for batch in _batches(unproved):
        _add_runs(catalog, batch, closely, shared)
    found += closely.values()
    return found


def _of(entry_ids: Sequence[str]) -> sa.ColumnElement[bool]:
    return schema.paths.c.entry_id.in_(entry_ids)


def _in_store(catalog: Catalog) -> sa.ColumnElement[bool]:
    """Tell whether a row is of this store, where most of the rows are asked for."""
    # To find them SQLite would go through an index, and from there all over the table.
    column = sa.literal_column("+paths.store_id") if catalog.is_file else schema.paths.c.store_id
    return column == sa.bindparam("store_id", catalog.store_id)


def _is_most(catalog: Catalog, count: int) -> bool:
    return count * 2 > _count(catalog)


def _count(catalog: Catalog, *conditions: sa.ColumnElement[bool]) -> int:
    """Return how many entries stand at paths of a store, or at those of which conditions hold."""
    query = sa.select(sa.func.count()).select_from(schema.paths)
    wanted = schema.paths.c.store_id == catalog.store_id
    return int(catalog.rows(query.where(wanted, *conditions))[0][0])


def _seen(catalog: Catalog) -> list[sa.ColumnElement[Any]]:
    """Return the columns from `path` to `recalled_at` of a `Listed`, but for the digest."""
    paths = schema.paths.c
    return [
        _plain(catalog, paths.path),
        paths.entry_id,
        paths.state,
        paths.size_bytes,
        paths.mtime_ns,
        sa.type_coerce(paths.device, sa.BigInteger),
        sa.type_coerce(paths.inode, sa.BigInteger),
        paths.seen_size_bytes,
        paths.seen_mtime_ns,
        paths.seen_ctime_ns,
        sa.type_coerce(paths.is_pinned, sa.Integer),
        paths.kept_bytes,
        schema.accesses.c.last_at,
    ]


def _plain(catalog: Catalog, path: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """Ask for a path without a conversion where it is kept as the text that it is."""
    return sa.type_coerce(path, sa.String) if catalog.is_file else path


def _quick_query(catalog: Catalog) -> sa.Select[Any]:
    """Ask for entries, with what is kept at their paths of their newest proofs."""
    paths = schema.paths.c
    return (
        sa.select(
            *_seen(catalog),
            sa.type_coerce(paths.standing, sa.Text),
            sa.type_coerce(paths.made_from, sa.Text),
        )
        .select_from(schema.paths)
        .outerjoin(schema.accesses, schema.accesses.c.entry_id == paths.entry_id)
    )


def _read_quickly(rows: Iterator[Any], at: str, shared: _Shared) -> tuple[list[Listed], list[str]]:
    """Return the entries of which one proof counts, and the ids of the others."""
    found: list[Listed] = []
    rest: list[str] = []
    # What `Listed` does, of which there is one call for each of so many files.
    new, spelled = tuple.__new__, shared.spelled
    for (
        path, entry_id, state, size, mtime, device, inode, seen_size, seen_mtime, seen_ctime,
        is_pinned, kept, recalled_at, standing, made_from,
    ) in rows:  # fmt: skip
        if standing is None:
            rest.append(entry_id)
            continue
        (
            sha256, proof, environment, level, method, made_at, until, seconds, recipe, others,
        ) = read_standing(standing)  # fmt: skip
        inputs = spelled[made_from]
        if not proof:
            found.append(Listed(
                path, entry_id, state, size, sha256, mtime, device, inode, seen_size, seen_mtime,
                seen_ctime, is_pinned, kept, recalled_at, None, environment or None, None, None,
                None, float(seconds) if recipe else None, recipe or None, inputs,
            ))  # fmt: skip
            continue
        if made_at > at or until <= at or others > at:
            rest.append(entry_id)
            continue
        found.append(new(Listed, (
            path, entry_id, state, size, sha256, mtime, device, inode, seen_size, seen_mtime,
            seen_ctime, is_pinned, kept, recalled_at, proof, environment, level, method, made_at,
            float(seconds), recipe, inputs, (),
        )))  # fmt: skip
    return found, rest


def _query(catalog: Catalog, at: str) -> sa.Select[Any]:
    """Ask for entries, with their valid proofs and the inputs of these, of all at once."""
    paths, entries = schema.paths.c, schema.entries.c
    proofs, derivations, inputs = (
        schema.proofs.c,
        schema.derivations.c,
        schema.derivation_inputs.c,
    )
    seen = _seen(catalog)
    is_valid = sa.and_(
        proofs.entry_id == paths.entry_id,
        proofs.made_at <= at,
        proofs.valid_until > at,
        ~sa.exists().where(schema.revocations.c.proof_id == proofs.id),
    )
    return (
        sa.select(
            *seen[:4],
            entries.sha256,
            *seen[4:],
            proofs.id,
            proofs.environment_id,
            proofs.level,
            proofs.method,
            proofs.made_at,
            proofs.seconds,
            derivations.recipe,
            inputs.name,
            inputs.entry_id,
            _plain(catalog, inputs.path),
            inputs.sha256,
        )
        .select_from(schema.paths)
        .join(schema.entries, entries.id == paths.entry_id)
        .outerjoin(schema.accesses, schema.accesses.c.entry_id == paths.entry_id)
        .outerjoin(schema.proofs, is_valid)
        .outerjoin(schema.derivations, derivations.id == proofs.derivation_id)
        .outerjoin(schema.derivation_inputs, inputs.derivation_id == proofs.derivation_id)
    )


def _gathered(rows: Iterator[Any], shared: _Shared) -> dict[str, Listed]:
    """Put rows together: one comes for each proof of a file and each input of that."""
    found: dict[str, Listed] = {}
    several: dict[str, dict[str, Listed]] = {}
    # What `_make` does, of which there is one call for each of so many files.
    new, one = tuple.__new__, shared.one
    for row in rows:
        entry_id = row[1]
        known = found.get(entry_id)
        if known is None:
            found[entry_id] = new(Listed, (*row[:21], one(row[21:]), ()))
            continue
        if entry_id not in several:
            several[entry_id] = {str(known.proof_id): known}
        proofs = several[entry_id]
        proof_id = row[14]
        if proof_id in proofs:
            inputs = shared.more(proofs[proof_id].inputs, row[21:])
            proofs[proof_id] = proofs[proof_id]._replace(inputs=inputs)
        else:
            proofs[proof_id] = new(Listed, (*row[:21], one(row[21:]), ()))
    for entry_id, proofs in several.items():
        newest, *others = sorted(
            proofs.values(), key=lambda each: (each.made_at, each.proof_id), reverse=True
        )
        found[entry_id] = newest._replace(others=tuple(map(_counted, others)))
    return found


def _add_runs(
    catalog: Catalog, batch: Sequence[str], found: dict[str, Listed], shared: _Shared
) -> None:
    """Add to entries that have no valid proof what their last recorded run was."""
    derivations, outputs = schema.derivations.c, schema.derivation_outputs.c
    inputs = schema.derivation_inputs.c
    query = (
        sa.select(
            outputs.entry_id,
            derivations.id,
            derivations.environment_id,
            derivations.seconds,
            derivations.recipe,
            inputs.name,
            inputs.entry_id,
            inputs.path,
            inputs.sha256,
        )
        .select_from(schema.derivation_outputs)
        .join(schema.derivations, derivations.id == outputs.derivation_id)
        .outerjoin(schema.derivation_inputs, inputs.derivation_id == derivations.id)
        .where(outputs.entry_id.in_(batch))
        .order_by(derivations.started_at, derivations.id)
    )
    last: dict[str, str] = {}
    for row in catalog.rows(query):
        entry_id, derivation_id, environment, seconds, recipe = row[:5]
        before = found[entry_id].inputs if last.get(entry_id) == derivation_id else ()
        last[entry_id] = derivation_id
        found[entry_id] = found[entry_id]._replace(
            environment_id=environment,
            seconds=seconds,
            recipe=recipe,
            inputs=shared.more(before, row[5:]) if before else shared.one(row[5:]),
        )


def _counted(item: Listed) -> Counted:
    return Counted(
        str(item.proof_id),
        str(item.environment_id),
        _LEVELS[str(item.level)],
        str(item.method),
        str(item.made_at),
        item.seconds or 0.0,
    )


def _batches(keys: Collection[str]) -> Iterator[list[str]]:
    waiting = list(keys)
    for start in range(0, len(waiting), _BATCH):
        yield waiting[start : start + _BATCH]
