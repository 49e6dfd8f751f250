"""Many runs: all are looked at before the first begins, and what is there is passed over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from recallfs.catalog.store import Store
from recallfs.errors import RecallError, RecomputeError
from recallfs.recipes.runs import Run, refusal
from recallfs.resolve.derive import Derived, derive, foresee
from recallfs.resolve.stores import Stores
from recallfs.resolve.wish import Wish

_INTERRUPT_CHECK_S = 0.2


@dataclass(frozen=True)
class Step:
    """A run, and the earlier ones (by number) that make its inputs."""

    run: Run
    after: frozenset[int]


@dataclass(frozen=True)
class Done:
    """What became of a run: either `derived` or `error` is there."""

    run: Run
    derived: Derived | None
    error: RecallError | None = None

    @property
    def status(self) -> str:
        """``made``, ``there`` (the same derivation made it before), ``taken`` or ``failed``."""
        if self.derived is None:
            return "failed"
        if self.derived.source:
            return "taken"
        return "made" if self.derived.executed else "there"


def arrange(stores: Stores, runs: Sequence[Run]) -> list[Step]:
    """Look at all runs, and find out which must wait for which.

    Parameters
    ----------
    runs : sequence of Run
        An input may be what a run further up makes.

    Raises
    ------
    InvalidInputError
        Names everything that speaks against any of them; nothing was run.
    """
    makers: dict[tuple[str, str], int] = {}
    steps: list[Step] = []
    problems: list[str] = []
    for number, run in enumerate(runs):
        try:
            after = _look(stores, run, makers)
            steps.append(Step(run, after))
            for address in run.outputs.values():
                store, path = stores.resolve(address)
                other = makers.setdefault((store.id, path), number)
                if other != number:
                    problems.append(f"{run.label}: {address} is made by {runs[other].label} too.")
        except RecallError as error:
            problems.append(f"{run.label}: {error.message}")
    if problems:
        raise refusal(f"{len(runs):,} runs", problems)
    return steps


def _look(stores: Stores, run: Run, makers: dict[tuple[str, str], int]) -> frozenset[int]:
    """Check a run; return the numbers of those that it comes after."""
    after: set[int] = set()

    def note(store: Store, path: str) -> bool:
        # A folder is made as a whole, and a file in it with it.
        places = [path, *(path[:cut] for cut, letter in enumerate(path) if letter == "/")]
        found = {makers[store.id, place] for place in places if (store.id, place) in makers}
        after.update(found)
        return bool(found)

    for address in run.inputs.values():
        note(*stores.resolve(address))
    foresee(
        stores,
        run.recipe,
        outputs=run.outputs,
        inputs=run.inputs,
        parameters=run.parameters,
        is_coming=note,
    )
    return frozenset(after)


def execute(
    stores: Stores,
    steps: Sequence[Step],
    *,
    jobs: int,
    wish: Wish,
    reuse: bool | None = None,
    told: Callable[[Done], None] = lambda _done: None,
) -> list[Done]:
    """Run what is not there yet; one that fails does not keep the others back.

    Parameters
    ----------
    jobs : int
        How many run at a time; the host's budget of recomputes holds all the same.
    told : callable
        Called as each is done.

    Notes
    -----
    When it is interrupted, recipes that run are ended, and what they were to make is not there.
    Asked again, it goes on with what is missing.
    """
    stop = threading.Event()
    done: dict[int, Done] = {}
    waiting = dict(enumerate(steps))
    running: dict[Future[Done], int] = {}

    def work(run: Run) -> Done:
        try:
            made = derive(
                stores,
                run.recipe,
                outputs=run.outputs,
                inputs=run.inputs,
                parameters=run.parameters,
                wish=wish,
                reuse=reuse,
                cancelled=stop,
            )
        except RecallError as error:
            return Done(run, None, error)
        return Done(run, made)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                for number, step in list(waiting.items()):
                    if len(running) == jobs:
                        break
                    failed = [done[i] for i in sorted(step.after) if i in done and done[i].error]
                    if failed:
                        done[number] = _held_back(waiting.pop(number).run, failed[0].run)
                        told(done[number])
                    elif step.after <= done.keys():
                        running[pool.submit(work, waiting.pop(number).run)] = number
                # Woken now and then, because an interrupt does not end a wait on a lock everywhere.
                ended, _ = wait(running, _INTERRUPT_CHECK_S, FIRST_COMPLETED)
                for future in ended:
                    number = running.pop(future)
                    done[number] = future.result()
                    told(done[number])
        except BaseException:
            stop.set()
            raise
    return [done[number] for number in range(len(steps))]


def _held_back(run: Run, other: Run) -> Done:
    return Done(
        run,
        None,
        RecomputeError(
            f"{run.label} was not run: {other.label}, which makes one of its inputs, failed.",
            kind="recipe-failed",
        ),
    )
