"""Files that a recipe made, and that are wherever a benchmark wants them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from recallfs.resolve.recall import recall
from recallfs.resolve.stores import stores_in_reach
from suite.recordings import configure, free_port, offer, release
from suite.selection import Timed, by_selection

SIZES = by_selection((1_000_000, 10_000_000), (1_000_000, 10_000_000, 100_000_000))
CASES = [
    {
        "name": f"Noise{size // 1_000_000}MB",
        "https_url": f"recall://far/noise-{size}.bin",
        "size_bytes": size,
    }
    for size in SIZES
]


def made_world() -> dict[str, Any]:
    """Make files by a recipe, prove that it can be done again, and offer them on a mirror."""
    from recallfs.catalog.records import known_entry
    from recallfs.catalog.store import create_store
    from recallfs.release.proof import prove
    from recallfs.resolve.commit import add_existing
    from recallfs.resolve.derive import derive

    base = Path.cwd() / "made-world"
    (base / "served").mkdir(parents=True)
    port = free_port()
    configure(base, port, sources=(), recipes="suite.made")
    store = create_store(base / "far", "far", vault=base / "vault")
    stores = stores_in_reach()
    (base / "far" / "raw.bin").write_bytes(b"raw")
    add_existing(store, ["raw.bin"])
    for size in SIZES:
        name = f"noise-{size}.bin"
        derive(
            stores,
            "bench.noise",
            outputs={"": f"recall://far/{name}"},
            inputs={"raw": "recall://far/raw.bin"},
            parameters={"size_bytes": size},
        )
        entry = known_entry(store, name)
        prove(stores, store, entry, hiding="auto")
        shutil.copyfile(store.root / name, base / "served" / name)
        offer(base / "served", base / "served" / name, entry.sha256)
        release(name)
    store.catalog.close()
    return {"base": str(base), "port": port}


made_world.timeout = 600.0  # type: ignore[attr-defined]


class Tier(Timed):
    """Opening a file and reading its first byte, from where it is now; released at first."""

    setup_cache = staticmethod(made_world)
    param_names = ("case",)
    params = (CASES,)

    def setup(self, world: dict[str, Any], case: dict[str, Any]) -> None:
        """Open the store."""
        self.base, self.port = Path(world["base"]), int(world["port"])
        self.name = Path(case["https_url"]).name
        configure(self.base, self.port, sources=(), recipes="suite.made")
        self.reopen()
        self.place = self.store.root / self.name

    def teardown(self, _world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Leave the file released."""
        if not hasattr(self, "store"):
            return
        self.store.catalog.close()
        configure(self.base, self.port, sources=(), recipes="suite.made")
        if self.place.exists():
            release(self.name)

    def reopen(self) -> None:
        """Open the store as the configuration has it now."""
        self.stores = stores_in_reach()
        self.store = self.stores.by_name("far")

    def open(self) -> None:
        """Open the file by its path, and read its first byte."""
        with self.place.open("rb") as file:
            assert file.read(1)

    def recall(self, source: str) -> None:
        """Bring the file back, from the one source that has it, and open it."""
        found = recall(self.stores, self.store, self.name)
        assert found.source.startswith(source), found.source
        self.open()
