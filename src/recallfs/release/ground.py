"""What released files rest on: inputs, recipes and environments, down to bytes that stay here."""

from __future__ import annotations

from collections.abc import Callable

from recallfs.catalog import changes, records
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.resolve.inputs import entries_of_input
from recallfs.resolve.presence import settle
from recallfs.values import InputRef, State

CanRun = Callable[[str, str], str]
"""Given a recipe and the id of an environment, says why it cannot run there; empty if it can."""


class Ground:
    """What entries rest on, down to bytes that stay where they are.

    Parameters
    ----------
    now : str
        ISO time at which proofs have to be valid.
    can_run : callable, optional
        Without it recipes and environments are taken to be there: starting one takes too long where
        locks are held.

    Notes
    -----
    An input that is resident is safe for as long as a released file rests on it: like a pinned one,
    recallfs itself neither releases nor forgets it.
    """

    def __init__(self, store: Store, now: str, can_run: CanRun | None = None) -> None:
        self._store = store
        self._now = now
        self._can_run = can_run
        self._leaving = changes.leaving(store)

    def is_resident(self, item: InputRef, visiting: frozenset[str]) -> bool:
        """Tell whether an input's bytes are here and nobody is about to take them away."""
        return any(
            entry.id not in visiting
            and entry.id not in self._leaving
            and settle(self._store, entry, note=False) is State.RESIDENT
            for entry in entries_of_input(self._store, item)
        )

    def loss(self, item: InputRef, visiting: frozenset[str]) -> str:
        """Say why an input that is not resident cannot be brought back; empty if it can."""
        why = "its bytes are in the store under no name"
        for entry in entries_of_input(self._store, item):
            if entry.id in visiting or self._leaving.get(entry.id) not in (None, "release"):
                continue
            gap = self.gap(records.load(self._store, entry.id), visiting)
            if not gap:
                return ""
            why = gap
        return why

    def gap(self, record: Record, visiting: frozenset[str] = frozenset()) -> str:
        """Say where the evidence of a record breaks off, from its proof down to resident inputs.

        Returns
        -------
        str
            Empty if it holds.
        """
        if record.release is not None and record.release.evidence == "copies":
            return ""
        derivation, proofs = record.derivation(self._now), record.valid_proofs(self._now)
        if derivation is None or not proofs:
            return "it has no valid proof"
        if self._can_run is not None:
            problem = self._can_run(derivation.recipe, proofs[0].environment_id)
            if problem:
                return problem
        # What is about to be released itself does not hold anything up.
        visiting = visiting | {record.entry.id}
        for item in derivation.inputs:
            if not self.is_resident(item, visiting):
                loss = self.loss(item, visiting)
                if loss:
                    return f"it rests on {self._store.url(item.path)}: {loss}"
        return ""
