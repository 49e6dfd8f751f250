"""Running a recipe: inputs recalled, outputs committed with the derivation that made them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.digest.listing import list_folder
from recallfs.digest.stream import digest_file
from recallfs.environment.keeping import keep_environment
from recallfs.errors import ConflictError
from recallfs.recipes.job import Outcome
from recallfs.recipes.outputs import (
    declared_name,
    folder_path,
    is_folder,
)
from recallfs.resolve.commit import commit_outputs
from recallfs.resolve.lease import hold_lease
from recallfs.resolve.orders import Order
from recallfs.resolve.presence import has_bytes, observe, settle
from recallfs.resolve.recall import recall, with_inputs
from recallfs.resolve.reuse import reuse as find_result
from recallfs.resolve.stores import Stores
from recallfs.resolve.tree import forget
from recallfs.resolve.wish import Wish
from recallfs.sources.recompute import run_derivation, run_need
from recallfs.values import Derivation, Entry, OutputRef, State


@dataclass(frozen=True)
class Derived:
    """What running a recipe gave.

    Parameters
    ----------
    outputs : Mapping of str to str
        Address of each output.
    executed : bool
        False if the same derivation had been run before and its outputs still stand.
    seconds : float
        Of the recipe, now or then.
    source : str
        Where the outputs were found, if another computer made them; else empty.
    warnings : tuple of str
        What was amiss with results that were found elsewhere and not taken.
    cpu_seconds, peak_memory_bytes : float, int or None
        What the recipe used, now or then, if that is known.
    """

    outputs: Mapping[str, str]
    executed: bool
    key: str
    seconds: float
    source: str = ""
    warnings: tuple[str, ...] = ()
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None


class _Stop(threading.Event):
    """Set when any of several events is."""

    def __init__(self, *events: threading.Event | None) -> None:
        super().__init__()
        self._events = [event for event in events if event is not None]

    def is_set(self) -> bool:
        return super().is_set() or any(event.is_set() for event in self._events)


def derive(
    stores: Stores,
    recipe_name: str,
    *,
    outputs: Mapping[str, str],
    inputs: Mapping[str, str],
    parameters: Mapping[str, Any],
    wish: Wish | None = None,
    reuse: bool | None = None,
    cancelled: threading.Event | None = None,
) -> Derived:
    """Run a recipe, unless the same derivation was run before.

    Parameters
    ----------
    outputs : Mapping of str to str
        Address of each of the recipe's outputs; all in one store.
    inputs : Mapping of str to str
        Address of each input, in the same store; missing ones are recalled first.
    parameters : Mapping
        JSON values for the recipe's parameters.
    reuse : bool, optional
        Whether to take what the same derivation gave on another computer, if a mirror has it; by
        default as configured. Its bytes are verified, and that they are what the recipe would give
        here is believed; see `recallfs.resolve.reuse`.
    cancelled : threading.Event, optional
        Ends the run soon after it is set.

    Raises
    ------
    ConflictError
        If something is at an output's path that this derivation did not make.
    RecomputeError
        The recipe failed, or an output would be made from itself (kind ``cycle``).
    """
    settings = stores.config.recipes
    order = Order.place(stores, recipe_name, outputs, parameters)
    store, targets = order.store, order.targets
    is_reusing = settings.reuse if reuse is None else reuse

    def bring(entry: Entry) -> None:
        # Who reuses a result may need no input; what is here is looked at all the same.
        if not is_reusing or settle(store, entry) not in (State.RELEASED, State.MISSING):
            recall(stores, store, entry.path, wish)

    bound = order.bind(stores, inputs, bring)
    key = bound.key
    with hold_lease(store.catalog, f"derivation:{store.id}:{key}", lambda: False) as grant:
        earlier = _earlier(store, key)
        if earlier is not None:
            return earlier
        for name, path in targets.items():
            _make_room(store, path, key, is_folder=is_folder(name))
        derivation = bound.begin(threads=settings.threads)
        lost = _Stop(grant.lost if grant else None, cancelled)
        wish = wish or Wish()
        warnings: list[str] = []
        if is_reusing:
            start = time.monotonic()
            source, warnings = find_result(stores, order, derivation, wish=wish, cancelled=lost)
            if source:
                seconds = time.monotonic() - start
                return Derived(order.urls, False, key, seconds, source, tuple(warnings))
        made = _run(stores, order, derivation, wish=wish, cancelled=lost)
        return replace(made, warnings=tuple(warnings))


def _run(
    stores: Stores,
    order: Order,
    derivation: Derivation,
    *,
    wish: Wish,
    cancelled: threading.Event | None,
) -> Derived:
    store, targets = order.store, order.targets
    # What is in a folder is known when it is written; until then its name stands for it.
    derivation = replace(derivation, outputs=tuple(OutputRef(name, "") for name in targets))
    with store.staging() as scratch:
        start = time.monotonic()

        def run(inputs: Mapping[str, Path]) -> tuple[dict[str, Path], Outcome]:
            settings = stores.config.recipes
            return run_derivation(
                store,
                derivation,
                inputs,
                scratch,
                settings=settings,
                cancelled=cancelled,
                is_new=True,
            )

        files, outcome = with_inputs(
            stores,
            store,
            derivation.inputs,
            run,
            need=run_need(store, derivation),
            scratch=scratch,
            wish=wish,
            cancelled=cancelled,
        )
        made = {name: (file, digest_file(file)) for name, file in files.items()}
        commit_outputs(store, _as_it_ran(store, derivation, outcome), targets, made)
    return Derived(
        order.urls,
        True,
        derivation.key,
        time.monotonic() - start,
        cpu_seconds=outcome.cpu_seconds,
        peak_memory_bytes=outcome.peak_memory_bytes,
    )


def _as_it_ran(store: Store, derivation: Derivation, outcome: Outcome) -> Derivation:
    """Add to the record of a run what it ran in, and what it took."""
    return replace(
        derivation,
        environment_id=keep_environment(store, outcome.environment),
        seconds=outcome.seconds,
        code=records.save_code(store, outcome.code),
        cpu_seconds=outcome.cpu_seconds,
        peak_memory_bytes=outcome.peak_memory_bytes,
    )


def foresee(
    stores: Stores,
    recipe_name: str,
    *,
    outputs: Mapping[str, str],
    inputs: Mapping[str, str],
    parameters: Mapping[str, Any],
    is_coming: Callable[[Store, str], bool] = lambda _store, _path: False,
) -> Derived | None:
    """Find out what speaks against a run, without running or changing anything.

    Parameters
    ----------
    outputs, inputs, parameters
        As for `derive`.
    is_coming : callable
        Tells of an input that is not on record whether it will be, made by another run.

    Returns
    -------
    Derived or None
        What the same derivation made before; None if it is yet to be run, or if that cannot be
        known before its inputs are made.

    Raises
    ------
    RecallError
        What `derive` would raise before it runs anything.
    """
    order = Order.place(stores, recipe_name, outputs, parameters)
    there = {}
    for name, address in inputs.items():
        owner, path = stores.resolve(address)
        if owner.catalog.entry_at(path) is not None or not is_coming(owner, path):
            there[name] = address
    bound = order.bind(stores, there)
    if len(there) < len(inputs) or not all(item.sha256 for item in bound.inputs):
        return None
    earlier = _earlier(order.store, bound.key)
    if earlier is None:
        for name, path in order.targets.items():
            if not is_folder(name):
                _check_room(order.store, path, bound.key)
    return earlier


def _earlier(store: Store, key: str) -> Derived | None:
    """Find the outputs of the same derivation, if all of them still stand."""
    entries: dict[str, Entry] = {}
    outputs = store.catalog.outputs_for_key(key)
    for name, entry_id in outputs.items():
        entry = store.catalog.entry(entry_id)
        if entry is None or entry.state not in (State.RESIDENT, State.RELEASED, State.MISSING):
            return None
        entries[name] = entry
    if not entries:
        return None
    record = records.load(store, next(iter(entries.values())).id)
    made = next((item for item in record.derivations if item.key == key), None)
    urls = {
        declared_name(name): store.url(folder_path(name, entry.path))
        for name, entry in entries.items()
    }
    if made is None:
        return Derived(urls, False, key, 0.0)
    return Derived(
        urls,
        False,
        key,
        made.seconds,
        cpu_seconds=made.cpu_seconds,
        peak_memory_bytes=made.peak_memory_bytes,
    )


def _make_room(store: Store, path: str, key: str, *, is_folder: bool) -> None:
    """Refuse a path that is taken, unless by what a killed run of this derivation left."""
    place = store.locate(path)
    if is_folder:
        for entry in list(store.catalog.entries_below(path)):
            _make_room(store, entry.path, key, is_folder=False)
    if is_folder and place.is_dir() and not place.is_symlink():
        if list_folder(place):
            raise ConflictError(
                f"the folder {store.url(path)} has files that this derivation did not make; "
                "choose another path or remove them first.",
                details={"path": path},
            )
        return
    if _check_room(store, path, key):
        forget(store, path)


def _check_room(store: Store, path: str, key: str) -> bool:
    """Refuse a path that is taken; tell whether a killed run of this derivation left a file."""
    known = store.catalog.entry_at(path)
    if known is not None and _is_leftover(store, known, key):
        return True
    if known is not None or has_bytes(store.locate(path)):
        what = f"is an entry already ({known.state.value})" if known else "is a file already"
        raise ConflictError(
            f"{store.url(path)} {what}, and this derivation did not make it; choose another path "
            "or remove it first.",
            details={"path": path},
        )
    return False


def _is_leftover(store: Store, entry: Entry, key: str) -> bool:
    """Tell whether an entry is one of several outputs of a derivation, and nothing rests on it.

    Its bytes must be as they were made: what somebody changed, proved or released is theirs.
    """
    record = records.load(store, entry.id)
    return (
        any(derivation.key == key for derivation in record.derivations)
        and observe(store, entry) is State.RESIDENT
        and not record.proofs
        and not store.catalog.dependents(entry)
    )
