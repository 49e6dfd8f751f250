"""Proofs: run the recipe again with the original out of its sight, and compare."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from recallfs.catalog import audit, changes, records
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Record, ResidualRef, Revocation, SkeletonRef
from recallfs.catalog.store import Store
from recallfs.digest.difference import Tolerance
from recallfs.digest.stream import digest_file
from recallfs.environment.capture import environment_id
from recallfs.errors import (
    ConflictError,
    IntegrityError,
    InvalidInputError,
    RecallError,
)
from recallfs.ownership import metadata_of
from recallfs.recipes.job import Outcome
from recallfs.recipes.outputs import gives_several
from recallfs.recipes.sandbox import can_hide
from recallfs.release.aside import set_aside
from recallfs.release.runs import Run, Runs
from recallfs.release.trial import Trial
from recallfs.resolve.commit import keep_rejected
from recallfs.resolve.lease import hold_lease
from recallfs.resolve.presence import settle
from recallfs.resolve.recall import Wish, with_inputs
from recallfs.resolve.stores import Stores
from recallfs.skeleton.build import build_skeleton
from recallfs.skeleton.contents import keep_contents
from recallfs.skeleton.format import Skeleton
from recallfs.skeleton.vault import keep_residual, keep_skeleton
from recallfs.sources.base import Need
from recallfs.sources.disks import local_path
from recallfs.sources.levels import Matched
from recallfs.sources.recompute import (
    own_output,
    recorded_python,
    run_derivation,
    run_need,
)
from recallfs.values import Derivation, Entry, Level, Proof, State, after, now_utc


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

    Raises
    ------
    ConflictError
        The original is not resident, or dirty; or no recipe is on record (kind ``unproved``).
    IntegrityError
        The recomputed file differs; the proof failed, and the audit trail says so. Kind
        ``residual-too-large`` or ``not-repeatable`` if a residual was tried.
    RecomputeError
        The recipe failed, or the original cannot be hidden (kind ``cannot-hide``).
    """
    try:
        if hiding == "auto":
            hiding = "namespace" if can_hide() else "aside"
        limit = stores.config.release.max_residual if max_residual is None else max_residual
        lowest = level or store.settings.level or Level.EXACT
        effort = _Effort(
            limit, lowest, tolerance or Tolerance(), runs, move_aside=hiding == "aside"
        )
        return _prove(stores, store, entry, wish or Wish(), effort)
    except RecallError as error:
        audit.note(store, "prove-failed", entry, user_name(), error.to_json())
        raise


def _prove(stores: Stores, store: Store, entry: Entry, wish: Wish, effort: _Effort) -> Proved:
    derivation = _derivation(store, entry)
    original = _checked_original(store, entry)
    record = _with_skeleton(store, entry, original)
    keep_contents(store, entry, original)
    shared = effort.shared(derivation)
    python = recorded_python(store, record, derivation, stores.config.environments.folder)
    with store.staging() as scratch:

        def execute(inputs: Mapping[str, Path], turn: int) -> Run:
            _check_inputs(store, derivation, inputs)

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
                        hide=() if effort.move_aside else _hidden_folders(stores, store),
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
            done = with_inputs(
                stores,
                store,
                derivation.inputs,
                run,
                need=need,
                scratch=scratch,
                wish=wish,
            )
    matched, outcome = done.matched, done.outcome
    identifier = environment_id(outcome.environment)
    records.save_environment(store, identifier, dict(outcome.environment))
    made_at = now_utc()
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
        rtol=effort.tolerance.relative if matched.level is Level.TOLERANCE else 0.0,
        atol=effort.tolerance.absolute if matched.level is Level.TOLERANCE else 0.0,
    )
    with changes.edit(store, entry.id, "prove") as draft:
        if done.residual is not None:
            draft.record = replace(_without_residual(draft.record), residual=done.residual)
        draft.record = replace(draft.record, proofs=(*draft.record.proofs, proof))
    audit.note(store, "prove", entry, user_name(), {"proof": proof.id})
    kept = draft.record
    residual_bytes = kept.residual.stored_bytes if kept.residual else 0
    return Proved(store.url(entry.path), proof, entry.size_bytes, kept.kept_bytes, residual_bytes)


def _derivation(store: Store, entry: Entry) -> Derivation:
    derivation = records.load(store, entry.id).derivation(now_utc())
    if derivation is None:
        raise ConflictError(
            f"no recipe is on record for {store.url(entry.path)}; `recall run` records it of what "
            "it makes, `recall adopt` of files made elsewhere.",
            kind="unproved",
            details={"path": entry.path},
        )
    return derivation


