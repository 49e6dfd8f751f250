"""Random operations, killed at random points: by fault point or by time, alone or two at once."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from operations import HOLDS, PATHS, Operation, by_chance, run_of
from world import Kill, World


@dataclass
class Tally:
    """How often what was killed, where; and how long things usually take."""

    kills: int = 0
    steps: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    usual_points: dict[str, int] = field(default_factory=dict)
    usual_s: dict[str, float] = field(default_factory=dict)


def kill_at_random(base: Path, seed: int, kills: int, tally: Tally) -> None:
    """Use a new store until so many processes were killed in it, then bring everything back.

    Raises
    ------
    AssertionError
        With all that happened.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    world = World(base / f"world-{seed}")
    wanted = tally.kills + kills
    number = 0
    try:
        world.do(Operation("write", {"path": "raw.nwb", "number": 0}))
        world.do(run_of(chance.choice(["digested", "spread"]), "raw.nwb", ["a.nwb"], 0))
        world.do(Operation("prove", {"path": "a.nwb", "hiding": "aside"}))
        while tally.kills < wanted:
            number += 1
            tally.steps += 1
            operations = [
                _apt(world, chance, number * 2 + which) for which in range(chance.choice([1, 1, 2]))
            ]
            planned = [(op, _kill(chance, op, tally)) for op in operations]
            for operation, outcome in zip(operations, world.do_together(planned), strict=True):
                if outcome.was_killed:
                    tally.kills += 1
                    tally.operations[operation.what] += 1
                    tally.points[outcome.killed_at or "at some time"] += 1
                elif not outcome.refusal:
                    tally.usual_points[operation.what] = outcome.points
                    tally.usual_s[operation.what] = outcome.seconds
            if chance.random() < 0.1:
                _by_the_user(world, chance, number)
        world.finish(chance)
    finally:
        world.end()


def _apt(world: World, chance: random.Random, number: int) -> Operation:
    """Choose an operation that has a chance to do something, most of the time."""
    proved = sorted(path for path in world.proved if (world.root / path).exists())
    if proved and chance.random() < 0.3:
        some = {"path": chance.choice(proved), "hold": chance.choice(list(HOLDS))}
        return Operation("release", {**some, "allow_chain": chance.random() < 0.7})
    gone = sorted(path for path in world.owed if not (world.root / path).exists())
    if gone and chance.random() < 0.3:
        return Operation(
            chance.choice(["get", "read", "undo", "purge"]), {"path": chance.choice(gone)}
        )
    for _ in range(60):
        operation = by_chance(chance, number)
        if chance.random() < 0.02 or _is_apt(world, operation, chance):
            break
    return operation


def _is_apt(world: World, operation: Operation, chance: random.Random) -> bool:
    some = operation.arguments
    path = some.get("path", some.get("source", ""))
    is_here = (world.root / path).is_file()
    if operation.what == "run":
        free = not any((world.root / out).exists() or out in world.owed for out in some["outputs"])
        return is_here and path in world.owed and free
    if operation.what == "add":
        return path in world.foreign
    if operation.what in ("get", "read", "undo", "purge"):
        return path in world.owed and not is_here
    if operation.what == "prove":
        return is_here and path in world.derived - world.proved
    if operation.what == "release":
        return is_here and path in world.proved
    if operation.what in ("pin", "forget", "move"):
        return path in world.owed and chance.random() < 0.5
    if operation.what == "write":
        return path not in world.owed or chance.random() < 0.2
    return chance.random() < 0.3


def _kill(chance: random.Random, operation: Operation, tally: Tally) -> Kill | None:
    roll = chance.random()
    if roll < 0.2:
        return None
    if roll < 0.7:
        return Kill(point=chance.randint(1, tally.usual_points.get(operation.what, 8) or 1))
    return Kill(seconds=chance.uniform(0, tally.usual_s.get(operation.what, 0.05)))


def _by_the_user(world: World, chance: random.Random, number: int) -> None:
    path, other = chance.sample(PATHS, 2)
    what = chance.randrange(6)
    if what == 0:
        world.remove(path)
    elif what == 1:
        world.scribble(path, number)
    elif what == 2:
        world.rename(path, other)
    elif what == 3:
        world.push(path)
    elif what == 4:
        world.drop_copy(path)
    else:
        world.lose_catalog()


def at_once(
    base: Path, seed: int, *, processes: int, seconds: float, kill_every_s: float = 0.0
) -> Counter[str]:
    """Let processes do random things on the same paths for a while, then bring everything back.

    Parameters
    ----------
    kill_every_s : float
        How often, in the mean, one of them is killed and another one started; 0 for never.

    Returns
    -------
    Counter of str
        How often what came of it: ``ok`` or the kind of a refusal.

    Raises
    ------
    AssertionError
        With all that happened.
    """
    world = World(base / f"at-once-{seed}")
    try:
        world.do(Operation("write", {"path": "raw.nwb", "number": 0}))
        world.do(run_of("digested", "raw.nwb", ["a.nwb"], 0))
        world.do(Operation("prove", {"path": "a.nwb", "hiding": "aside"}))
        seeds = [seed * 100 + number for number in range(processes)]
        said = world.churn(seeds, seconds, kill_every_s)
        world.finish(random.Random(seed))  # noqa: S311 - no secret
    finally:
        world.end()
    return said
