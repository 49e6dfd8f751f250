"""Proofs: run the recipe again with the original out of its sight, and compare."""

from __future__ import annotations

import contextlib
import functools
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from recallfs.catalog import attempts, audit, changes
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Record, ResidualRef
from recallfs.catalog.store import Store
from recallfs.digest.tally import Tolerance
from recallfs.environment.keeping import keep_environment
from recallfs.errors import IntegrityError, RecallError
from recallfs.ownership import metadata_of
from recallfs.recipes.job import Outcome
from recallfs.recipes.outputs import gives_several
from recallfs.recipes.sandbox import can_hide
from recallfs.release.aside import set_aside
from recallfs.release.failed import is_by_chance, keep_failure, planned_environment, say_where
from recallfs.release.original import (
    check_inputs,
    checked_original,
    derivation_of,
    hidden_folders,
    refuse_if_changed,
    with_skeleton,
    without_residual,
)
from recallfs.release.runs import Run, Runs
from recallfs.release.scratch import private_folder
from recallfs.release.trial import Trial
from recallfs.resolve.commit import keep_rejected
from recallfs.resolve.lease import hold_lease
from recallfs.resolve.recall import with_inputs
from recallfs.resolve.stores import Stores
from recallfs.resolve.wish import Wish
from recallfs.skeleton.contents import keep_contents
from recallfs.skeleton.vault import keep_residual
from recallfs.sources.base import Need
from recallfs.sources.levels import Matched
from recallfs.sources.recompute import own_output, run_derivation, run_need
from recallfs.values import Derivation, Entry, Level, Proof, after, now_utc


@dataclass(frozen=True)
class Proved:
    """A proof that was just made.

    Parameters
    ----------
    size_bytes : int
        Of the file.
    kept_bytes : int
        What is kept of it when it is released: skeleton and residual.
    residual_bytes : int
        The residual's part in that.
    """

    url: str
    proof: Proof
    size_bytes: int
    kept_bytes: int
    residual_bytes: int = 0

    @property
    def frees_bytes(self) -> int:
        """Net bytes that a release frees."""
        return self.size_bytes - self.kept_bytes


class _Effort(NamedTuple):
    """How to prove."""

    limit: float  # of a residual
    lowest: Level
    tolerance: Tolerance
    runs: Runs | None
    move_aside: bool
    environment: str | None
    scratch: Path | None
    cancelled: threading.Event | None

    def shared(self, derivation: Derivation) -> Runs | None:
        """Return runs that serve several outputs; none with *aside*: the others are in sight."""
        return self.runs if gives_several(derivation) and not self.move_aside else None


class _Attempt(NamedTuple):
    """What came of the recipe."""

    matched: Matched
    outcome: Outcome
    matching_s: float
    residual: ResidualRef | None = None  # if it is a new one


HIDING = ("namespace", "aside", "auto")
"""How an original can be put out of a recipe's sight; see `prove`."""


