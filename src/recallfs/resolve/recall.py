"""Bringing a file back: take the lease, ask the sources in order, verify, commit, record."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from recallfs.atomic import fault_point
from recallfs.catalog import audit, records
from recallfs.catalog.changes import PATIENCE_S
from recallfs.catalog.holder import Holder, user_name
from recallfs.catalog.store import Store
from recallfs.digest.stream import digest_file
from recallfs.errors import (
    AccessError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotRecallableError,
    RecallError,
    RecomputeError,
    SourceError,
)
from recallfs.resolve.access import check_reader
from recallfs.resolve.answers import all_failed, conflict
from recallfs.resolve.budget import hold_slot
from recallfs.resolve.caching import cache_for, find_cached, is_shared
from recallfs.resolve.chain import EVERY_SOURCE, chain_for, inquire
from recallfs.resolve.commit import commit_recalled, keep_rejected
from recallfs.resolve.inputs import entries_of_input, was_released
from recallfs.resolve.inquiry import answer_key
from recallfs.resolve.lease import Grant, hold_lease
from recallfs.resolve.presence import has_bytes, settle
from recallfs.resolve.stores import Stores
from recallfs.resolve.telling import announcement, tell_fetch, tell_recall, warn_of_liars
from recallfs.resolve.together import (
    CommitOther,
    RunElsewhereError,
    commit_other,
    commit_others,
    run_alone,
    shared_run,
)
from recallfs.resolve.turns import first_in_process
from recallfs.resolve.wish import Recalled, Wish
from recallfs.sources.base import (
    Fetched,
    Need,
    Offer,
    RemoteSource,
    Request,
    Source,
)
from recallfs.sources.recompute import RecomputeSource
from recallfs.transfer.partial import sweep
from recallfs.values import Digests, Entry, InputRef, Level, State

_Result = TypeVar("_Result")

_ANSWERS = (IntegrityError, NotRecallableError, SourceError, RecomputeError, AccessError)
"""Errors of a source after which the next one is asked."""

_POLL_S = 0.01

_ATTEMPTS = 3
"""How often work starts over because an input was released before it could be read."""


def recall(stores: Stores, store: Store, path: str, wish: Wish | None = None) -> Recalled:
    """Make sure that a file is at its path, bringing it back if need be.

    Raises
    ------
    InvalidInputError
        Kind ``unknown-entry``; also for a file that is not here, in a recipe that runs.
    AccessError
        The caller could not have read the file.
    ConflictError
        Dirty, or occupied by something else.
    NotRecallableError, SourceError, IntegrityError, RecomputeError
        No source gave the bytes; ``details['answers']`` holds what each one said.
    """
    give_up = time.monotonic() + PATIENCE_S
    while True:
        entry = records.known_entry(store, path)
        try:
            return _recall(stores, store, entry, wish or Wish())
        except RunElsewhereError as run:
            # Waited for without this file's lease, so that whoever runs it can put the file here.
            place = store.root / entry.path
            with hold_lease(store.catalog, run.key, lambda: has_bytes(place)):  # noqa: B023 - called within this turn
                give_up = time.monotonic() + PATIENCE_S
        except (IntegrityError, ConflictError, NotRecallableError):
            if time.monotonic() > give_up or not _is_being_changed(store, entry):
                raise
            time.sleep(_POLL_S)


def _is_being_changed(store: Store, entry: Entry) -> bool:
    """Tell whether somebody writes over, moves or forgets a file, or did while we looked at it."""
    is_claimed = any(
        (entry.id == intent.entry_id or entry.path == intent.claimed_path)
        and not Holder.parse(intent.holder).is_known_dead()
        for intent in store.catalog.intents()
    )
    # In this order: what is no longer claimed is done, and then it shows here.
    now = store.catalog.entry_at(entry.path)
    return is_claimed or now is None or now.id != entry.id


def _recall(stores: Stores, store: Store, entry: Entry, wish: Wish) -> Recalled:
    path = entry.path
    state = settle(store, entry)
    if state is State.RESIDENT:
        return _result(store, entry, "resident", "", 0.0)
    check_reader(store, entry)
    if os.environ.get("RECALLFS_WORKER"):
        # It holds a slot, and would wait for another; and nobody would know what it was made from.
        raise InvalidInputError(
            f"{store.url(path)} is {state.value}, and a recipe cannot bring files back while it "
            "runs; declare it as an input, then it is there before the recipe starts.",
            details={"path": path},
        )
    cached = find_cached(stores, store, entry)
    if cached is not None and state not in (State.DIRTY, State.CONFLICT):
        return _cached(store, entry, cached)
    _refuse_unusable(stores, store, entry, state, wish)
    if store.url(path) in wish.chain:
        raise RecomputeError(
            "these files would be made from themselves: "
            + " → ".join([*wish.chain, store.url(path)]),
            kind="cycle",
            details={"chain": [*wish.chain, store.url(path)]},
        )
    start = time.monotonic()
    with first_in_process(f"{store.id}:{entry.id}") as is_first:
        if not is_first:
            return recall(stores, store, path, wish)
        if not store.is_writable:
            return _bring_to_cache(stores, store, entry, wish)
        target = store.root / entry.path
        with hold_lease(store.catalog, f"entry:{entry.id}", lambda: has_bytes(target)) as grant:
            if grant is None:
                state = settle(store, records.known_entry(store, path))
                if state is not State.RESIDENT:
                    raise conflict(store, entry, state)
                return _result(store, entry, "another process", "", time.monotonic() - start)
            return _bring_back(stores, store, entry, wish, grant)


def _bring_back(stores: Stores, store: Store, entry: Entry, wish: Wish, grant: Grant) -> Recalled:
    """Bring a file back to its path; the caller holds its lease."""
    start = time.monotonic()
    try:
        step, fetched, committed = ask_sources(
            stores,
            store,
            entry,
            wish,
            staging=store.staging,
            partials=lambda _: store.partials(),
            cancelled=grant.lost,
            commit=lambda staged, digests, level: commit_recalled(
                store, entry.id, staged, digests, grant, level=level
            ),
            put_beside=lambda *other: commit_other(store, *other),
        )
    except RecallError:
        if grant.lost.is_set():
            grant.check()
        raise
    seconds = time.monotonic() - start
    store.catalog.add_recall(
        committed,
        who=user_name(),
        source=step.source,
        seconds=seconds,
        level=fetched.level.value,
    )
    tell_recall(store, entry, step.source, seconds, reached=fetched.level.value)
    result = _result(store, committed, step.source, fetched.method, seconds)
    if fetched.level is Level.EXACT or fetched.digests is None:
        return result
    return replace(
        result,
        level=fetched.level.value,
        size_bytes=fetched.digests.size_bytes,
        sha256=fetched.digests.sha256,
    )


def _bring_to_cache(stores: Stores, store: Store, entry: Entry, wish: Wish) -> Recalled:
    """Bring a file of a store that the caller may not write to into the caller's cache."""
    start = time.monotonic()
    cache = cache_for(stores, store)
    with cache.lock(entry):
        place = cache.find(entry, records.load(store, entry.id).accepted)
        if place is not None:
            return _cached(store, entry, place)
        step, fetched, kept = ask_sources(
            stores,
            store,
            entry,
            wish,
            staging=lambda: cache.staging(
                entry.size_bytes, share=is_shared(stores, store, entry, cache)
            ),
            partials=lambda scratch: scratch.parent.with_name("partial"),
            cancelled=threading.Event(),
            commit=lambda staged, digests, _: cache.keep(entry, staged, digests.sha256),
        )
    cache.trim()
    sweep(cache.folder / "partial")
    seconds = time.monotonic() - start
    # The catalog cannot be told: it is not the caller's to write.
    tell_recall(store, entry, step.source, seconds, kept=str(kept))
    result = replace(
        _result(store, entry, step.source, fetched.method, seconds), level=fetched.level.value
    )
    known = entry.sha256 or (fetched.digests.sha256 if fetched.digests else "")
    return replace(result, path=kept, sha256=known, is_cached=True)


