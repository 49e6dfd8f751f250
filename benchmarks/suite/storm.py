"""Many processes ask at once for one file that must be made again: one of them makes it."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from suite.recompute_overhead import PEER, ReleasedLFP
from suite.recordings import FOLDER
from suite.selection import by_selection, tracked

READERS = by_selection(8, 16)
READ = "import sys, fsspec; assert fsspec.open(sys.argv[1], 'rb').open().read(1)"


def all_at_once(commands: list[list[str]]) -> None:
    """Start processes and wait until all have done well."""
    with ThreadPoolExecutor(len(commands)) as pool:
        list(pool.map(run_python, commands))


def run_python(words: list[str]) -> None:
    """Run Python code; what it prints is of interest only if it fails."""
    subprocess.run(
        [sys.executable, "-c", *words],
        cwd=FOLDER,
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )


class StormBenchmark(ReleasedLFP):
    """The peer: each reader runs the recipe for itself, as those do who share no store."""

    def time_recall_readers(self, _world: dict[str, str], case: dict[str, Any]) -> None:
        """Open the one file in many processes."""
        all_at_once([[READ, case["https_url"]]] * READERS)

    def time_recipe_in_each_reader(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Make a file in each of them."""
        raw = str(self.base / "far" / "raw.nwb")
        places = [str(self.base / f"own-{number}.nwb") for number in range(READERS)]
        all_at_once([[PEER, raw, place] for place in places])
        for place in places:
            Path(place).unlink()

    def track_recall_readers(self, _world: dict[str, str], case: dict[str, Any]) -> dict[str, Any]:
        """Count the runs of the recipe."""
        before = self.recomputes()
        all_at_once([[READ, case["https_url"]]] * READERS)
        return tracked({"recomputes": self.recomputes() - before, "readers": READERS})

    def recomputes(self) -> int:
        """Return how often the catalog has seen the file made again."""
        from recallfs.catalog.records import known_entry

        entry = known_entry(self.store, "lfp.nwb")
        return len(self.store.catalog.recalls(entry.id, source="recompute"))
