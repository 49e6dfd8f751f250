"""Proofs: run the recipe again with the original out of its sight, and compare."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from recallfs.catalog import audit, changes, records
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Record, SkeletonRef
from recallfs.catalog.store import Store
from recallfs.digest.stream import digest_file
from recallfs.environment.capture import environment_id
from recallfs.errors import (
    ConflictError,
    IntegrityError,
    InvalidInputError,
    RecallError,
    RecomputeError,
)
from recallfs.ownership import metadata_of
from recallfs.recipes.job import Outcome
from recallfs.recipes.sandbox import can_hide
from recallfs.release.aside import set_aside
from recallfs.resolve.commit import keep_rejected
from recallfs.resolve.lease import hold_lease
from recallfs.resolve.presence import settle
from recallfs.resolve.recall import Wish, with_inputs
from recallfs.resolve.stores import Stores
from recallfs.skeleton.build import build_skeleton
from recallfs.skeleton.format import Skeleton
from recallfs.skeleton.vault import keep_skeleton
from recallfs.sources.base import Need
from recallfs.sources.disks import local_path
from recallfs.sources.recompute import (
    Matched,
    match_output,
    own_output,
    recorded_python,
    run_derivation,
    run_need,
)
from recallfs.values import Derivation, Entry, Level, Proof, State, after, now_utc


@dataclass(frozen=True)
class Proved:
    """A proof that was just made."""

    url: str
    proof: Proof
    size_bytes: int
    kept_bytes: int


HIDING = ("namespace", "aside", "auto")
"""How an original can be put out of a recipe's sight; see `prove`."""


def prove(
    stores: Stores,
    store: Store,
    entry: Entry,
    wish: Wish | None = None,
    *,
    hiding: str = "namespace",
    runs: Runs | None = None,
) -> Proved:
    """Prove that an entry can be recomputed exactly. The original is only read.

    Parameters
    ----------
    hiding : {"namespace", "aside", "auto"}
        *namespace*: the recipe runs where store, vault and local mirrors are covered by empty
        folders; nobody else notices. *aside*: the original is renamed away while the recipe runs;
        readers that go through recallfs wait, others miss it. *auto*: the first where the kernel
        allows it, else the second.
    runs : Runs, optional
        Runs that were made to prove other outputs of the same derivation. With *aside* each output
        takes a run of its own: the others' originals are in sight.

    Raises
    ------
    ConflictError
        The original is not resident, or dirty; or no recipe is on record (kind ``unproved``).
    IntegrityError
        The recomputed file differs; the proof failed, and the audit trail says so.
    RecomputeError
        The recipe failed, or the original cannot be hidden (kind ``cannot-hide``).
    """
    try:
        if hiding == "auto":
            hiding = "namespace" if can_hide() else "aside"
        return _prove(stores, store, entry, wish or Wish(), hiding == "aside", runs)
    except RecallError as error:
        audit.note(store, "prove-failed", entry, user_name(), error.to_json())
        raise


