"""Trials: which share of files would be proved, judged from a random sample; nothing is recorded.

The files of the sample are adopted and proved in a shadow of their store
(`recallfs.catalog.shadow`): by the very code that proves, but all that it writes lies in a private
folder, which is thrown away.
"""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import gettempdir

from recallfs.catalog import attempts, records
from recallfs.catalog.shadow import Shadow, cast_shadow, copy_records
from recallfs.catalog.store import Store
from recallfs.config import StoreSettings
from recallfs.digest.tally import Tolerance
from recallfs.environment.interpreter import label_of
from recallfs.environment.keeping import known_as
from recallfs.errors import InvalidInputError, RecallError, RecomputeError
from recallfs.recipes.outputs import is_folder
from recallfs.recipes.runs import Run
from recallfs.recipes.sandbox import can_hide
from recallfs.release.failed import is_by_chance, planned_environment, told_error
from recallfs.release.proof import Proved, prove
from recallfs.release.runs import Runs
from recallfs.release.scratch import check_scratch, own_folder, sweep
from recallfs.resolve.binding import Present, adopt
from recallfs.resolve.commit import add_existing
from recallfs.resolve.inputs import entries_of_input
from recallfs.resolve.presence import has_bytes
from recallfs.resolve.recall import obtain_input, recall
from recallfs.resolve.stores import Stores
from recallfs.resolve.wish import Wish
from recallfs.values import Entry, Level, State, now_utc

OUTCOMES = ("exact", "content", "tolerance", "failed")
"""What can come of a file."""

_INTERRUPT_CHECK_S = 0.2
_LETTERS = 160
_DIGEST = re.compile("[0-9a-f]{16,}…?")


@dataclass(frozen=True)
class Candidate:
    """A file that a trial may take.

    Parameters
    ----------
    run : Run or None
        How it was made, from a list; None for an entry, whose record says so.
    paths : tuple of str
        In the store, all that the recipe gives; those of a folder are not known before it is read.
    derivation_id : str
        Of the run that made it, and others perhaps; empty where none is on record.
    """

    store: Store
    paths: tuple[str, ...]
    size_bytes: int
    entry: Entry | None = None
    run: Run | None = None
    derivation_id: str = ""

    @property
    def url(self) -> str:
        """Address of (the first of) its files."""
        return self.store.url(self.paths[0])


