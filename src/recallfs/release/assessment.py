"""Looking at files before a release: the facts about each are gathered, and decided on.

`assess` looks at one file by its sidecar, as each file is looked at once more when it is released.
`assess_all` looks at many by the catalog and one `os.lstat` each, and falls back on the former
wherever that does not tell enough.
"""

from __future__ import annotations

import contextlib
import gc
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from recallfs.catalog import changes, records
from recallfs.catalog.evidence import Evidence, evidence_of, released_from
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.environment.interpreter import Sought, check_start
from recallfs.errors import EnvironmentMismatchError, InvalidInputError
from recallfs.release.copies import verified_copies
from recallfs.release.ground import CanRun, Ground
from recallfs.release.policy import Candidate, Decision, Wanted, decide, without_conflicts
from recallfs.resolve.presence import settle
from recallfs.resolve.stores import Stores
from recallfs.values import Entry, Level, State, now_utc

_NO_INPUTS: Mapping[str, str] = {}

Assessed = tuple[Store, Entry, Decision]
"""A file, and whether it may be released."""


class Assessment(NamedTuple):
    """What was decided about many files, and what the catalog said of them, by entry."""

    files: list[Assessed]
    evidence: dict[str, Evidence]


def assess(stores: Stores, store: Store, entry: Entry, wanted: Wanted) -> Decision:
    """Gather the facts about a file and decide whether it may be released. Changes nothing."""
    settings = stores.config.release
    record = records.load(store, entry.id)
    now = now_utc()
    state = settle(store, entry)
    can_run = runner(stores, store)
    quick = _candidate(store, entry, record, state, can_run=can_run, wanted=wanted)
    decision = decide(quick, settings, wanted)
    if decision.kind == "unproved":
        # Copies are read whole to count, so they are looked at only when they are needed.
        copies = verified_copies(stores, store, record)
        decision = decide(quick._replace(verified_copies=copies), settings, wanted)
    derivation = record.derivation(now)
    if derivation is None or not decision.evidence.startswith("proof:"):
        return decision
    proof = record.valid_proofs(now)[0]
    return _if_it_runs(decision, can_run(derivation.recipe, proof.environment_id))


