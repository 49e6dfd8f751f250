"""Everything that can happen to a store, in any order: what it owes, it can give."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from operations import HOLDS, PATHS, RECIPES, Operation, run_of
from world import Kill, World

pytestmark = pytest.mark.long

paths = st.sampled_from(PATHS)
pairs = st.permutations(PATHS)
numbers = st.integers(min_value=1, max_value=10**6)
# Most operations live; the others die at one of their first fault points.
kills = st.one_of(st.none(), st.none(), st.integers(1, 12).map(lambda point: Kill(point=point)))


class Lab(RuleBasedStateMachine):
    """A lab, its users, and death."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="recallfs-machine-"))
        self.world = World(self.folder / "world")
        self.number = 0

    def teardown(self) -> None:
        """Bring back whatever is owed."""
        try:
            self.world.finish()
        finally:
            self.world.end()
            shutil.rmtree(self.folder)

    def resident(self) -> list[str]:
        """Return the paths whose entries' files are here."""
        return [p for p in self.world.owed if (self.world.root / p).exists()]

    def derived(self) -> list[str]:
        """Return the paths of entries that a recipe made and whose files are here."""
        return [p for p in self.resident() if self.world.owed[p].recipe]

    @initialize(recipe=st.sampled_from(sorted(RECIPES)), proved=st.booleans())
    def begin(self, recipe: str, proved: bool) -> None:
        """Start with a recording and what is made from it."""
        self.world.do(Operation("write", {"path": "raw.nwb", "number": 1}))
        self.world.do(run_of(recipe, "raw.nwb", ["a.nwb", "b.nwb"], 0))
        if proved:
            self.world.do(Operation("prove", {"path": "a.nwb", "hiding": "namespace"}))

    @rule(path=paths, kill=kills)
    def write(self, path: str, kill: Kill | None) -> None:
        """Write a new file, or over one."""
        self.number += 1
        self.world.do(Operation("write", {"path": path, "number": self.number + 1}), kill)

    @precondition(lambda self: self.resident())
    @rule(data=st.data(), recipe=st.sampled_from(sorted(RECIPES)), order=pairs, kill=kills)
    def run(self, data: st.DataObject, recipe: str, order: list[str], kill: Kill | None) -> None:
        """Run a recipe, on free paths where there are any."""
        source = data.draw(st.sampled_from(self.resident()))
        outputs = [path for path in order if path != source]
        outputs.sort(key=lambda path: path in self.world.owed or path in self.world.foreign)
        self.world.do(run_of(recipe, source, outputs, 0), kill)

    @rule(path=paths, what=st.sampled_from(["read", "get", "add", "undo", "purge"]), kill=kills)
    def use(self, path: str, what: str, kill: Kill | None) -> None:
        """Do what needs a path alone."""
        self.world.do(Operation(what, {"path": path}), kill)

    @rule(path=paths, kill=kills)
    def forget(self, path: str, kill: Kill | None) -> None:
        """Forget a file."""
        self.world.do(Operation("forget", {"path": path}), kill)

    @rule(pair=pairs, kill=kills)
    def move(self, pair: list[str], kill: Kill | None) -> None:
        """Rename a file through the filesystem."""
        self.world.do(Operation("move", {"path": pair[0], "new": pair[1]}), kill)

    @precondition(lambda self: self.derived())
    @rule(data=st.data(), hiding=st.sampled_from(["namespace", "aside"]), kill=kills)
    def prove(self, data: st.DataObject, hiding: str, kill: Kill | None) -> None:
        """Prove a derived file."""
        path = data.draw(st.sampled_from(self.derived()))
        self.world.do(Operation("prove", {"path": path, "hiding": hiding}), kill)

    @rule(path=paths, is_pinned=st.booleans(), kill=kills)
    def pin(self, path: str, is_pinned: bool, kill: Kill | None) -> None:
        """Pin a file or end its pin."""
        self.world.do(Operation("pin", {"path": path, "is_pinned": is_pinned}), kill)

    @precondition(lambda self: self.resident())
    @rule(data=st.data(), hold=st.sampled_from(sorted(HOLDS)), chain=st.booleans(), kill=kills)
    def release(self, data: st.DataObject, hold: str, chain: bool, kill: Kill | None) -> None:
        """Release a file, at once or into the trash."""
        path = data.draw(st.sampled_from(self.resident()))
        some = {"path": path, "hold": hold, "allow_chain": chain}
        self.world.do(Operation("release", some), kill)

    @precondition(lambda self: self.resident())
    @rule(data=st.data(), hold=st.sampled_from(sorted(HOLDS)), kill=kills)
    def push_and_release(self, data: st.DataObject, hold: str, kill: Kill | None) -> None:
        """Release a file that the mirror has."""
        path = data.draw(st.sampled_from(self.resident()))
        self.world.push(path)
        some = {"path": path, "hold": hold, "allow_chain": True}
        self.world.do(Operation("release", some), kill)

    @rule(what=st.sampled_from(["purge_expired", "rebuild"]), kill=kills)
    def keep_house(self, what: str, kill: Kill | None) -> None:
        """Empty the trash, or make the catalog again."""
        self.world.do(Operation(what), kill)

    @rule(path=paths)
    def remove(self, path: str) -> None:
        """Remove a file plainly."""
        self.world.remove(path)

    @rule(path=paths, number=numbers)
    def scribble(self, path: str, number: int) -> None:
        """Write over a file plainly."""
        self.world.scribble(path, number)

    @rule(pair=pairs)
    def rename(self, pair: list[str]) -> None:
        """Rename a file plainly."""
        self.world.rename(pair[0], pair[1])

    @rule(path=paths, drop=st.booleans())
    def copy(self, path: str, drop: bool) -> None:
        """Copy a file to the mirror by hand, or remove the copy."""
        (self.world.drop_copy if drop else self.world.push)(path)

    @rule()
    def lose_catalog(self) -> None:
        """Delete the catalog."""
        self.world.lose_catalog()

    @rule()
    def lose_vault(self) -> None:
        """Delete the vault."""
        self.world.lose_vault()

    @rule(seed=st.integers(0, 1000))
    def finish_early(self, seed: int) -> None:
        """Bring everything back, in some order."""
        self.world.finish(random.Random(seed))  # noqa: S311 - no secret


# The same few stories each time; MACHINE_EXAMPLES=200 tells as many new ones.
_EXAMPLES = os.environ.get("MACHINE_EXAMPLES", "")

TestMachine = Lab.TestCase
TestMachine.settings = settings(
    max_examples=int(_EXAMPLES or 5),
    stateful_step_count=30 if _EXAMPLES else 10,
    derandomize=not _EXAMPLES,
    # To look for the shortest story would take longer than to read a long one.
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