def _cached(store: Store, entry: Entry, place: Path) -> Recalled:
    return replace(_result(store, entry, "cache", "", 0.0), path=place, is_cached=True)


def ask_sources(
    stores: Stores,
    store: Store,
    entry: Entry,
    wish: Wish,
    *,
    staging: Callable[[], AbstractContextManager[Path]],
    partials: Callable[[Path], Path],
    cancelled: threading.Event,
    commit: Callable[[Path, Digests, Level], _Result],
    put_beside: CommitOther | None = None,
) -> tuple[Offer, Fetched, _Result]:
    """Ask the sources in the plan's order; the first verified bytes are committed.

    Parameters
    ----------
    staging : callable
        Gives a private folder to write to, on the file system of the result.
    partials : callable
        Given that folder, returns where downloads that were cut off are kept.
    cancelled : threading.Event
    commit : callable
        Given the verified file, its digests and level; what it returns is returned.
    put_beside : callable, optional
        Is offered what a run gives beside it.
    """
    chain = chain_for(stores, store, entry, settle(store, entry), wish.limits)
    record = records.load(store, entry.id)
    inquiry = inquire(stores, store, entry, chain.sources, wish.limits)
    answers: dict[str, RecallError] = {}
    run = shared_run(store, record) if put_beside is not None else ""
    inner = replace(
        wish,
        limits=EVERY_SOURCE,
        chain=(*wish.chain, store.url(entry.path)),
        runs=(*wish.runs, run),
    )
    for step, source in zip(chain.plan.steps, chain.sources, strict=True):
        try:
            found = inquiry.answer(source)
        except _ANSWERS as error:
            answers[step.source] = error
            tell_fetch(store, entry, step.source, error)
            continue
        if wish.announce is not None:
            expected_s = inquiry.expected_s(source, found) if found else None
            wish.announce(announcement(chain.plan, step, found, expected_s))
        is_run = bool(run) and isinstance(source, RecomputeSource)
        alone = run_alone(store, run, wish.runs, wish.chain) if is_run else contextlib.nullcontext()
        with alone, staging() as scratch:
            fault_point("stage.created")
            request = Request(
                store=store,
                record=record,
                scratch=scratch,
                found=found,
                partials=partials(scratch) if isinstance(source, RemoteSource) else None,
                progress=wish.progress,
                cancelled=cancelled,
            )
            refused: list[RecallError] = []
            try:
                brought = _brought(stores, source, request, inner, commit=commit, refused=refused)
            except RecallError as error:
                if refused or cancelled.is_set() or not isinstance(error, _ANSWERS):
                    raise
                if isinstance(error, IntegrityError):
                    _keep_aside(store, entry, error)
                answers[step.source] = error
                tell_fetch(store, entry, step.source, error)
            else:
                warn_of_liars(store, entry, answers, brought[0].liars, wish.warn)
                if put_beside is not None:
                    commit_others(brought[0], scratch, step.source, put_beside)
                return step, *brought
    failure = all_failed(store, entry, answers)
    said = {"kind": failure.kind, "message": failure.message}
    # A reader without write rights leaves no trace; the failure itself is what counts.
    with contextlib.suppress(AccessError):
        audit.note(store, "recall-failed", entry, user_name(), said)
    raise failure


