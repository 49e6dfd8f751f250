"""Environments tried in turn, until one gives a file back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.environment.compare import Difference, compare, is_same
from recallfs.environment.interpreter import find_interpreter, label_of
from recallfs.errors import ConflictError, EnvironmentMismatchError, RecallError
from recallfs.release.proof import Proved, prove
from recallfs.resolve.environments import wanted_environment
from recallfs.resolve.stores import Stores
from recallfs.resolve.wish import Wish
from recallfs.sources.recompute import recorded_environment
from recallfs.values import Entry, Level, now_utc


@dataclass(frozen=True)
class Tried:
    """One environment, and what came of it.

    Parameters
    ----------
    label, identifier : str
        Of the environment on record.
    error : RecallError, optional
        Why it was not tried, or how the proof failed.
    proved : Proved, optional
        The proof, if it matched.
    differences : tuple of Difference
        In what it differs from the one that matched; empty if none did.
    """

    label: str
    identifier: str
    seconds: float = 0.0
    error: RecallError | None = None
    proved: Proved | None = None
    differences: tuple[Difference, ...] = ()


def try_environments(
    stores: Stores,
    store: Store,
    entry: Entry,
    names: Sequence[str] = (),
    wish: Wish | None = None,
    *,
    hiding: str = "namespace",
    level: Level | None = None,
) -> list[Tried]:
    """Prove a file in one environment after the other, until a proof is made.

    Parameters
    ----------
    names : sequence of str
        Labels, digests, or paths of interpreters, as `wanted_environment` takes them, tried in
        this order; by default all on record in the store: that of the
        file first, then the others, the newest first.
    hiding, level
        As for `recallfs.release.proof.prove`.

    Returns
    -------
    list of Tried
        All that were tried; a proof can only be in the last one. Those that cannot be started are
        among them, without a run.

    Raises
    ------
    ConflictError
        No recipe is on record (kind ``unproved``), or the original is not here as it was recorded.
    InvalidInputError
        No environment goes by a name.
    EnvironmentMismatchError
        What is at a path that was given is no interpreter that has recallfs.
    """
    record = records.load(store, entry.id)
    derivation = record.derivation(now_utc())
    if derivation is None:
        raise ConflictError(
            f"no recipe is on record for {store.url(entry.path)}; `recall adopt` records one.",
            kind="unproved",
        )
    wanted = [wanted_environment(store, name, stores.config.recipes) for name in names]
    known = records.environments(store)
    if not wanted:
        own = recorded_environment(record, derivation)
        wanted = [own, *sorted(known, key=lambda key: _age(store, key))]
    tried: list[Tried] = []
    for identifier, taken_by in _one_each(stores, store, wanted):
        label = label_of(identifier, known.get(identifier, {}))
        start = time.monotonic()
        try:
            if taken_by:
                raise _changed_since(store, identifier, label_of(taken_by, known[taken_by]))
            proved = prove(
                stores, store, entry, wish, hiding=hiding, level=level, environment=identifier
            )
        except ConflictError:
            raise  # the original is not here: no environment helps
        except RecallError as error:
            tried.append(Tried(label, identifier, time.monotonic() - start, error))
        else:
            tried.append(Tried(label, identifier, time.monotonic() - start, proved=proved))
            return _compared(store, tried, proved)
    return tried


def _age(store: Store, identifier: str) -> float:
    return -store.environment_path(identifier).stat().st_mtime


def _one_each(stores: Stores, store: Store, wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pair each environment with that which was run by the same interpreter before, or nothing.

    Where packages were changed in place, one interpreter stands for several records; what it gives
    now it gives for each of them. Those that tell of one environment are one.
    """
    runs: dict[tuple[Path, Path], str] = {}
    for identifier in dict.fromkeys(wanted):
        python = find_interpreter(store, identifier, stores.config.environments.folder)
        if python is None:
            yield identifier, ""
            continue
        place = (python.parent, python.resolve())  # it goes by several names there
        if place in runs:
            ran = records.environment(store, runs[place])
            if not is_same(ran, records.environment(store, identifier)):
                yield identifier, runs[place]
        else:
            runs[place] = identifier
            yield identifier, ""


def _changed_since(store: Store, identifier: str, label: str) -> EnvironmentMismatchError:
    name = label_of(identifier, records.environment(store, identifier))
    return EnvironmentMismatchError(
        f"the environment {name} was changed in place: its interpreter is that of {label}, which "
        f"was tried; `recall env restore {name}` builds it as it was.",
        details={"environment": identifier, "label": name},
    )


def _compared(store: Store, tried: Sequence[Tried], proved: Proved) -> list[Tried]:
    """Say of each environment in what it differs from the one that matched."""
    matched = records.environment(store, proved.proof.environment_id)
    return [
        each
        if each.proved
        else replace(
            each,
            differences=tuple(compare(records.environment(store, each.identifier), matched)),
        )
        for each in tried
    ]