@contextlib.contextmanager
def collecting_nothing() -> Iterator[None]:
    """Keep the collector from going over records again and again that all stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@collecting_nothing()
def assess_all(stores: Stores, found: Sequence[tuple[Store, Entry]], wanted: Wanted) -> Assessment:
    """Decide about many files, of which some may rest on others. Changes nothing.

    Notes
    -----
    A hundred thousand proved files take about two seconds.
    """
    decided: dict[str, Assessed] = {}
    inputs: dict[str, tuple[str, ...]] = {}
    evidence: dict[str, Evidence] = {}
    for store in {store.id: store for store, _ in found}.values():
        entries = [entry for other, entry in found if other.id == store.id]
        survey = _Survey(stores, store, entries, wanted)
        evidence.update(survey.evidence)
        for entry in entries:
            decided[entry.id] = (store, entry, survey.decide(entry))
            if not wanted.allow_chain:
                inputs[entry.id] = survey.inputs(entry)
    decisions = {entry_id: decision for entry_id, (_, _, decision) in decided.items()}
    for entry_id, decision in without_conflicts(decisions, inputs).items():
        store, entry, _ = decided[entry_id]
        decided[entry_id] = (store, entry, decision)
    return Assessment([decided[entry.id] for _, entry in found], evidence)


def runner(stores: Stores, store: Store) -> CanRun:
    """Return what tells whether a recipe can run in an environment; each pair is tried once."""
    settings = stores.config.recipes
    known: dict[tuple[str, str], str] = {}

    def can_run(recipe: str, environment: str) -> str:
        if (recipe, environment) not in known:
            sought = Sought(recipe, settings.modules, settings.paths)
            problem = ""
            try:
                check_start(store, environment, stores.config.environments.folder, sought)
            except (EnvironmentMismatchError, InvalidInputError) as error:
                problem = error.message.removesuffix(".")
            known[recipe, environment] = problem
        return known[recipe, environment]

    return can_run


def _if_it_runs(decision: Decision, problem: str) -> Decision:
    if not problem:
        return decision
    reason = f"was proved where nothing runs now: {problem}"
    is_recipe = problem.startswith("the recipe ")
    kind = "unknown-recipe" if is_recipe else EnvironmentMismatchError("").kind
    return decision._replace(verdict="refuse", kind=kind, reason=reason, evidence="")


def _lowest(store: Store, wanted: Wanted) -> Level | None:
    """Return the lowest level that the store and the caller both accept."""
    both = [level for level in (store.settings.level, wanted.lowest) if level is not None]
    return min(both, key=list(Level).index, default=None)


def _candidate(
    store: Store,
    entry: Entry,
    record: Record,
    state: State,
    *,
    can_run: CanRun,
    wanted: Wanted,
) -> Candidate:
    now = now_utc()
    status = None
    if state in (State.RESIDENT, State.DIRTY):
        status = (store.root / entry.path).lstat()
    recalls = store.catalog.recalls(entry.id)
    used, looked = _last_uses(entry, recalls[0]["at"] if recalls else "", status)
    present = time.time()
    dependents = [
        store.url(other.path)
        for other in store.catalog.dependents(entry)
        if other.state is State.RELEASED
    ]
    elsewhere, lost = _ancestors(store, record, now, can_run)
    return Candidate(
        url=store.url(entry.path),
        size_bytes=entry.size_bytes,
        state=state,
        is_pinned=record.is_pinned,
        idle=timedelta(seconds=present - used),
        unused=timedelta(seconds=present - looked),
        proofs=record.valid_proofs(now),
        verified_copies=(),
        kept_bytes=record.skeleton.stored_bytes if record.skeleton else 0,
        links=status.st_nlink if status else 1,
        resting=dependents,
        rests_on=elsewhere,
        lost_inputs=lost,
        residual_bytes=record.residual.stored_bytes if record.residual else 0,
        lowest=_lowest(store, wanted),
    )


def _last_uses(
    entry: Entry, recalled_at: str, status: os.stat_result | None
) -> tuple[float, float]:
    """Return when a file was last written or recalled, and last used in any way that shows."""
    used = entry.metadata.mtime_ns / 1e9
    if recalled_at:
        used = max(used, datetime.fromisoformat(recalled_at).timestamp())
    if status is None:
        return used, used
    # The time of change: a catalog that was made again knows nothing of earlier recalls.
    return used, max(used, status.st_atime, status.st_ctime)


def _ancestors(
    store: Store, record: Record, now: str, can_run: CanRun
) -> tuple[list[str], dict[str, str]]:
    """Return the inputs that are not resident, and why those are lost that nothing brings back."""
    ground = Ground(store, now, can_run)
    derivation = record.derivation(now)
    elsewhere, lost = [], {}
    for item in derivation.inputs if derivation else ():
        visiting = frozenset({record.entry.id})
        if ground.is_resident(item, visiting):
            continue
        url = store.url(item.path)
        elsewhere.append(url)
        loss = ground.loss(item, visiting)
        if loss:
            lost[url] = loss
    return elsewhere, lost


class _Survey:
    """What the catalog says of many files of one store, and one look at each."""

    def __init__(
        self, stores: Stores, store: Store, entries: Sequence[Entry], wanted: Wanted
    ) -> None:
        self._stores, self._store, self._wanted = stores, store, wanted
        self._settings = stores.config.release
        self._now, self._present = now_utc(), time.time()
        self._can_run = runner(stores, store)
        self._root = f"{store.root}/"
        self._url = store.url("")
        self._lowest = _lowest(store, wanted)
        self._has_remotes = bool(stores.remotes())
        self._leaving = changes.leaving(store)
        ids = [entry.id for entry in entries]
        self.evidence: Mapping[str, Evidence] = evidence_of(store.catalog, ids, self._now)
        self._resting = released_from(store.catalog, entries)
        self._here = self._inputs_here(entries)

    def inputs(self, entry: Entry) -> tuple[str, ...]:
        """Return the ids of the entries that a file was made from."""
        evidence = self.evidence.get(entry.id)
        if evidence is None or evidence.made is None:
            return ()
        return tuple(item.entry_id for item in evidence.made.inputs)

    def decide(self, entry: Entry) -> Decision:
        """Decide about one file."""
        candidate = self._candidate(entry)
        if candidate is None:
            return assess(self._stores, self._store, entry, self._wanted)
        decision = decide(candidate, self._settings, self._wanted)
        # The catalog knows what is kept of a file in all; how large its skeleton is, the sidecar.
        asks_more = decision.kind == "unproved" and self._has_remotes
        if asks_more or decision.kind == "skeleton-too-large":
            return assess(self._stores, self._store, entry, self._wanted)
        made = self.evidence[entry.id].made
        if decision.verdict == "release" and made is not None:
            return _if_it_runs(decision, self._can_run(made.recipe, made.environment_id))
        return decision

    def _candidate(self, entry: Entry) -> Candidate | None:
        """Put together what is known of a file; None if that is not enough."""
        evidence = self.evidence.get(entry.id)
        status = _status(self._root + entry.path)
        if evidence is None or evidence.kept_bytes is None:
            return None
        if entry.state is State.RESIDENT and _is_as_seen(entry, status):
            made = evidence.made
            for item in made.inputs if made is not None else ():
                if item.entry_id == entry.id or not self._here.get(item.entry_id + item.sha256):
                    return None
        elif not (entry.state is State.RELEASED and status is None):
            return None
        used, looked = _last_uses(entry, evidence.recalled_at, status)
        resting = self._resting.get(entry.id)
        # By position, in the order of the fields: of a hundred thousand files each name costs.
        return Candidate(
            self._url + entry.path,
            entry.size_bytes,
            entry.state,
            evidence.is_pinned,
            timedelta(0, self._present - used),
            timedelta(0, self._present - looked),
            evidence.proofs,
            (),  # verified copies
            evidence.kept_bytes,
            1 if status is None else status.st_nlink,
            [self._url + path for path in resting] if resting else (),
            (),  # inputs that are not here: there are none
            _NO_INPUTS,
            0,  # of a residual, which `kept_bytes` holds
            self._lowest,
        )

    def _inputs_here(self, entries: Sequence[Entry]) -> dict[str, bool]:
        """Tell of each input, by entry and digest, whether it is at its path as it was seen."""
        wanted = {
            item.entry_id: item.sha256
            for evidence in self.evidence.values()
            if evidence.made is not None
            for item in evidence.made.inputs
        }
        known = {entry.id: entry for entry in entries if entry.id in wanted}
        known.update(self._store.catalog.entries_by_id(set(wanted) - set(known)))
        return {
            entry.id + entry.sha256: entry.state is State.RESIDENT
            and entry.id not in self._leaving
            and _is_as_seen(entry, _status(self._root + entry.path))
            for entry in known.values()
        }


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _is_as_seen(entry: Entry, status: os.stat_result | None) -> bool:
    seen = entry.identity
    return (
        status is not None
        and seen is not None
        and stat.S_ISREG(status.st_mode)
        # As `Identity.from_stat` would say, which makes an object each time.
        and seen.inode == status.st_ino
        and seen.ctime_ns == status.st_ctime_ns
        and seen.mtime_ns == status.st_mtime_ns
        and seen.size_bytes == status.st_size
        and seen.device == status.st_dev
    )
