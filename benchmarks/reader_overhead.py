"""What `recallfs.install` costs programs whose files are in no store.

Opens and stats the same files with and without it, in processes that take turns, and prints the
cost of each call in microseconds and as a ratio. The least of many counts: the rest is the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py

import recallfs


def seconds(action: Callable[[], object], calls: int) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    for _ in range(calls):
        action()
    return (time.perf_counter() - start) / calls


def quiet(action: Callable[[], object]) -> Callable[[], object]:
    """Return an action that finds nothing."""

    def run() -> object:
        try:
            return action()
        except OSError:
            return None

    return run


def least_of(actions: dict[str, tuple[int, Callable[[], object]]], turns: int) -> dict[str, float]:
    """Return the microseconds of a call of each kind in this process."""
    return {
        what: min(seconds(action, calls) for _ in range(turns)) * 1e6
        for what, (calls, action) in actions.items()
    }


def opening_nothing(_self: h5py.File, _name: str, _mode: str = "r") -> None:
    """Stand in for HDF5."""


def child(folder: Path, turns: int, is_installed: bool) -> None:
    """Measure in this process; print JSON."""
    there, missing = str(folder / "there.h5"), str(folder / "missing.h5")
    if is_installed:
        recallfs.install()
    rows = least_of(
        {
            "h5py.File of a file that is there": (20, lambda: h5py.File(there, "r").close()),
            "h5py.File of a missing file": (20, quiet(lambda: h5py.File(missing, "r"))),
            "os.stat of a file that is there": (500, lambda: os.stat(there)),  # noqa: PTH116 - what is measured
            "os.stat of a missing file": (500, quiet(lambda: os.stat(missing))),  # noqa: PTH116 - what is measured
            "Path.exists of a file that is there": (500, Path(there).exists),
            "Path.exists of a missing file": (500, Path(missing).exists),
        },
        turns,
    )
    recallfs.uninstall()
    # HDF5's own time varies by more than what is looked for: here it does nothing.
    h5py.File.__init__ = opening_nothing
    blank = object.__new__(h5py.File)
    if is_installed:
        recallfs.install()
    rows |= least_of(
        {
            "the same, with an HDF5 that does nothing": (
                500,
                lambda: h5py.File.__init__(blank, there, "r"),
            ),
            "the same, for a file to be made": (
                500,
                lambda: h5py.File.__init__(blank, missing, "w"),
            ),
        },
        turns,
    )
    print(json.dumps(rows))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(Path(given.child[0]), given.turns, given.child[1] == "with")
        return
    least: dict[str, dict[str, float]] = {"without": {}, "with": {}}
    with tempfile.TemporaryDirectory() as name:
        with h5py.File(Path(name) / "there.h5", "w") as file:
            file["a"] = 1
        command = [sys.executable, __file__, "--turns", str(given.turns), "--child", name]
        for _ in range(given.rounds):
            for side, rows in least.items():
                done = subprocess.run([*command, side], stdout=subprocess.PIPE, check=True)
                for what, took in json.loads(done.stdout).items():
                    rows[what] = min(rows.get(what, took), took)
    print(f"{'':42}{'without':>12}{'with':>12}{'added':>10}{'ratio':>8}")
    for what, without in least["without"].items():
        with_it = least["with"][what]
        print(
            f"{what:42}{without:9.2f} us{with_it:9.2f} us{with_it - without:7.2f} us"
            f"{with_it / without:8.2f}"
        )
    print("to be added at most: 2 us an open, 0.3 us a stat")


if __name__ == "__main__":
    main()