def _attempt(
    trial: Trial, made: Callable[[int], tuple[Path, Outcome]], effort: _Effort
) -> _Attempt:
    """Run the recipe, and once more where that shows whether it gives the same again."""
    result, outcome = made(0)
    start = time.monotonic()
    try:
        return _Attempt(trial.match(result, effort.limit), outcome, time.monotonic() - start)
    except IntegrityError as first:
        error = first
    try:
        residual = trial.residual(error)
        result, outcome = made(1)
        start = time.monotonic()
        matched = trial.match_again(result, residual)
        seconds = time.monotonic() - start
        reference = keep_residual(trial.store, residual.path, metadata_of(trial.original))
        return _Attempt(matched, outcome, seconds, reference)
    except IntegrityError:
        if effort.lowest is Level.EXACT:
            raise
    matched = trial.lower(error, result, effort.lowest, effort.tolerance)
    if matched.level is Level.TOLERANCE:
        result, outcome = made(1)
        start = time.monotonic()
        again = trial.lower(error, result, effort.lowest, effort.tolerance)
        trial.confirm(matched, again)
    return _Attempt(matched, outcome, time.monotonic() - start)


def _keep_result(store: Store, entry: Entry, error: IntegrityError) -> None:
    """Keep a result that was refused, and say in the error where it is."""
    result = Path(str(error.details.pop("result", "")))
    if result.is_file():
        error.details["kept"] = str(keep_rejected(store, entry.id, result))


def _without_residual(record: Record) -> Record:
    """Take a residual off a record; the proofs that rest on it no longer count."""
    if record.residual is None:
        return record
    now = now_utc()
    gone = [proof.id for proof in record.valid_proofs(now) if proof.method == "residual"]
    reason = "the residual that it rests on was replaced"
    revocations = tuple(Revocation(each, reason, user_name(), now) for each in gone)
    return replace(record, residual=None, revocations=(*record.revocations, *revocations))


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _check_inputs(store: Store, derivation: Derivation, inputs: Mapping[str, Path]) -> None:
    """Make sure, by hashing, that the inputs are what the derivation was bound to."""
    for item in derivation.inputs:
        if digest_file(inputs[item.name]).sha256 != item.sha256:
            raise IntegrityError(
                f"the input {item.name}={store.url(item.path)} is no longer what it was.",
                kind="input-changed",
                details={"input": item.name, "path": item.path},
            )


def _checked_original(store: Store, entry: Entry) -> Path:
    """Make sure, by hashing, that the original is here and is the recorded one."""
    state = settle(store, entry)
    place = store.root / entry.path
    if state is State.RESIDENT:
        digests = digest_file(place)
        if digests.sha256 in records.load(store, entry.id).accepted:
            return place
        state = State.DIRTY
    raise ConflictError(
        f"{store.url(entry.path)} is {state.value}; a proof needs the original as it was recorded.",
        kind="dirty" if state is State.DIRTY else "conflict",
        details={"path": entry.path, "state": state.value},
    )


def _with_skeleton(store: Store, entry: Entry, original: Path) -> Record:
    """Make sure that an HDF5 original has its skeleton."""
    record = records.load(store, entry.id)
    if record.skeleton is not None and _is_whole(store, record.skeleton):
        return record
    try:
        skeleton = build_skeleton(original, sha256=entry.sha256, size_bytes=entry.size_bytes)
    except InvalidInputError as error:
        if error.kind != "not-hdf5":
            raise
        return record  # not HDF5: it must be recomputed to the same bytes, or not be released
    content = skeleton.to_bytes()
    digest = blake3(content).hexdigest()
    keep_skeleton(store, digest, content, metadata_of(original))
    with changes.edit(store, entry.id, "skeleton") as draft:
        if record.skeleton is None or record.skeleton.digest != digest:
            # A residual is for one skeleton only.
            draft.record = _without_residual(draft.record)
        draft.record = replace(draft.record, skeleton=SkeletonRef(digest, len(content)))
    return draft.record


def _is_whole(store: Store, reference: SkeletonRef) -> bool:
    try:
        Skeleton.from_bytes(store.skeleton_path(reference.digest).read_bytes())
    except (OSError, IntegrityError):
        return False
    return True


def _hidden_folders(stores: Stores, store: Store) -> tuple[Path, ...]:
    """Return where the original or a copy of it could be seen: the store, vault and mirrors."""
    folders = [store.root, store.vault]
    folders += [
        folder
        for folder in (local_path(settings.url) for settings in stores.config.mirrors)
        if folder is not None
    ]
    return tuple(folder for folder in folders if folder.is_dir())