@dataclass(frozen=True)
class Population:
    """What a trial may draw from.

    Parameters
    ----------
    candidates : tuple of Candidate
    left_out : Mapping of str to int
        How many files are none, by why.
    """

    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of all of them."""
        return sum(item.size_bytes for item in self.candidates)

    @property
    def runs(self) -> dict[str, int]:
        """Bytes that each run of a recipe gives, by `Candidate.derivation_id` or address."""
        sizes = Counter[str]()
        for item in self.candidates:
            sizes[item.derivation_id or item.url] += item.size_bytes
        return dict(sizes)


@dataclass(frozen=True)
class Sampled:
    """What came of a file of the sample.

    Parameters
    ----------
    outcome : {"exact", "content", "tolerance", "failed"}
    environment : str
        Label of the environment that it ran in; empty if that is not known.
    kept_bytes : int
        What would be kept of it.
    reason : str
        Why it failed; or that it did beside others, and not alone.
    derivation_id : str
        As of the candidate.
    """

    url: str
    recipe: str
    environment: str
    size_bytes: int
    outcome: str
    seconds: float
    kept_bytes: int = 0
    error: RecallError | None = None
    reason: str = ""
    derivation_id: str = ""


def population_of_entries(found: Sequence[tuple[Store, Entry]]) -> Population:
    """Return the entries that are here and that a recipe made."""
    candidates, left_out = list[Candidate](), Counter[str]()
    for store, entry in found:
        if entry.state is not State.RESIDENT:
            left_out[entry.state.value] += 1
            continue
        derivation = records.load(store, entry.id).derivation(now_utc())
        if derivation is None:
            left_out["no recipe on record"] += 1
            continue
        candidates.append(
            Candidate(
                store, (entry.path,), entry.size_bytes, entry=entry, derivation_id=derivation.id
            )
        )
    return Population(tuple(candidates), left_out)


def population_of_runs(stores: Stores, runs: Sequence[Run]) -> Population:
    """Return the files that a list says how to make; they need not be on record."""
    candidates, left_out = list[Candidate](), Counter[str]()
    for run in runs:
        targets = [stores.resolve(address) for address in run.outputs.values()]
        sizes = [_size(store.locate(path)) for store, path in targets]
        if not targets or None in sizes:
            left_out["not there"] += 1
            continue
        paths = tuple(path for _, path in targets)
        size_bytes = sum(size for size in sizes if size is not None)
        candidates.append(Candidate(targets[0][0], paths, size_bytes, run=run))
    return Population(tuple(candidates), left_out)


def _size(place: Path) -> int | None:
    if place.is_dir():
        return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return place.stat().st_size if place.is_file() else None


def draw(population: Population, count: int, seed: int | None = None) -> list[Candidate]:
    """Draw files at random, each with the same chance."""
    chosen = random.Random(seed)  # noqa: S311 - nothing is kept secret by it
    return chosen.sample(list(population.candidates), min(count, len(population.candidates)))


def try_sample(
    stores: Stores,
    sample: Sequence[Candidate],
    *,
    tolerance: Tolerance,
    scratch: Path | None = None,
    jobs: int = 1,
    told: Callable[[Sampled], None] = lambda _sampled: None,
) -> list[Sampled]:
    """Run the derivations of a sample and see what they would prove.

    Parameters
    ----------
    tolerance : Tolerance
        Above zero, the tolerance level is tried too.
    scratch : Path, optional
        Folder to work in; by default that for temporary files.
    told : callable
        Called in the caller's thread as each is done.

    Returns
    -------
    list of Sampled
        In the order of `sample`.

    Raises
    ------
    SourceError
        Kind ``no-space``.
    RecomputeError
        Kind ``cannot-hide``: the kernel does not let recipes run with the originals out of sight.

    Notes
    -----
    What fails beside others is tried once more alone, as in a campaign of proofs.

    The originals are read only, and nothing is recorded of them. Inputs that are not here are
    recalled, as whenever they are needed.
    """
    place = check_scratch(scratch or Path(gettempdir()))
    sweep(place)
    if sample and not can_hide():
        raise RecomputeError(
            "a trial runs recipes with the originals out of their sight, which the kernel does not "
            "allow here, and it renames none; run it on another computer, or prove a few files "
            "with `recall prove --hide aside`.",
            kind="cannot-hide",
        )
    stop = threading.Event()
    done: dict[int, Sampled] = {}
    with own_folder(place) as folder, contextlib.ExitStack() as stack:
        shadows = _Shadows(stores, folder)
        stack.callback(shadows.close)
        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        work = _Work(stores, shadows, tolerance, stop)
        running = [pool.submit(work.attempt, item) for item in sample]
        try:
            doubtful = []
            for number, future in enumerate(running):
                done[number] = _awaited(future)
                error = done[number].error
                if jobs > 1 and error is not None and is_by_chance(error):
                    doubtful.append(number)
                else:
                    told(done[number])
            # A recipe may fail because another runs at the same time: then it is no recipe's fault.
            for number in doubtful:
                running.append(pool.submit(work.attempt, sample[number]))
                error, done[number] = done[number].error, _awaited(running[-1])
                if done[number].error is None and error is not None:
                    said = f"passes alone, fails in parallel: {error.message}"
                    done[number] = replace(done[number], reason=said)
                told(done[number])
        except BaseException:
            stop.set()
            for future in running:
                future.cancel()
            raise
    return [done[number] for number in range(len(sample))]


def _awaited(future: Future[Sampled]) -> Sampled:
    while True:
        # Woken now and then: an interrupt does not end a wait on a lock everywhere.
        with contextlib.suppress(FutureTimeoutError):
            return future.result(_INTERRUPT_CHECK_S)


class _Shadows(Stores):
    """The shadows of stores, each cast when it is first asked for."""

    def __init__(self, stores: Stores, folder: Path) -> None:
        super().__init__(stores.config)
        self._real = stores
        self._folder = folder
        self._cast: dict[str, Shadow] = {}

    def of(self, store: Store) -> Shadow:
        """Return the shadow of a store."""
        with self._lock:
            if store.id not in self._cast:
                place = self._folder / f"store-{len(self._cast)}"
                place.mkdir(mode=0o700)
                self._cast[store.id] = cast_shadow(store, place)
            return self._cast[store.id]

    def _opened(self, root: Path, name: str | None, settings: StoreSettings) -> Store:
        return self.of(self._real._opened(root, name, settings))

    def close(self) -> None:
        """Close their catalogs."""
        for shadow in self._cast.values():
            shadow.catalog.close()


@dataclass
class _Work:
    """Tries one file after the other; several threads may."""

    stores: Stores
    shadows: _Shadows
    tolerance: Tolerance
    stop: threading.Event
    adopting: threading.Lock = field(default_factory=threading.Lock)
    present: Present = field(default_factory=Present)

    def attempt(self, item: Candidate) -> Sampled:
        """Adopt and prove a file in the shadow of its store."""
        start = time.monotonic()
        shadow = self.shadows.of(item.store)
        recipe = "" if item.run is None else item.run.recipe
        environment, error = "", None
        proved: list[Proved] = []
        try:
            with self.adopting:
                entries = self._bound(item, shadow)
            with Runs() as runs:
                for entry in entries:
                    record = records.load(shadow, entry.id)
                    derivation = record.derivation(now_utc())
                    if derivation is not None:
                        recipe = derivation.recipe
                        environment, _ = planned_environment(
                            self.stores, shadow, record, derivation
                        )
                    proved.append(self._proved(shadow, entry, runs))
                    environment = proved[-1].proof.environment_id
        except (RecallError, OSError) as failure:
            error = told_error(failure, item.store, item.paths[0])
            if error.kind == "no-space" or self.stop.is_set():
                raise error from failure
        levels = [one.proof.level for one in proved]
        lowest = max(levels, key=list(Level).index, default=Level.EXACT)
        # As it is called in the store; a shadow has labels of its own.
        environment = known_as(item.store, records.environment(shadow, environment)) or environment
        label = label_of(environment, records.environment(item.store, environment))
        return Sampled(
            url=item.url,
            recipe=recipe,
            environment=label,
            size_bytes=item.size_bytes,
            outcome="failed" if error else lowest.value,
            seconds=time.monotonic() - start,
            kept_bytes=0 if error else sum(one.kept_bytes for one in proved),
            error=error,
            reason="" if error is None else _reason(error, item),
            derivation_id=item.derivation_id,
        )

    def _proved(self, shadow: Shadow, entry: Entry, runs: Runs) -> Proved:
        lowest = Level.CONTENT if self.tolerance.is_exact else Level.TOLERANCE
        try:
            return prove(
                self.shadows,
                shadow,
                entry,
                Wish(),
                runs=runs,
                level=lowest,
                tolerance=self.tolerance,
                cancelled=self.stop,
            )
        finally:
            # The space is for the next one.
            shadow.rejected_path(entry.id).unlink(missing_ok=True)
            attempts.clear(shadow, entry.id)

    def _bound(self, item: Candidate, shadow: Shadow) -> list[Entry]:
        """Put a file and its inputs on record in the shadow; return the entries to prove."""
        if item.entry is not None:
            derivation = records.load(item.store, item.entry.id).derivation(now_utc())
            for reference in () if derivation is None else derivation.inputs:
                obtain_input(self.stores, item.store, reference)
                same = entries_of_input(item.store, reference)
                here = [one.id for one in same if has_bytes(item.store.root / one.path)]
                copy_records(item.store, shadow, here)
            copy_records(item.store, shadow, [item.entry.id])
            return [records.known_entry(shadow, item.entry.path)]
        run = item.run
        if run is None:
            raise InvalidInputError(f"nothing says how {item.url} was made.")
        for address in run.inputs.values():
            store, path = self.stores.resolve(address)
            self._bring(store, path, shadow=shadow)
        adopted = adopt(
            self.shadows,
            run.recipe,
            outputs=run.outputs,
            inputs=run.inputs,
            parameters=run.parameters,
            present=self.present,
        )
        found = []
        for name, address in adopted.outputs.items():
            _, path = self.shadows.resolve(address)
            below = shadow.catalog.entries_below(path) if is_folder(name) else []
            found += list(below) or [records.known_entry(shadow, path)]
        return found

    def _bring(self, store: Store, path: str, *, shadow: Shadow) -> None:
        """Put an input on record in the shadow, recalled first if it is not here."""
        entry = store.catalog.entry_at(path)
        if entry is None:
            place = store.locate(path)
            if shadow.catalog.entry_at(path) is None and place.is_file():
                add_existing(shadow, [path])
            return
        if entry.state is not State.RESIDENT:
            recall(self.stores, store, path)
        copy_records(store, shadow, [entry.id])


def _reason(error: RecallError, item: Candidate) -> str:
    """Say why in words that files which failed alike have in common."""
    details = error.details
    objects = [f"{one.get('path')} ({one.get('reason')})" for one in details.get("objects", [])]
    if details.get("exception"):
        text = str(details["exception"])
    elif details.get("varying"):
        text = f"other values each time in {', '.join(details['varying'])}"
    elif objects:
        text = ", ".join(objects)
    else:
        text = error.message
    for path in item.paths:
        for name in (item.store.url(path), str(item.store.root / path), path):
            text = text.replace(name, "…")
    return f"{error.kind}: {_DIGEST.sub('…', text)[:_LETTERS]}"