def _fetched(stores: Stores, source: Source, request: Request) -> Fetched:
    """Fetch, and remember how that went."""
    if not isinstance(source, RemoteSource):
        return source.fetch(request)
    start = time.monotonic()
    key = answer_key(request.record)
    try:
        fetched = source.fetch(request)
    except (NotRecallableError, SourceError) as error:
        if not request.cancelled.is_set() and error.kind != "no-space":
            stores.memory.note(source, key, error)
        raise
    stores.memory.note_speed(source, request.record.entry.size_bytes, time.monotonic() - start)
    return fetched


def _verified(source: Source, request: Request, fetched: Fetched) -> Digests:
    record = request.record
    digests = fetched.digests or digest_file(fetched.path)
    digests = records.with_etag(digests, record, fetched.path)
    if fetched.level is Level.EXACT and not record.accepts(digests):
        expected, actual = record.mismatch(digests)
        raise IntegrityError(
            f"{source.name} gave other bytes: {actual}, on record is {expected}.",
            details={"expected": expected, "actual": actual},
        )
    return digests


def _brought(
    stores: Stores,
    source: Source,
    request: Request,
    wish: Wish,
    *,
    commit: Callable[[Path, Digests, Level], _Result],
    refused: list[RecallError],
) -> tuple[Fetched, _Result]:
    """Fetch, verify and commit, within this computer's budgets; `refused` gets a failed commit."""

    def work(inputs: Mapping[str, Path]) -> tuple[Fetched, _Result]:
        fetched = _fetched(stores, source, replace(request, inputs=inputs))
        digests = _verified(source, request, fetched)
        try:
            tell_fetch(request.store, request.record.entry, source.name)
            # In the slot too: a thousand that are fetched would crowd at the catalog.
            return fetched, commit(fetched.path, digests, fetched.level)
        except RecallError as error:
            refused.append(error)
            raise

    return with_inputs(
        stores,
        request.store,
        source.inputs(request.record),
        work,
        need=source.need(request.store, request.record),
        scratch=request.scratch,
        wish=wish,
        cancelled=request.cancelled,
    )


