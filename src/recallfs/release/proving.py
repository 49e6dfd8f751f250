"""Campaigns: proving thousands of files, some at a time, resumed where they were interrupted."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

from recallfs.catalog import attempts, records
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.digest.tally import Tolerance
from recallfs.environment.interpreter import check_start, find_interpreter
from recallfs.errors import RecallError
from recallfs.release.failed import (
    expected_reason,
    is_by_chance,
    planned_environment,
    present_source,
    told_error,
)
from recallfs.release.proof import Proved, prove
from recallfs.release.runs import Runs
from recallfs.release.scratch import check_scratch, sweep
from recallfs.resolve.environments import wanted_environment
from recallfs.resolve.stores import Stores
from recallfs.resolve.wish import Wish
from recallfs.values import Derivation, Entry, Level, Proof, now_utc

_INTERRUPT_CHECK_S = 0.2


@dataclass(frozen=True)
class Terms:
    """How a campaign goes about it.

    Parameters
    ----------
    hiding, max_residual, level, tolerance
        As `recallfs.release.proof.prove` takes them.
    environment : str, optional
        Label or digest of the environment to prove in; by default that on record.
    scratch : Path, optional
        Folder that recipes write to; by default each store's own.
    jobs : int
        How many derivations at a time; the host's budget of recomputes holds all the same.
    until_bytes : int, optional
        Stop once files of so many bytes are proved, those counted that were before.
    largest_first : bool
    again : bool
        Prove anew what has a proof.
    retry_expected : bool
        Try again what failed last as was expected.
    """

    hiding: str = "namespace"
    max_residual: float | None = None
    level: Level | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    environment: str | None = None
    scratch: Path | None = None
    jobs: int = 1
    until_bytes: int | None = None
    largest_first: bool = False
    again: bool = False
    retry_expected: bool = False


@dataclass(frozen=True)
class Tried:
    """What became of a file.

    Parameters
    ----------
    status : {"proved", "there", "expected", "unbound", "failed"}
        *there*: it has a proof; *expected*: passed over, because it failed as was expected;
        *unbound*: passed over, because no recipe is on record for it.
    reason : str
        Why it was passed over, or what else is to be said.
    """

    store: Store
    entry: Entry
    status: str
    proved: Proved | None = None
    error: RecallError | None = None
    reason: str = ""

    @property
    def url(self) -> str:
        """Address of the file."""
        return self.store.url(self.entry.path)


@dataclass(frozen=True)
class Campaign:
    """What became of a selection.

    Parameters
    ----------
    tried : tuple of Tried
        In the order in which they were taken up.
    left : tuple of (Store, Entry)
        Not taken up: enough was proved, or the campaign had to stop.
    stopped : RecallError or None
        Why it had to stop; kind ``no-space``.
    """

    tried: tuple[Tried, ...]
    left: tuple[tuple[Store, Entry], ...] = ()
    stopped: RecallError | None = None


@dataclass(eq=False)
class _Unit:
    """Files that one run gives, and what became of those that were tried."""

    files: list[tuple[Store, Entry]]
    done: list[Tried] = field(default_factory=list)
    doubtful: list[Tried] = field(default_factory=list)  # failed, perhaps for want of being alone
    full: RecallError | None = None

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for _, entry in self.files)

    @property
    def presumed_bytes(self) -> int:
        """What is proved of it, and what still may be."""
        failed = sum(item.entry.size_bytes for item in self.done if item.status == "failed")
        return self.size_bytes - failed


def campaign(
    stores: Stores,
    found: Sequence[tuple[Store, Entry]],
    terms: Terms,
    wish: Wish | None = None,
    *,
    told: Callable[[Tried], None] = lambda _tried: None,
) -> Campaign:
    """Prove files; one that fails does not keep the others back.

    Parameters
    ----------
    told : callable
        Called in the caller's thread as the fate of each file is known.

    Returns
    -------
    Campaign
        Which files are taken up does not depend on `terms.jobs`.

    Raises
    ------
    InvalidInputError, AccessError
        The scratch folder cannot be used, or the environment is not on record.
    EnvironmentMismatchError
        It cannot be started.

    Notes
    -----
    Each proof is recorded as it is made, so that a campaign that was killed goes on where it was.
    What fails beside others is tried once more alone.
    """
    if terms.scratch is not None:
        place = check_scratch(terms.scratch)
        sweep(place)
        terms = replace(terms, scratch=place)
    environments = _environments(stores, found, terms)
    units, passed = _arrange(_Look(stores, terms, environments), found)
    for item in passed:
        told(item)
    scheduler = _Scheduler(stores, terms, environments, wish or Wish(), told)
    proved_bytes = sum(item.entry.size_bytes for item in passed if item.status == "there")
    left, stopped = scheduler.run(units, proved_bytes)
    tried = [item for unit in units for item in unit.done]
    return Campaign((*passed, *tried), tuple(left), stopped)


@dataclass
class _Scheduler:
    """Takes up one unit after the other, some at a time."""

    stores: Stores
    terms: Terms
    environments: Mapping[str, str]
    wish: Wish
    told: Callable[[Tried], None]
    stop: threading.Event = field(default_factory=threading.Event)
    known: set[str] = field(default_factory=set)

    def run(
        self, units: Sequence[_Unit], proved_bytes: int
    ) -> tuple[list[tuple[Store, Entry]], RecallError | None]:
        """Try unit after unit; return what was left, and why it had to stop if it had."""
        waiting, taken, doubtful = deque(units), list[_Unit](), list[_Unit]()
        running: dict[Future[None], _Unit] = {}
        stopped: RecallError | None = None
        is_alone = False

        def is_enough() -> bool:
            # What runs, or is to be tried again, is taken to succeed; if it fails, others follow:
            # so the same are taken up, however many run at a time.
            if self.terms.until_bytes is None:
                return False
            pending = [*running.values(), *doubtful]
            total = proved_bytes + sum(unit.presumed_bytes for unit in pending)
            return total >= self.terms.until_bytes

        with ThreadPoolExecutor(self.terms.jobs) as pool:
            try:
                while stopped is None:
                    is_alone = is_alone and bool(running)
                    most = 0 if is_alone else self.terms.jobs
                    while waiting and len(running) < most and not is_enough():
                        unit = waiting.popleft()
                        taken.append(unit)
                        running[pool.submit(self._try, unit)] = unit
                    if not running and not doubtful:
                        break
                    if not running:
                        is_alone, unit = True, doubtful.pop(0)
                        running[pool.submit(self._try_alone, unit)] = unit
                    # Woken now and then: an interrupt does not end a wait on a lock everywhere.
                    ended, _ = wait(running, _INTERRUPT_CHECK_S, FIRST_COMPLETED)
                    for future in ended:
                        unit = running.pop(future)
                        future.result()
                        self._tell(unit)
                        stopped = stopped or unit.full
                        if unit.doubtful:
                            doubtful.append(unit)
                        else:
                            proved_bytes += unit.presumed_bytes
            except BaseException:
                self.stop.set()
                raise
            self.stop.set()  # nothing runs any more, unless it had to stop
            for future, unit in running.items():
                future.result()
                self._tell(unit)
        left = [file for unit in waiting for file in unit.files]
        for unit in taken:
            settled = {item.entry.id for item in unit.done}
            left += [(store, entry) for store, entry in unit.files if entry.id not in settled]
        return left, stopped

    def _tell(self, unit: _Unit) -> None:
        for item in unit.done:
            if item.entry.id not in self.known:
                self.known.add(item.entry.id)
                self.told(item)

    def _try(self, unit: _Unit) -> None:
        self._prove(unit, unit.files, is_alone=self.terms.jobs == 1)

    def _try_alone(self, unit: _Unit) -> None:
        """Try again what failed beside others."""
        before = {item.entry.id: item.error for item in unit.doubtful}
        files = [(item.store, item.entry) for item in unit.doubtful]
        unit.doubtful = []
        count = len(unit.done)
        self._prove(unit, files, is_alone=True)
        for number, item in enumerate(unit.done[count:], count):
            if item.status == "proved":
                reason = f"passes alone, fails in parallel: {before[item.entry.id]}"
                unit.done[number] = replace(item, reason=reason)

    def _prove(self, unit: _Unit, files: Sequence[tuple[Store, Entry]], *, is_alone: bool) -> None:
        terms = self.terms
        with Runs(terms.scratch) as runs:
            for store, entry in files:
                if self.stop.is_set():
                    return
                try:
                    proved = prove(
                        self.stores,
                        store,
                        entry,
                        self.wish,
                        hiding=terms.hiding,
                        max_residual=terms.max_residual,
                        runs=runs,
                        level=terms.level,
                        tolerance=terms.tolerance,
                        environment=self.environments.get(store.id),
                        scratch=terms.scratch,
                        cancelled=self.stop,
                    )
                except (RecallError, OSError) as caught:
                    error = told_error(caught, store, entry.path)
                    if error.kind == "no-space":
                        unit.full = error
                        return
                    if self.stop.is_set():
                        return
                    item = Tried(store, entry, "failed", error=error)
                    (unit.done if is_alone or not is_by_chance(error) else unit.doubtful).append(
                        item
                    )
                else:
                    unit.done.append(Tried(store, entry, "proved", proved))


def _environments(
    stores: Stores, found: Sequence[tuple[Store, Entry]], terms: Terms
) -> dict[str, str]:
    """Return the digest of the wanted environment in each store, once it has started."""
    if terms.environment is None:
        return {}
    environments = {}
    for store in {store.id: store for store, _ in found}.values():
        identifier = wanted_environment(store, terms.environment, stores.config.recipes)
        check_start(store, identifier, stores.config.environments.folder)
        environments[store.id] = identifier
    return environments


def _arrange(look: _Look, found: Sequence[tuple[Store, Entry]]) -> tuple[list[_Unit], list[Tried]]:
    """Put together what one run gives, in the order wished for; what need not be tried apart."""
    units: dict[str, _Unit] = {}
    passed: list[Tried] = []
    for store, entry in found:
        key = entry.id
        with contextlib.suppress(RecallError):  # as proving it will say
            record = records.load(store, entry.id)
            derivation = record.derivation(now_utc())
            if derivation is not None:
                key = derivation.id
            item = look.passed_over(store, record, derivation)
            # Of a single file, proving it says what is wrong.
            if item is not None and (derivation is not None or len(found) > 1):
                passed.append(item)
                continue
        units.setdefault(key, _Unit([])).files.append((store, entry))
    order = list(units.values())
    if look.terms.largest_first:
        order.sort(key=lambda unit: -unit.size_bytes)
    return order, passed


@dataclass
class _Look:
    """Finds out what need not be tried."""

    stores: Stores
    terms: Terms
    environments: Mapping[str, str]
    sources: dict[str, str] = field(default_factory=dict)

    def passed_over(
        self, store: Store, record: Record, derivation: Derivation | None
    ) -> Tried | None:
        """Return why an entry need not be tried; None if it must be."""
        if derivation is None:
            return Tried(store, record.entry, "unbound", reason="no recipe is on record")
        if not self.terms.again and self._is_proved(store, record, derivation):
            return Tried(store, record.entry, "there", reason="proved already")
        if self.terms.retry_expected:
            return None
        failure = attempts.load(store, record.entry.id)
        if failure is None:
            return None
        # As it is configured now: a pattern may be newer than the failure, or gone by now.
        patterns = self.stores.config.expected_failures
        reason = expected_reason(patterns, failure.kind, failure.message, failure.log)
        if not reason:
            return None
        wanted = self.environments.get(store.id)
        environment, _ = planned_environment(self.stores, store, record, derivation, wanted)
        same = (failure.recipe, failure.source_digest, failure.environment_id)
        if same != (derivation.recipe, self._source(derivation.recipe), environment):
            return None
        return Tried(store, record.entry, "expected", reason=reason)

    def _is_proved(self, store: Store, record: Record, derivation: Derivation) -> bool:
        """Tell whether there is a valid proof of the present recipe at the level wanted."""
        lowest = self.terms.level or store.settings.level or Level.EXACT
        near = self.terms.tolerance

        def counts(proof: Proof) -> bool:
            is_near = proof.rtol <= near.relative and proof.atol <= near.absolute
            return (
                proof.derivation_id == derivation.id
                and proof.level.reaches(lowest)
                and (is_near or proof.level is not Level.TOLERANCE)
                and self._is_of_environment(store, proof)
                and self._is_of_source(proof, derivation)
            )

        return any(counts(proof) for proof in record.valid_proofs(now_utc()))

    def _is_of_environment(self, store: Store, proof: Proof) -> bool:
        wanted = self.environments.get(store.id)
        if wanted in (None, proof.environment_id):
            return True
        # One that is built again tells of itself a little otherwise than the one on record.
        python = find_interpreter(store, str(wanted), self.stores.config.environments.folder)
        ran = records.environment(store, proof.environment_id).get("executable")
        return python is not None and str(python) == ran

    def _source(self, recipe: str) -> str:
        if recipe not in self.sources:
            self.sources[recipe] = present_source(self.stores, recipe)
        return self.sources[recipe]

    def _is_of_source(self, proof: Proof, derivation: Derivation) -> bool:
        present = self._source(derivation.recipe)
        # Of early proofs the code is not known, nor that of a recipe that is not here.
        return not proof.source_digest or not present or proof.source_digest == present
