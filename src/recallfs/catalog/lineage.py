"""What files were made from and what was made from them; and what recipes made and what it cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from recallfs.catalog import schema
from recallfs.catalog.database import Catalog
from recallfs.catalog.statistics import Amount
from recallfs.values import canonical_json

_PAGE_ROWS = 5000


class Made(NamedTuple):
    """A derivation, with its files by the name that they have in it: entry ids and paths."""

    id: str
    recipe: str
    version: str
    parameters: dict[str, Any]
    inputs: dict[str, tuple[str, str]]


def maker(catalog: Catalog, entry_id: str) -> Made | None:
    """Return the newest derivation that made an entry, or None."""
    derivations, outputs = schema.derivations.c, schema.derivation_outputs.c
    query = (
        sa.select(schema.derivations)
        .join(schema.derivation_outputs, outputs.derivation_id == derivations.id)
        .where(outputs.entry_id == entry_id)
        .order_by(derivations.started_at.desc(), derivations.id)
        .limit(1)
    )
    for row in catalog.rows(query):
        inputs = schema.derivation_inputs.c
        named = sa.select(inputs.name, inputs.entry_id, inputs.path).where(
            inputs.derivation_id == row.id
        )
        return Made(
            row.id,
            row.recipe,
            row.version,
            dict(json.loads(row.parameters)),
            {item.name: (item.entry_id, item.path) for item in catalog.rows(named)},
        )
    return None


def made_from(catalog: Catalog, entry_id: str) -> list[str]:
    """Return the ids of the entries that stand at a path and were made from this one, by path."""
    inputs, outputs, paths = (
        schema.derivation_inputs.c,
        schema.derivation_outputs.c,
        schema.paths.c,
    )
    query = (
        sa.select(paths.entry_id, paths.path)
        .join(schema.derivation_outputs, outputs.entry_id == paths.entry_id)
        .join(schema.derivation_inputs, inputs.derivation_id == outputs.derivation_id)
        .where(inputs.entry_id == entry_id, paths.store_id == catalog.store_id)
        .distinct()
        .order_by(paths.path)
    )
    return [row.entry_id for row in catalog.rows(query)]


@dataclass
class Work:
    """What one recipe, or one value of a parameter, made and what it cost.

    Parameters
    ----------
    states : dict of str to Amount
        Files by recorded state.
    runs : int
        Derivations of which a file still stands at its path.
    seconds, cpu_seconds : float
        Of all of these runs; processor time of those of which it is known.
    unknown_costs : int
        Runs of which processor time is not known, such as those of adopted files.
    peak_memory_bytes : int
        Of the run that took the most.
    """

    states: dict[str, Amount] = field(default_factory=dict)
    runs: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    unknown_costs: int = 0
    peak_memory_bytes: int = 0

    def add(self, other: Work) -> None:
        """Add what was made elsewhere."""
        for state, item in other.states.items():
            before = self.states.get(state, Amount(0, 0))
            self.states[state] = Amount(
                before.files + item.files, before.size_bytes + item.size_bytes
            )
        self.runs += other.runs
        self.seconds += other.seconds
        self.cpu_seconds += other.cpu_seconds
        self.unknown_costs += other.unknown_costs
        self.peak_memory_bytes = max(self.peak_memory_bytes, other.peak_memory_bytes)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            **vars(self),
            "states": {
                state: {"files": item.files, "size_bytes": item.size_bytes}
                for state, item in sorted(self.states.items())
            },
        }


def work_by(catalog: Catalog, parameter: str | None = None) -> dict[tuple[str, str], Work]:
    """Add up files and costs by recipe, and by the value of a parameter if one is named.

    Returns
    -------
    dict of (recipe, value) to Work
        Sorted; `value` is JSON, and empty without a parameter. Recipes without that parameter are
        left out. A file that several derivations made is the last one's.

    Notes
    -----
    Reads a page of derivations at a time, so that it takes little memory; a million files take
    some ten seconds.
    """
    found: dict[tuple[str, str], Work] = {}
    for row, is_new in _outputs(catalog):
        value = ""
        if parameter is not None:
            parameters = json.loads(row.parameters)
            if parameter not in parameters:
                continue
            value = canonical_json(parameters[parameter]).decode()
        work = found.setdefault((row.recipe, value), Work())
        before = work.states.get(row.state, Amount(0, 0))
        work.states[row.state] = Amount(before.files + 1, before.size_bytes + row.size_bytes)
        if is_new:
            work.runs += 1
            work.seconds += row.seconds
            work.cpu_seconds += row.cpu_seconds or 0.0
            work.unknown_costs += row.cpu_seconds is None
            work.peak_memory_bytes = max(work.peak_memory_bytes, row.peak_memory_bytes or 0)
    return dict(sorted(found.items()))


def _outputs(catalog: Catalog) -> Iterator[tuple[Any, bool]]:
    """Iterate over the files that recipes made; of each run's first one tell that it is that."""
    derivations, outputs, paths = (
        schema.derivations.c,
        schema.derivation_outputs.c,
        schema.paths.c,
    )
    later_outputs = schema.derivation_outputs.alias()
    later = schema.derivations.alias()
    is_superseded = (
        sa.exists()
        .where(
            later_outputs.c.entry_id == outputs.entry_id,
            later.c.id == later_outputs.c.derivation_id,
            later.c.started_at > derivations.started_at,
        )
        .correlate(schema.derivation_outputs, schema.derivations)
    )
    query = (
        sa.select(
            derivations.id,
            derivations.recipe,
            derivations.parameters,
            derivations.seconds,
            derivations.cpu_seconds,
            derivations.peak_memory_bytes,
            outputs.name,
            paths.state,
            paths.size_bytes,
        )
        .join(schema.derivation_outputs, outputs.derivation_id == derivations.id)
        .join(schema.paths, paths.entry_id == outputs.entry_id)
        .where(paths.store_id == catalog.store_id, ~is_superseded)
        .order_by(derivations.id, outputs.name)
        .limit(_PAGE_ROWS)
    )
    last: tuple[str, str] | None = None
    while True:
        page = query
        if last is not None:
            after = sa.and_(derivations.id == last[0], outputs.name > last[1])
            page = query.where(sa.or_(derivations.id > last[0], after))
        rows = catalog.rows(page)
        for row in rows:
            yield row, last is None or row.id != last[0]
            last = row.id, row.name
        if len(rows) < _PAGE_ROWS:
            return
