"""What several processes do to one catalog at once; each function is one process's part."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from recallfs.catalog.database import Catalog, Intent
from recallfs.errors import ConflictError
from recallfs.testing.records import STORE_ID, hex_id, plain_record
from recallfs.values import Identity, State

_context = multiprocessing.get_context("forkserver")


def in_processes(
    function: Callable[..., None], arguments: Sequence[Sequence[Any]], *, seconds: float = 120
) -> list[int | None]:
    """Run a function in one process for each of the lists of arguments.

    Parameters
    ----------
    function : callable
        Gets a barrier at which all of them can meet, then the arguments.
    seconds : float
        After which those that still run are killed.

    Returns
    -------
    list of int or None
        Exit codes.
    """
    barrier = _context.Barrier(len(arguments))
    processes = [_context.Process(target=function, args=(barrier, *items)) for items in arguments]
    for process in processes:
        process.start()
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(0, end - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def hold_in_turn(barrier: Barrier, url: str, name: str, folder: str, turns: int) -> None:
    """Take one lease several times; whoever has it must be the only one."""
    catalog = Catalog(url, STORE_ID)
    token = Path(folder, "held")
    fences: list[int] = []
    barrier.wait()
    for attempt in range(1_000_000):
        if len(fences) == turns:
            break
        fence = catalog.take_lease("shared", f"{name}|{attempt}", instead_of=None)
        if fence is None:
            time.sleep(random.uniform(0, 0.005))  # noqa: S311 - no secret
            continue
        os.close(os.open(token, os.O_CREAT | os.O_EXCL))
        fences.append(fence)
        if not catalog.beat_lease("shared", fence):
            raise AssertionError("the holder's beat was refused")
        token.unlink()
        if not catalog.free_lease("shared", fence):
            raise AssertionError("the holder could not give the lease back")
    Path(folder, name).write_text("\n".join(map(str, fences)), encoding="ascii")
    catalog.close()


def take_over(barrier: Barrier, url: str, name: str, folder: str, rounds: int) -> None:
    """Take leases of a dead holder at the very moment in which others do."""

    def wins(catalog: Catalog, number: int) -> bool:
        seen = catalog.lease(f"dead-{number}")
        barrier.wait()
        fence = catalog.take_lease(f"dead-{number}", f"{name}|{number}", instead_of=seen)
        barrier.wait()
        return fence is not None

    _note_won(url, Path(folder, name), rounds, wins)


def first_takers(barrier: Barrier, url: str, name: str, folder: str, rounds: int) -> None:
    """Take leases that nobody ever had at the very moment in which others do."""

    def wins(catalog: Catalog, number: int) -> bool:
        barrier.wait()
        fence = catalog.take_lease(f"new-{number}", f"{name}|{number}", instead_of=None)
        if fence not in (None, 1):
            raise AssertionError(f"the first fence is {fence}")
        return fence is not None

    _note_won(url, Path(folder, name), rounds, wins)


def claim_paths(barrier: Barrier, url: str, name: str, folder: str, rounds: int) -> None:
    """Put entries at paths at the very moment in which others put theirs there."""

    def wins(catalog: Catalog, number: int) -> bool:
        barrier.wait()
        try:
            catalog.put([plain_record(f"wanted {number}", name=f"{name} {number}")])
        except ConflictError:
            return False
        return True

    _note_won(url, Path(folder, name), rounds, wins)


def _note_won(url: str, report: Path, rounds: int, wins: Callable[[Catalog, int], bool]) -> None:
    catalog = Catalog(url, STORE_ID)
    won = [number for number in range(rounds) if wins(catalog, number)]
    report.write_text("\n".join(map(str, won)), encoding="ascii")
    catalog.close()


def work(barrier: Barrier, url: str, name: str, folder: str, seconds: float) -> None:
    """Put, move, look at and drop entries of one's own among those of others."""
    catalog = Catalog(url, STORE_ID)
    chance = random.Random(name)  # noqa: S311 - no secret
    own: dict[str, str] = {}
    events = 0
    # Named so that the processes' rows lie between each other's in every index.
    places = [f"day {day}/{number:03}-{name}" for day in range(3) for number in range(40)]
    barrier.wait()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        free = [place for place in places if place not in own.values()]
        wanted = chance.sample(free, 4)
        new = [plain_record(place, name=f"{name} {events} {place}") for place in wanted[:3]]
        catalog.intend(Intent(r.entry.id, "create", r.entry.path, {}, name) for r in new)
        catalog.put(new, {f"environment {len(own) % 3}": "{}"})
        own.update({record.entry.id: record.entry.path for record in new})
        catalog.see(new[0].entry, State.RESIDENT, Identity(1, 2**64 - 1, 3, 4, 5))
        moved = replace(new[1], entry=replace(new[1].entry, path=wanted[3]))
        catalog.put([moved])
        own[moved.entry.id] = wanted[3]
        catalog.add_event("move", moved.entry, name, {"old": wanted[1]})
        catalog.add_recall(moved.entry, who=name, source="nas", seconds=1.0, level="exact")
        events += 1
        for identifier in chance.sample(sorted(own), max(0, len(own) - 30)):
            catalog.drop(identifier)
            del own[identifier]
        _look(catalog, own, name)
    lines = [f"{identifier} {place}" for identifier, place in own.items()]
    Path(folder, name).write_text("\n".join([str(events), *lines]), encoding="ascii")
    catalog.close()


def _look(catalog: Catalog, own: Mapping[str, str], name: str) -> None:
    below = {e.id: e.path for e in catalog.entries_below("") if e.path.endswith(f"-{name}")}
    inside = {e.id: e.path for day in range(3) for e in catalog.children(f"day {day}")[0]}
    inside = {key: place for key, place in inside.items() if place.endswith(f"-{name}")}
    if not below == inside == own:
        raise AssertionError(f"{name} has {own}, but finds {below} and {inside}")


def fork_and_ask(barrier: Barrier, url: str, folder: str) -> None:
    """Ask a catalog in a child that was forked with an open connection, and in its parent."""
    barrier.wait()
    catalog = Catalog(url, STORE_ID)
    catalog.put([plain_record("before")])
    child = os.fork()
    if child == 0:
        try:
            for number in range(20):
                catalog.put([plain_record(f"child/{number}")])
            if len(catalog.children("child")[0]) == 20 and catalog.entry_at("before") is not None:
                Path(folder, "child").touch()
        finally:
            os._exit(0)
    for number in range(20):
        catalog.put([plain_record(f"parent/{number}")])
    os.waitpid(child, 0)
    if len(catalog.children("child")[0]) == len(catalog.children("parent")[0]) == 20:
        Path(folder, "parent").touch()
    catalog.close()


def prepare(barrier: Barrier, url: str) -> None:
    """Open a catalog that is not there yet, at the very moment in which others do."""
    catalog = Catalog(url, STORE_ID)
    barrier.wait()
    catalog.prepare()
    catalog.put([plain_record(f"by {os.getpid()}")])
    catalog.close()


def dead_lease(catalog: Catalog, number: int) -> None:
    """Make a lease whose holder will not be heard of again."""
    catalog.take_lease(f"dead-{number}", hex_id(str(number)), instead_of=None)
