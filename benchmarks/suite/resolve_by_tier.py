"""Opening a file that is here, in a cache, on a far mirror, or that has to be made again."""

from __future__ import annotations

import shutil
from typing import Any

import recallfs.sources.mirror
import recallfs.sources.recompute  # noqa: F401 - loaded when they are first needed
from suite.bringing_back import Tier
from suite.recordings import configure
from suite.servers import Far

RTT_S = 0.02


class ResidentBenchmark(Tier):
    """The file is in its place: recallfs beside the plain file."""

    def setup(self, world: dict[str, Any], case: dict[str, Any]) -> None:
        """Have the file in its place, and the store open."""
        import fsspec

        super().setup(world, case)
        self.recall("recompute")
        self.files = fsspec.filesystem("recall")
        self.url = f"far/{self.name}"
        self.files.open(self.url).close()

    def time_plain_open(self, _world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Open the path."""
        self.open()

    def time_recall_resident(self, _world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Open the URL."""
        with self.files.open(self.url) as file:
            assert file.read(1)


class CacheBenchmark(Tier):
    """The file is in the reader's cache."""

    def setup(self, world: dict[str, Any], case: dict[str, Any]) -> None:
        """Put a copy into the cache."""
        from recallfs.cache.cache import Cache
        from recallfs.catalog.records import known_entry

        super().setup(world, case)
        entry = known_entry(self.store, self.name)
        cache = Cache(self.stores.config.cache)
        with cache.lock(entry), cache.staging(entry.size_bytes) as staging:
            shutil.copyfile(self.base / "served" / self.name, staging / self.name)
            cache.keep(entry, staging / self.name, entry.sha256)

    def time_recall_cache(self, _world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Bring the file back from there."""
        self.recall("cache")

    def teardown(self, world: dict[str, Any], case: dict[str, Any]) -> None:
        """Leave the cache empty."""
        super().teardown(world, case)
        shutil.rmtree(self.base / "cache", ignore_errors=True)


class MirrorBenchmark(Tier):
    """A mirror that is 20 ms away has the file."""

    def setup(self, world: dict[str, Any], case: dict[str, Any]) -> None:
        """Start the far end."""
        super().setup(world, case)
        self.server = Far(self.base / "served", rtt_s=RTT_S, port=self.port)
        configure(self.base, self.port, recipes="suite.made")
        self.reopen()

    def time_recall_mirror(self, _world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Bring the file back from there."""
        self.recall("mirror")

    def teardown(self, world: dict[str, Any], case: dict[str, Any]) -> None:
        """End the far end."""
        super().teardown(world, case)
        if hasattr(self, "server"):
            self.server.stop()


class RecomputeBenchmark(Tier):
    """Nobody has the file, and its recipe takes no time."""

    def time_recall_recompute(self, _world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Make it again."""
        self.recall("recompute")
