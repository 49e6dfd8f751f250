"""Finding an entry by its path, beside a bare look-up in SQLite."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recallfs.catalog.database import Catalog
from suite.catalogs import CASES, STORE, catalogs, path_of
from suite.selection import Timed, tracked

LOOK_UPS = 2000


class CatalogLookUpBenchmark(Timed):
    """Random paths; each sample is the mean of 2,000."""

    setup_cache = staticmethod(catalogs)
    param_names = ("case",)
    params = (CASES,)
    number = LOOK_UPS

    def setup(self, world: dict[str, str], case: dict[str, Any]) -> None:
        """Open the catalog, and look one path up."""
        place = Path(world["base"]) / case["https_url"]
        self.catalog = Catalog(place / "catalog.sqlite", STORE)
        self.peer = sqlite3.connect(place / "peer.sqlite")
        self.entries = int(case["entries"])
        self.chance = random.Random(0)  # noqa: S311 - a benchmark
        self.time_recall(world, case)
        self.time_sqlite(world, case)

    def teardown(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Close both."""
        self.catalog.close()
        self.peer.close()

    def _path(self) -> str:
        return path_of(self.chance.randrange(self.entries))

    def time_recall(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Look an entry up."""
        assert self.catalog.entry_at(self._path()) is not None

    def time_sqlite(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Look a row up."""
        query = "SELECT v FROM t WHERE p = ?"
        assert self.peer.execute(query, (self._path(),)).fetchone() is not None

    def track_recall(self, world: dict[str, str], case: dict[str, Any]) -> dict[str, Any]:
        """Tell the slowest of a hundred."""
        return self._percentile(lambda: self.time_recall(world, case))

    def track_sqlite(self, world: dict[str, str], case: dict[str, Any]) -> dict[str, Any]:
        """Tell the slowest of a hundred."""
        return self._percentile(lambda: self.time_sqlite(world, case))

    @staticmethod
    def _percentile(look_up: Callable[[], None]) -> dict[str, Any]:
        times = []
        for _ in range(LOOK_UPS):
            begun = time.perf_counter()
            look_up()
            times.append(time.perf_counter() - begun)
        return tracked({"percentile_99_in_ms": sorted(times)[int(LOOK_UPS * 0.99)] * 1000})
