"""What a catalog is asked as a whole: totals, a folder, what is proved and could be released."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from recallfs.catalog.database import Catalog
from suite.catalogs import CASES, NOW, STORE, catalogs
from suite.selection import Timed


class CatalogSelectionBenchmark(Timed):
    """There is no peer: these figures say how recallfs grows with its catalog."""

    setup_cache = staticmethod(catalogs)
    param_names = ("case",)
    params = (CASES,)

    def setup(self, world: dict[str, str], case: dict[str, Any]) -> None:
        """Open the catalog."""
        self.catalog = Catalog(Path(world["base"]) / case["https_url"] / "catalog.sqlite", STORE)
        self.catalog.children("sub-0000/ses-00")

    def teardown(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Close it."""
        self.catalog.close()

    def time_recall_totals(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Count files and bytes by state."""
        self.catalog.totals()

    def time_recall_folder(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """List a folder of a hundred files."""
        self.catalog.children("sub-0000/ses-00")

    def time_recall_proved(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Count what is proved."""
        self.catalog.proved(NOW)

    def time_recall_first_to_release(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Select the first 2,000 files that could be released."""
        assert len(list(islice(self.catalog.releasable(NOW), 2000))) == 2000