def prove(
    stores: Stores,
    store: Store,
    entry: Entry,
    wish: Wish | None = None,
    *,
    hiding: str = "namespace",
    max_residual: float | None = None,
    runs: Runs | None = None,
    level: Level | None = None,
    tolerance: Tolerance | None = None,
    environment: str | None = None,
    scratch: Path | None = None,
    cancelled: threading.Event | None = None,
) -> Proved:
    """Prove that an entry can be recomputed. The original is only read.

    Parameters
    ----------
    hiding : {"namespace", "aside", "auto"}
        *namespace*: the recipe runs where store, vault and local mirrors are covered by empty
        folders; nobody else notices. *aside*: the original is renamed away while the recipe runs;
        readers that go through recallfs wait, others miss it. *auto*: the first where the kernel
        allows it, else the second.
    max_residual : float, optional
        Largest residual, as a fraction of the data that it makes right; by default as configured.
        0: none.
    runs : Runs, optional
        Runs that were made to prove other outputs of the same derivation. With *aside* each output
        takes a run of its own: the others' originals are in sight.
    level : Level, optional
        Lowest one to be content with; by default as the store's settings say, else exact.
    tolerance : Tolerance, optional
        How far numbers may be off at the tolerance level.
    environment : str, optional
        Digest of the environment to prove it in; by default that on record.
    scratch : Path, optional
        Folder to work in, as `recallfs.release.scratch.check_scratch` returns it; by default the
        store's own.
    cancelled : threading.Event, optional
        Ends the run soon after it is set.

    Raises
    ------
    ConflictError
        The original is not resident, or dirty, or was changed meanwhile; or no recipe is on record
        (kind ``unproved``).
    IntegrityError
        The recomputed file differs; the proof failed, and the audit trail says so. Kind
        ``residual-too-large`` if a residual was tried; kind ``not-repeatable`` if a second run
        gave other values than the first.
    RecomputeError
        The recipe failed, or the original cannot be hidden (kind ``cannot-hide``).
    SourceError
        Kind ``no-space``.

    Notes
    -----
    Where values are wrong, the recipe is run once more, to tell one that gives other values each
    time from one that gives the same wrong ones. What failed is kept
    (`recallfs.catalog.attempts`) until a proof is made.
    """
    try:
        if hiding == "auto":
            hiding = "namespace" if can_hide() else "aside"
        limit = stores.config.release.max_residual if max_residual is None else max_residual
        effort = _Effort(
            limit,
            level or store.settings.level or Level.EXACT,
            tolerance or Tolerance(),
            runs,
            move_aside=hiding == "aside",
            environment=environment,
            scratch=scratch,
            cancelled=cancelled,
        )
        return _prove(stores, store, entry, wish or Wish(), effort)
    except RecallError as error:
        audit.note(store, "prove-failed", entry, user_name(), error.to_json())
        keep_failure(stores, store, entry, error, environment)
        raise


def _prove(stores: Stores, store: Store, entry: Entry, wish: Wish, effort: _Effort) -> Proved:
    derivation = derivation_of(store, entry)
    original, seen = checked_original(store, entry)
    record = with_skeleton(store, entry, original)
    keep_contents(store, entry, original)
    planned, python = planned_environment(stores, store, record, derivation, effort.environment)
    unchanged = functools.partial(refuse_if_changed, store, entry, seen, moved=effort.move_aside)
    with private_folder(store, effort.scratch) as scratch:
        try:
            done = _tried(stores, store, record, original, python, wish, effort, scratch)
        except RecallError as error:
            unchanged()  # that would be why
            if is_by_chance(error):  # the recipe's own
                say_where(error, store, planned)
            raise
        matched, outcome = done.matched, done.outcome
        identifier = keep_environment(store, outcome.environment)
        made_at = now_utc()
        is_near = matched.level is Level.TOLERANCE
        proof = Proof(
            id=uuid.uuid4().hex,
            entry_id=entry.id,
            derivation_id=derivation.id,
            environment_id=identifier,
            level=matched.level,
            method=matched.method,
            sha256=matched.digests.sha256,
            made_by=user_name(),
            made_at=made_at,
            valid_until=after(made_at, stores.config.release.proof_validity),
            seconds=outcome.seconds + done.matching_s,
            hidden_by="aside" if effort.move_aside else "namespace",
            content=matched.content,
            rtol=effort.tolerance.relative if is_near else 0.0,
            atol=effort.tolerance.absolute if is_near else 0.0,
            source_digest=outcome.source_digest,
        )
    with changes.edit(store, entry.id, "prove") as draft:
        unchanged()
        if done.residual is not None:
            draft.record = replace(without_residual(draft.record), residual=done.residual)
        draft.record = replace(draft.record, proofs=(*draft.record.proofs, proof))
    attempts.clear(store, entry.id)
    audit.note(store, "prove", entry, user_name(), {"proof": proof.id})
    kept = draft.record
    residual_bytes = kept.residual.stored_bytes if kept.residual else 0
    return Proved(store.url(entry.path), proof, entry.size_bytes, kept.kept_bytes, residual_bytes)


