"""What recall:// costs on a file of 100 MB that is here, beside the plain path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from suite.recordings import configure
from suite.selection import Timed, by_selection

SIZE_BYTES = by_selection(50_000_000, 100_000_000)
CASES = [
    {
        "name": f"Resident{SIZE_BYTES // 1_000_000}MB",
        "https_url": "recall://far/file.h5",
        "size_bytes": SIZE_BYTES,
    }
]


def resident_world() -> dict[str, Any]:
    """Catalog one file."""
    from recallfs.catalog.store import create_store
    from recallfs.resolve.commit import add_existing

    base = Path.cwd() / "resident-world"
    base.mkdir()
    configure(base, 0, sources=())
    store = create_store(base / "far", "far", vault=base / "vault")
    with h5py.File(store.root / "file.h5", "w") as file:
        file["data"] = np.random.default_rng(0).integers(0, 2**15, SIZE_BYTES // 2, dtype="int16")
    add_existing(store, ["file.h5"])
    store.catalog.close()
    return {"base": str(base)}


class Resident(Timed):
    """A file that is here, and a store that is open."""

    setup_cache = staticmethod(resident_world)
    param_names = ("case",)
    params = (CASES,)

    def setup(self, world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Open the store, and have the file's pages in memory."""
        import fsspec

        base = Path(world["base"])
        configure(base, 0, sources=())
        self.files = fsspec.filesystem("recall")
        self.url = "far/file.h5"
        self.place = base / "far" / "file.h5"
        self.files.open(self.url).close()
        self.place.read_bytes()

    @staticmethod
    def read(path: str) -> None:
        """Read the file's one dataset by h5py."""
        with h5py.File(path, "r") as file:
            file["data"][:]


class OpenBenchmark(Resident):
    """Opening alone; each sample is the mean of 200."""

    number = 200

    def time_plain_open(self, _world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Open the path."""
        self.place.open("rb").close()

    def time_recall_open(self, _world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Open the URL."""
        self.files.open(self.url).close()
