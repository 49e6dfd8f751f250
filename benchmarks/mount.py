#!/usr/bin/env python3
"""Reading a resident file through a mount, against the same file in the root.

Ratios of throughput for 1 GB read from its beginning to its end, and of time for 1,000 reads of
64 KB anywhere. 'cold': neither the file's pages nor the mount's are in memory. 'first': the file's
are, the mount's are not. 'warm': both are. The best of several rounds, taken in turns.

Usage: benchmarks/mount.py [--megabytes N] [--rounds N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_BLOCK = 1 << 20
_PIECE = 64 * 1024
_PIECES = 1000
_TARGETS = {"sequential": 0.7, "random": 0.5}


def read_all(path: Path) -> float:
    """Read a file in blocks of 1 MiB; return the seconds."""
    buffer = bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        begin = time.perf_counter()
        while file.readinto(buffer):
            pass
        return time.perf_counter() - begin


def read_pieces(path: Path) -> float:
    """Read pieces of a file at random places, the same each time; return the seconds."""
    chosen, size = random.Random(0), path.stat().st_size  # noqa: S311 - no secret
    places = [chosen.randrange(size - _PIECE) for _ in range(_PIECES)]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        begin = time.perf_counter()
        for place in places:
            os.pread(descriptor, _PIECE, place)
        return time.perf_counter() - begin
    finally:
        os.close(descriptor)


def forget(path: Path) -> None:
    """Drop a file's pages from memory."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def compare(native: Path, shown: Path, rounds: int) -> bool:
    """Measure both ways; tell whether what is aimed at was reached where it can be."""

    def cold() -> None:
        forget(shown)
        forget(native)

    def first() -> None:
        forget(shown)
        read_all(native)

    def warm() -> None:
        read_all(native)
        read_all(shown)

    reached = True
    kinds: tuple[tuple[str, Callable[[Path], float]], ...] = (
        ("sequential", read_all),
        ("random", read_pieces),
    )
    for name, measure in kinds:
        for state in (cold, first, warm):
            times: dict[Path, list[float]] = {native: [], shown: []}
            for _ in range(rounds):
                for path in (native, shown):
                    state()
                    times[path].append(measure(path))
            own, mounted = min(times[native]), min(times[shown])
            ratio = own / mounted
            is_good = ratio >= _TARGETS[name]
            reached = reached and (is_good or state is first)
            print(
                f"{name:10} {state.__name__:5}  root {own:7.3f} s  mount {mounted:7.3f} s  "
                f"speed {ratio:5.2f} of the root's (aim {_TARGETS[name]})"
            )
    return reached


def quietly(*command: str | Path) -> None:
    """Run a program that must succeed."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> int:
    """Make a store with one large file, mount it and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        base = Path(folder)
        root, place = base / "root", base / "mnt"
        place.mkdir()
        os.environ["RECALLFS_CONFIG"] = str(base / "config.toml")
        os.environ["XDG_STATE_HOME"] = str(base)
        recall = [sys.executable, "-m", "recallfs"]
        quietly(*recall, "init", root, "--name", "bench")
        with (root / "large").open("wb") as file:
            for _ in range(options.megabytes):
                file.write(os.urandom(10**6))
            os.fsync(file.fileno())
        quietly(*recall, "mount", place)
        try:
            reached = compare(root / "large", place / "large", options.rounds)
        finally:
            quietly(*recall, "unmount", "--lazy", place)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
