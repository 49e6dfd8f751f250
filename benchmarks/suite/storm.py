"""Many processes ask at once for one file that must be made again: one of them makes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from suite.bringing_back import CASES, Tier
from suite.recordings import FOLDER
from suite.selection import by_selection, tracked

READERS = by_selection(8, 16)
READ = "import sys, fsspec; assert fsspec.open(sys.argv[1], 'rb').open().read(1)"
MAKE = """
import pathlib, sys
from suite.made import noise
noise({}, pathlib.Path(sys.argv[1]), size_bytes=int(sys.argv[2]))
"""


def all_at_once(commands: list[list[str]]) -> None:
    """Start processes and wait until all have done well."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", *command],
            cwd=FOLDER,
            env={**os.environ, "PYTHONPATH": str(FOLDER)},
        )
        for command in commands
    ]
    codes = [process.wait() for process in running]
    assert codes == [0] * len(codes)


class StormBenchmark(Tier):
    """The peer: each reader runs the recipe for itself, as those do who share no store."""

    params = (CASES[:1],)

    def time_recall_readers(self, _world: dict[str, Any], case: dict[str, Any]) -> None:
        """Open the one file in many processes."""
        all_at_once([[READ, case["https_url"]]] * READERS)

    def time_recipe_in_each_reader(self, _world: dict[str, Any], case: dict[str, Any]) -> None:
        """Make a file in each of them."""
        size = str(case["size_bytes"])
        places = [str(self.base / f"own-{number}") for number in range(READERS)]
        all_at_once([[MAKE, place, size] for place in places])
        for place in places:
            Path(place).unlink()

    def track_recall_readers(self, _world: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
        """Count the runs of the recipe."""
        before = self.recomputes()
        all_at_once([[READ, case["https_url"]]] * READERS)
        return tracked({"recomputes": self.recomputes() - before, "readers": READERS})

    def recomputes(self) -> int:
        """Return how often the catalog has seen the file made again."""
        from recallfs.catalog.records import known_entry

        entry = known_entry(self.store, self.name)
        return len(self.store.catalog.recalls(entry.id, source="recompute"))