def with_inputs(
    stores: Stores,
    store: Store,
    references: Sequence[InputRef],
    work: Callable[[Mapping[str, Path]], _Result],
    *,
    need: Need | None,
    scratch: Path,
    wish: Wish,
    cancelled: threading.Event | None = None,
) -> _Result:
    """Do work that needs inputs and a slot: first all inputs, then the slot, then the work.

    Parameters
    ----------
    work : callable
        Called with the path of each input, while the slot is held; called again if an input was
        released meanwhile. It must wait for nobody.
    need : Need or None
    scratch : Path
        Folder that the work writes to.

    Raises
    ------
    SourceError
        If inputs were released again and again; also what `recallfs.resolve.budget.hold_slot`
        raises.
    RecallError
        What recalling the inputs, or the work, raises.
    """
    for _ in range(_ATTEMPTS):
        paths = {item.name: obtain_input(stores, store, item, wish) for item in references}
        with hold_slot(stores.config, need, scratch, announce=wish.announce, cancelled=cancelled):
            if not all(has_bytes(path) for path in paths.values()):
                continue
            try:
                return work(paths)
            except (RecallError, FileNotFoundError):
                if not any(was_released(store, path) for path in paths.values()):
                    raise
    raise SourceError(
        f"inputs of the recipe were released {_ATTEMPTS} times while they were needed; pin them "
        "(`recall pin`), then try again.",
        details={"inputs": [store.url(item.path) for item in references]},
    )


def obtain_input(
    stores: Stores,
    store: Store,
    reference: InputRef,
    wish: Wish | None = None,
) -> Path:
    """Return the local path of a derivation's input, recalling it first if it is not here.

    Raises
    ------
    IntegrityError
        Kind ``input-changed`` if no entry has the recorded bytes any more.
    """
    candidates = entries_of_input(store, reference)
    if not candidates:
        raise IntegrityError(
            f"the input {reference.name}={store.url(reference.path)} is no longer what it was "
            f"(sha256 {reference.sha256[:16]}… is in the store under no name); "
            "put the original back or adopt a new derivation.",
            kind="input-changed",
            details={"input": reference.name, "path": reference.path},
        )
    for entry in candidates:
        if settle(store, entry) is State.RESIDENT:
            return store.root / entry.path
    failure: RecallError | None = None
    for entry in candidates:
        try:
            return recall(stores, store, entry.path, wish).path
        except ConflictError as error:
            failure = failure or IntegrityError(
                f"the input {reference.name}={store.url(entry.path)} was changed since: {error}",
                kind="input-changed",
                details={"input": reference.name, "path": entry.path},
            )
        except NotRecallableError as error:
            failure = failure or error
    raise failure or AssertionError("unreachable")


def _refuse_unusable(stores: Stores, store: Store, entry: Entry, state: State, wish: Wish) -> None:
    """Raise what a plan that recalls nothing means."""
    if state in (State.DIRTY, State.CONFLICT):
        raise conflict(store, entry, state)
    plan = chain_for(stores, store, entry, state, wish.limits).plan
    if plan.action == "refuse":
        raise NotRecallableError(
            f"{plan.url}: {plan.reason}", details={"path": entry.path, "state": state.value}
        )


def _keep_aside(store: Store, entry: Entry, error: IntegrityError) -> None:
    result = Path(str(error.details.pop("result", "")))
    if result.is_file() and store.is_writable:
        kept = keep_rejected(store, entry.id, result)
        error.details["kept"] = str(kept)


def _result(store: Store, entry: Entry, source: str, method: str, seconds: float) -> Recalled:
    return Recalled(
        url=store.url(entry.path),
        path=store.root / entry.path,
        size_bytes=entry.size_bytes,
        sha256=entry.sha256,
        source=source,
        method=method,
        seconds=seconds,
    )