def _prove(  # noqa: PLR0917 - the private half of one call
    stores: Stores,
    store: Store,
    entry: Entry,
    wish: Wish,
    move_aside: bool,
    runs: Runs | None,
) -> Proved:
    derivation = records.load(store, entry.id).derivation(now_utc())
    if derivation is None:
        raise ConflictError(
            f"no recipe is on record for {store.url(entry.path)}; only files that `recall run` "
            "made can be proved.",
            kind="unproved",
            details={"path": entry.path},
        )
    original = _checked_original(store, entry)
    record = _with_skeleton(store, entry, original)
    with store.staging() as scratch:

        def run(inputs: Mapping[str, Path]) -> tuple[Matched, Outcome, float]:
            _check_inputs(store, derivation, inputs)

            def make(folder: Path) -> _Run:
                with set_aside(store, entry) if move_aside else contextlib.nullcontext():
                    return run_derivation(
                        store,
                        derivation,
                        inputs,
                        folder,
                        settings=stores.config.recipes,
                        python=recorded_python(store, record, derivation),
                        hide=() if move_aside else _hidden_folders(stores, store),
                    )

            if runs is None or move_aside:
                outputs, outcome = make(scratch)
            else:
                outputs, outcome = runs.run(store, derivation, make)
            result = own_output(store, derivation, entry, outputs)
            start = time.monotonic()
            try:
                matched = match_output(store, record, result, scratch, wish.progress)
            except IntegrityError as error:
                error.details.pop("result", None)
                error.details["kept"] = str(keep_rejected(store, entry.id, result))
                raise
            return matched, outcome, time.monotonic() - start

        # The lease before the slot: whoever holds a slot waits for nobody.
        is_run = runs is not None and not move_aside and runs.has(derivation)
        need = Need("recompute", entry.size_bytes) if is_run else run_need(store, derivation, entry)
        lease = hold_lease(store.catalog, f"entry:{entry.id}", lambda: False)
        with lease if move_aside else contextlib.nullcontext():
            matched, outcome, matching_s = with_inputs(
                stores,
                store,
                derivation.inputs,
                run,
                need=need,
                scratch=scratch,
                wish=wish,
            )
    environment = dict(outcome.environment)
    identifier = environment_id(environment)
    records.save_environment(store, identifier, environment)
    made_at = now_utc()
    proof = Proof(
        id=uuid.uuid4().hex,
        entry_id=entry.id,
        derivation_id=derivation.id,
        environment_id=identifier,
        level=Level.EXACT,
        method=matched.method,
        sha256=matched.digests.sha256,
        made_by=user_name(),
        made_at=made_at,
        valid_until=after(made_at, stores.config.release.proof_validity),
        seconds=outcome.seconds + matching_s,
        hidden_by="aside" if move_aside else "namespace",
    )
    with changes.edit(store, entry.id, "prove") as draft:
        draft.record = replace(draft.record, proofs=(*draft.record.proofs, proof))
        kept = draft.record.skeleton.stored_bytes if draft.record.skeleton else 0
    audit.note(store, "prove", entry, user_name(), {"proof": proof.id})
    return Proved(store.url(entry.path), proof, entry.size_bytes, kept)


class Runs:
    """The run that several outputs of one derivation are proved by; close it to drop its files.

    Only the last one is kept: ask for the outputs of one derivation one after the other
    (`by_derivation`).
    """

    def __init__(self) -> None:
        self._folder = contextlib.ExitStack()
        self._derivation_id = ""
        self._run: _Run | RecomputeError | None = None

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.close()

    def has(self, derivation: Derivation) -> bool:
        """Tell whether a derivation's run is the one that is kept."""
        return self._run is not None and self._derivation_id == derivation.id

    def run(self, store: Store, derivation: Derivation, make: Callable[[Path], _Run]) -> _Run:
        """Return the run of a derivation, which is made in a folder unless it was before.

        Raises
        ------
        RecallError
            What making it raises. A recipe that failed is not run again for the next output.
        """
        if not self.has(derivation):
            self._folder.close()
            self._run, self._derivation_id = None, derivation.id
            try:
                self._run = make(self._folder.enter_context(store.staging()))
            except RecomputeError as error:
                self._run = error
                raise
        assert self._run is not None  # noqa: S101 - it was kept, or made just now
        if isinstance(self._run, RecomputeError):
            raise RecallError.from_json(self._run.to_json())
        return self._run


_Run = tuple[dict[str, Path], Outcome]


def by_derivation(found: Sequence[tuple[Store, Entry]]) -> list[tuple[Store, Entry]]:
    """Order entries so that those that one run gives follow one another."""
    groups: dict[str, list[tuple[Store, Entry]]] = {}
    for store, entry in found:
        key = entry.id
        with contextlib.suppress(RecallError):  # proving it says what is wrong
            derivation = records.load(store, entry.id).derivation(now_utc())
            key = key if derivation is None else derivation.id
        groups.setdefault(key, []).append((store, entry))
    return [item for group in groups.values() for item in group]


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
