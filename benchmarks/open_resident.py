#!/usr/bin/env python3
"""What `recall://` costs on a file that is here, against the plain file, in the same run."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

BLOCK_BYTES = 4 * 1024 * 1024


def seconds(action: Callable[[], Any], repeat: int) -> float:
    """Return the shortest of several runs, in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def read_all(opened: Any) -> None:
    """Read a file to its end and close it."""
    with opened as file:
        while file.read(BLOCK_BYTES):
            pass


def read_dataset(path: str) -> None:
    """Read an HDF5 file's one dataset by h5py."""
    with h5py.File(path, "r") as file:
        file["data"][:]


def measure(root: Path, size: int) -> dict[str, dict[str, float]]:
    """Measure opening and reading, both ways."""
    import fsspec

    from recallfs.resolve.commit import add_existing

    place = root / "file.h5"
    with h5py.File(place, "w") as file:
        file["data"] = np.random.default_rng(0).integers(0, 2**15, size // 2, dtype="int16")
    fs = fsspec.filesystem("recall", root=str(root))
    store = fs.stores.by_name(root.name)
    add_existing(store, ["file.h5"])
    url = f"{root.name}/file.h5"
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any], int]] = {
        "open": (lambda: fs.open(url).close(), lambda: place.open("rb").close(), 500),
        "read all": (lambda: read_all(fs.open(url)), lambda: read_all(place.open("rb")), 15),
        "h5py read": (
            lambda: read_dataset(fs.open_local(url)),
            lambda: read_dataset(str(place)),
            15,
        ),
    }
    results = {}
    for name, (ours, plain, repeat) in pairs.items():
        plain()
        ours_s, plain_s = seconds(ours, repeat), seconds(plain, repeat)
        results[name] = {"recall_s": ours_s, "plain_s": plain_s, "ratio": ours_s / plain_s}
    return results


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000_000, help="bytes (100,000,000)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RECALLFS_CONFIG"] = str(Path(folder) / "config.toml")
        root = Path(folder) / "store"
        root.mkdir()
        results = measure(root, options.size)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{'':12}{'recall://':>12}{'plain':>12}{'ratio':>8}{'adds':>12}")
    for name, row in results.items():
        added = (row["recall_s"] - row["plain_s"]) * 1e3
        print(
            f"{name:12}{row['recall_s'] * 1e3:9.3f} ms{row['plain_s'] * 1e3:9.3f} ms"
            f"{row['ratio']:7.2f}x{added:9.3f} ms"
        )


if __name__ == "__main__":
    main()
