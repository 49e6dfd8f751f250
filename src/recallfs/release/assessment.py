"""Looking at files before a release: the facts about each are gathered, and decided on.

`assess` looks at one file by its sidecar, as each file is looked at once more when it is released.
`assess_all` looks at many by the catalog and one `os.lstat` each, and falls back on the former
wherever that does not tell enough.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import NamedTuple

from recallfs.catalog import changes, records
from recallfs.catalog.database import Place
from recallfs.catalog.evidence import Listed, listing, released_from
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.environment.interpreter import Sought, check_start
from recallfs.errors import EnvironmentMismatchError, InvalidInputError
from recallfs.release.copies import verified_copies
from recallfs.release.glance import Glance, is_as_seen, last_uses
from recallfs.release.ground import CanRun, Ground
from recallfs.release.looks import Looks, Status, look
from recallfs.release.policy import (
    Candidate,
    Decision,
    Wanted,
    decide,
    without_conflicts,
)
from recallfs.resolve.presence import settle
from recallfs.resolve.stores import Stores
from recallfs.values import Entry, InputRef, Level, State, now_utc

_NO_INPUTS: Mapping[str, str] = {}

Assessed = tuple[Store, Entry | Listed, Decision]
"""A file, and whether it may be released."""


class Assessment(NamedTuple):
    """What was decided about many files; what the catalog said of others that matter, by entry."""

    files: list[Assessed]
    evidence: dict[str, Listed]


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
            if not gc.get_freeze_count():
                # What was made stays: as old objects it need not be gone through to find that out.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@collecting_nothing()
def assess_all(
    stores: Stores, found: Sequence[tuple[Store, Entry | Place | Listed]], wanted: Wanted
) -> Assessment:
    """Decide about many files, of which some may rest on others. Changes nothing.

    Notes
    -----
    Of many files one row of the catalog and one look at each are most of what it takes.
    """
    by_store: dict[int, tuple[Store, list[Entry | Place | Listed]]] = {}
    for store in {id(store): store for store, _ in found}.values():
        by_store[id(store)] = store, [place for each, place in found if each is store]
    files: list[Assessed] = []
    evidence: dict[str, Listed] = {}
    for store, places in by_store.values():
        with Looks(store.root, [place.path for place in places]) as looks:
            survey = _Survey(stores, store, places, wanted)
            files += survey.decide(places, looks)
        evidence.update(survey.listed)
    if not wanted.allow_chain:
        files = _without_conflicts(files, evidence)
    if len(by_store) > 1:
        decided = {item[1].id: item for item in files}
        files = [decided[place.id] for _, place in found]
    return Assessment(files, evidence)


def _without_conflicts(files: list[Assessed], evidence: Mapping[str, Listed]) -> list[Assessed]:
    """Refuse of files that rest on one another those that free less."""
    listed = [
        item
        for _, file, _ in files
        if (item := file if type(file) is Listed else evidence.get(file.id)) is not None
    ]
    distinct = {id(item.inputs): item.inputs for item in listed}
    relied = {ref.entry_id for refs in distinct.values() for ref in refs}
    relied = {file.id for _, file, each in files if file.id in relied and each.verdict == "release"}
    if not relied:
        return files
    decisions = {file.id: decision for _, file, decision in files}
    inputs = {
        item.id: [ref.entry_id for ref in item.inputs]
        for item in listed
        if any(ref.entry_id in relied for ref in item.inputs)
    }
    changed = without_conflicts(decisions, inputs)
    return [(store, file, changed.get(file.id, decision)) for store, file, decision in files]


def runner(stores: Stores, store: Store) -> CanRun:
    """Return what tells whether a recipe can run in an environment; each pair is tried once."""
    settings = stores.config.recipes
    known: dict[tuple[str, str], str] = {}
    trying = threading.Lock()

    def can_run(recipe: str, environment: str) -> str:
        with trying:
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


def _way(item: Entry | Listed) -> tuple[str | None, str | None]:
    """Return the recipe and the environment by which a file comes back, as far as it is listed."""
    return (item.recipe, item.environment_id) if isinstance(item, Listed) else (None, None)


def _if_it_runs(decision: Decision, problem: str) -> Decision:
    if not problem or decision.verdict != "release":
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
    recalled_at = recalls[0]["at"] if recalls else None
    used, looked = last_uses(entry.metadata.mtime_ns, recalled_at, status)
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
        self, stores: Stores, store: Store, places: Sequence[Entry | Place | Listed], wanted: Wanted
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
        known = [place for place in places if isinstance(place, Listed)]
        ids = [place.id for place in places if type(place) is not Listed]
        self.listed = listing(store.catalog, ids, self._now)
        known += self.listed.values()
        self._resting = released_from(store.catalog, known)
        # Files that are made from the same have the same object as inputs.
        inputs = {id(item.inputs): item.inputs for item in known}
        wanted_ids = {ref.entry_id for refs in inputs.values() for ref in refs}
        self.listed.update({item.id: item for item in known if item.id in wanted_ids})
        self.listed.update(listing(store.catalog, wanted_ids - self.listed.keys(), self._now))
        self._are_here = {key: self._all_here(refs) for key, refs in inputs.items()}

    def decide(
        self, places: Iterable[Entry | Place | Listed], looks: Iterable[Status | None]
    ) -> list[Assessed]:
        """Decide about files, of each of which a look tells how it is now."""
        listed, resting, here = self.listed, self._resting, self._are_here
        store, present = self._store, self._present
        glance = Glance(self._url, self._settings, self._wanted, self._lowest).decide
        decided: list[Assessed] = []
        ways: dict[tuple[str | None, str | None], Future[str]] = {}
        with ThreadPoolExecutor(1) as trying:
            for place, status in zip(places, looks, strict=True):
                item = place if type(place) is Listed else listed.get(place.id)
                if item is None or (item is not place and item.path != place.path):
                    decided.append((store, *self._alone(place)))
                    continue
                decision = None
                if status is not None and here.get(id(item.inputs)) and place.id not in resting:
                    decision = glance(item, status, present)
                if decision is None:
                    decided.append((store, *self._closely(item, status)))
                    continue
                # Whether a recipe runs takes as long to find out as to look at many files.
                way = (item.recipe, item.environment_id)
                if way not in ways:
                    ways[way] = trying.submit(self._can_run, str(way[0]), str(way[1]))
                decided.append((store, item, decision))
        problems = {way: trial.result() for way, trial in ways.items()}
        if any(problems.values()):
            decided = [
                (store, item, _if_it_runs(decision, problems.get(_way(item), "")))
                for store, item, decision in decided
            ]
        return decided

    def _closely(self, item: Listed, status: Status | None) -> tuple[Entry | Listed, Decision]:
        """Decide about one file that is out of the ordinary."""
        candidate = self._candidate(item, status)
        if candidate is None:
            return self._alone(item)
        decision = decide(candidate, self._settings, self._wanted)
        # The catalog knows what is kept of a file in all; how large its skeleton is, the sidecar.
        asks_more = decision.kind == "unproved" and self._has_remotes
        if asks_more or decision.kind == "skeleton-too-large":
            return self._alone(item)
        if decision.verdict == "release" and item.recipe is not None:
            problem = self._can_run(item.recipe, str(item.environment_id))
            decision = _if_it_runs(decision, problem)
        return item, decision

    def _alone(self, place: Entry | Listed | Place) -> tuple[Entry | Listed, Decision]:
        """Decide about one file by its sidecar."""
        entry = place if isinstance(place, Entry) else self._store.catalog.entry(place.id)
        if entry is None:
            raise InvalidInputError(
                f"{self._url}{place.path} was forgotten meanwhile; try again.",
                kind="unknown-entry",
            )
        return entry, assess(self._stores, self._store, entry, self._wanted)

    def _candidate(self, item: Listed, status: Status | None) -> Candidate | None:
        """Put together what is known of a file; None if that is not enough."""
        if item.kept_bytes is None:
            return None
        if item.state == State.RESIDENT.value and is_as_seen(item, status):
            if not self._are_here.get(id(item.inputs)):
                return None
        elif not (item.state == State.RELEASED.value and status is None):
            return None
        used, looked = last_uses(item.mtime_ns, item.recalled_at, status)
        resting = self._resting.get(item.id)
        return Candidate(
            url=self._url + item.path,
            size_bytes=item.size_bytes,
            state=State(item.state),
            is_pinned=item.is_pinned,
            idle=timedelta(seconds=self._present - used),
            unused=timedelta(seconds=self._present - looked),
            proofs=item.proofs,
            verified_copies=(),
            kept_bytes=item.kept_bytes,
            links=1 if status is None else status.st_nlink,
            resting=[self._url + path for path in resting] if resting else (),
            rests_on=(),  # those that are not here: there are none
            lost_inputs=_NO_INPUTS,
            lowest=self._lowest,
        )

    def _all_here(self, inputs: Iterable[InputRef]) -> bool:
        """Tell whether all inputs are at their paths as they were seen, with the same bytes."""
        return all(map(self._is_here, inputs))

    def _is_here(self, ref: InputRef) -> bool:
        item = self.listed.get(ref.entry_id)
        if item is None or item.id in self._leaving or item.sha256 != ref.sha256:
            return False
        # Of what is made from itself nothing is here in its own stead.
        is_own = bool(item.inputs) and any(other.entry_id == item.id for other in item.inputs)
        is_resident = item.state == State.RESIDENT.value
        return is_resident and not is_own and is_as_seen(item, look(self._root + item.path))