def _tried(  # noqa: PLR0917 - all of them are needed to run it
    stores: Stores,
    store: Store,
    record: Record,
    original: Path,
    python: Path | None,
    wish: Wish,
    effort: _Effort,
    scratch: Path,
) -> _Attempt:
    """Bring the inputs, run the recipe, and match what it gives; nothing is recorded."""
    entry = record.entry
    derivation = derivation_of(store, entry)
    shared = effort.shared(derivation)

    def execute(inputs: Mapping[str, Path], turn: int) -> Run:
        check_inputs(store, derivation, inputs)

        def make(folder: Path) -> Run:
            with set_aside(store, entry) if effort.move_aside else contextlib.nullcontext():
                return run_derivation(
                    store,
                    derivation,
                    inputs,
                    folder,
                    settings=stores.config.recipes,
                    python=python,
                    is_new=True,
                    hide=() if effort.move_aside else hidden_folders(stores, store),
                    cancelled=effort.cancelled,
                )

        if shared is None:
            # The space of the run before is needed for this one.
            return make(_emptied(scratch / "run"))
        return shared.run(store, derivation, make, turn)

    def run(inputs: Mapping[str, Path]) -> _Attempt:
        trial = Trial(store, record, derivation, original, scratch, wish.progress, python)

        def made(turn: int) -> tuple[Path, Outcome]:
            outputs, outcome = execute(inputs, turn)
            return own_output(store, derivation, entry, outputs), outcome

        try:
            return _attempt(trial, made, effort)
        except IntegrityError as refusal:
            _keep_result(store, entry, refusal)
            raise

    # The lease before the slot: whoever holds a slot waits for nobody.
    is_run = shared is not None and shared.has(derivation)
    need = Need("recompute", entry.size_bytes) if is_run else run_need(store, derivation, entry)
    lease = hold_lease(store.catalog, f"entry:{entry.id}", lambda: False)
    with lease if effort.move_aside else contextlib.nullcontext():
        return with_inputs(
            stores,
            store,
            derivation.inputs,
            run,
            need=need,
            scratch=scratch,
            wish=wish,
            cancelled=effort.cancelled,
        )


def _attempt(
    trial: Trial, made: Callable[[int], tuple[Path, Outcome]], effort: _Effort
) -> _Attempt:
    """Run the recipe, and once more where that shows whether it gives the same again."""
    result, outcome = made(0)
    start = time.monotonic()
    try:
        return _Attempt(trial.match(result, effort.limit), outcome, time.monotonic() - start)
    except IntegrityError as first:
        error = refusal = first
    before = trial.values_of(result) if trial.are_values_wrong(error) else None
    turn = 0
    if before is not None:
        try:
            residual = trial.residual(error)
            turn, (result, outcome) = 1, made(1)
            start = time.monotonic()
            matched = trial.match_again(result, residual, before)
            seconds = time.monotonic() - start
            reference = keep_residual(trial.store, residual.path, metadata_of(trial.original))
            return _Attempt(matched, outcome, seconds, reference)
        except IntegrityError as refused:
            refusal = refused
    if effort.lowest is not Level.EXACT:
        try:
            matched = trial.lower(error, result, effort.lowest, effort.tolerance)
            if matched.level is Level.TOLERANCE:
                before = before or trial.values_of(result)
                turn, (result, outcome) = turn + 1, made(turn + 1)
                start = time.monotonic()
                again = trial.lower(error, result, effort.lowest, effort.tolerance)
                trial.confirm(matched, again, result, before)
            return _Attempt(matched, outcome, time.monotonic() - start)
        except IntegrityError as refused:
            refusal = refused
    if before is not None and refusal.kind != "not-repeatable":
        if turn == 0:
            result, _ = made(1)
        refusal.details["result"] = str(result)  # that of the first run gave way to it
        trial.refuse_varying(before, result, refusal)
    raise refusal


def _keep_result(store: Store, entry: Entry, error: IntegrityError) -> None:
    """Keep a result that was refused, and say in the error where it is.

    One that the store has no space for is not kept: why it was refused is told all the same.
    """
    result = Path(str(error.details.pop("result", "")))
    if not result.is_file():
        return
    with contextlib.suppress(OSError), store.staging() as folder:
        if result.stat().st_dev != folder.stat().st_dev:
            result = Path(shutil.copyfile(result, folder / "data"))
        error.details["kept"] = str(keep_rejected(store, entry.id, result))


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
