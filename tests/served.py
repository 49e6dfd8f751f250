"""HDF5 files that were released, with a skeleton, because a mirror over HTTP has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from conftest import Lab
from recallfs.catalog import records
from recallfs.partial.opening import Parts
from recallfs.release.original import with_skeleton
from recallfs.resolve.commit import add_existing
from recallfs.testing.http import Files


@dataclass
class Served:
    """A lab whose released files lie on a server."""

    lab: Lab
    server: Files
    folder: Path

    def parts(self, path: str = "a.h5") -> Parts:
        """Return an entry as it is opened in parts."""
        return Parts(self.lab.stores, self.lab.store, self.lab.entry(path))

    def asked(self) -> list[str]:
        """Return the ranges that were asked for, and forget them."""
        ranges = [exchange.range for exchange in self.server.log if exchange.status in (200, 206)]
        self.server.log.clear()
        return ranges

    def release(self, path: str, made: Path, *, skeleton: bool = True) -> bytes:
        """Release a file that the mirror has; return its bytes."""
        content = made.read_bytes()
        place = self.lab.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        made.rename(place)
        add_existing(self.lab.store, [path])
        entry = self.lab.entry(path)
        if skeleton:
            with_skeleton(self.lab.store, entry, place)
        sha256 = entry.sha256
        copy = self.folder / "sha256" / sha256[:2] / sha256[2:4] / sha256
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
        self.lab.release(path)
        self.server.log.clear()
        return content

    def copy_of(self, path: str) -> Path:
        """Return where the mirror has a file."""
        sha256 = self.lab.entry(path).sha256
        return self.folder / "sha256" / sha256[:2] / sha256[2:4] / sha256

    def has_skeleton(self, path: str) -> bool:
        """Tell whether a file has a skeleton."""
        return records.load(self.lab.store, self.lab.entry(path).id).skeleton is not None


def write_hdf5(place: Path, *, seed: int = 0) -> dict[str, Any]:
    """Write a file with data in chunks, compressed and plain, and some in one piece."""
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "gzip": rng.integers(0, 50, (4000, 32), dtype=np.int16),
        "plain": rng.normal(size=(3000, 16)),
        "contiguous": rng.normal(size=(20000,)),
        "small": np.arange(10),
    }
    with h5py.File(place, "w") as file:
        group = file.create_group("group")
        group.attrs["about"] = "a test"
        group.create_dataset("gzip", data=values["gzip"], chunks=(100, 16), compression="gzip")
        group.create_dataset("plain", data=values["plain"], chunks=(100, 16))
        group["contiguous"] = values["contiguous"]
        group["small"] = values["small"]
    return values
