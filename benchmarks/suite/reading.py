"""What the modules of remote and local reading share: the files, the cases and the methods."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import h5py
import pynwb

from suite import peers
from suite.recordings import (
    APPENDED,
    LARGE_CHUNKS,
    RATE_HZ,
    SERIES,
    SMALL_CHUNKS,
    configure,
    make_far_store,
)
from suite.selection import Timed, by_selection, tracked
from suite.servers import Far

SECONDS = by_selection(20, 40, 120)
"""Length of the recordings."""

RTT_MS = by_selection((20,), (20, 100))
FILES = by_selection((LARGE_CHUNKS, SMALL_CHUNKS), (LARGE_CHUNKS, SMALL_CHUNKS, APPENDED))
CHANNELS = slice(0, 64)


def case_name(file: str, *more: str) -> str:
    """Name a case as nwb_benchmarks does: the kind of data first."""
    return "Ecephys" + "".join(word.capitalize() for word in Path(file).stem.split("-")) + "".join(
        more
    )


READ_CASES = [
    {
        "name": case_name(file, f"TestCase{rtt_ms}ms"),
        "https_url": f"http://127.0.0.1/{file}",
        "rtt_ms": rtt_ms,
    }
    for rtt_ms in RTT_MS
    for file in FILES
]
SLICE_CASES = [
    {
        "name": case_name(case["https_url"], f"TestCase{number}At{case['rtt_ms']}ms"),
        "https_url": case["https_url"],
        "object_name": SERIES,
        "slice_range": (slice(0, seconds * RATE_HZ), CHANNELS),
        "rtt_ms": case["rtt_ms"],
    }
    for case in READ_CASES
    for number, seconds in enumerate(by_selection((1, 4), (1, 2, 4, 8, 16)), 1)
]


def far_world() -> dict[str, Any]:
    """Make the recordings and release them; asv does this once for all that ask for it."""
    base = Path.cwd() / "far-world"
    base.mkdir()
    return {"base": str(base), "port": make_far_store(base, FILES, SECONDS, keep=False)}


far_world.timeout = 600.0  # type: ignore[attr-defined]


class Remote(Timed):
    """A far file and one method of reading it."""

    setup_cache = staticmethod(far_world)
    param_names = ("case",)

    method = ""

    def setup(self, world: dict[str, Any], case: dict[str, Any]) -> None:
        """Start the server, forget what an earlier process kept, and prepare."""
        self.base = Path(world["base"])
        self.name = Path(case["https_url"]).name
        configure(self.base, world["port"])
        shutil.rmtree(self.base / "cache", ignore_errors=True)
        self.folder = Path(tempfile.mkdtemp(dir=self.base))
        self.kept: list[Any] = []
        self.lindi: peers.Lindi | None = None
        self.server = Far(
            self.base / "served", rtt_s=case["rtt_ms"] / 1000, port=world["port"]
        )
        self.url = f"{self.server.about['url']}/{self.name}"
        self.prepare(self.method)

    def teardown(self, _world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Stop the server."""
        if not hasattr(self, "server"):
            return
        if self.lindi is not None:
            self.lindi.stop()
        self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def prepare(self, method: str) -> None:
        """Do what a session does once, before its first file: imports, and opening stores."""
        if method.startswith("recall"):
            from recallfs.partial import opening  # noqa: F401 - so that it is loaded
            from recallfs.resolve.stores import stores_in_reach

            stores_in_reach().by_name("far")
            if method.endswith("warm"):
                self.read(method)
                self.close()
        elif method.startswith("fsspec"):
            peers.require(peers.has("aiohttp"), "fsspec's HTTP file system")
            import fsspec.implementations.cached
            import fsspec.implementations.http  # noqa: F401
        elif method.startswith("remfile"):
            peers.require(peers.has("remfile"), "remfile")
            import remfile  # noqa: F401
        elif method == "lindi_local_json":
            peers.require(peers.has_lindi(), "lindi")
            references = self.folder / "file.lindi.json"
            peers.make_lindi_json(self.base / "served" / self.name, self.url, references)
            self.lindi = peers.Lindi(references)
        self.server.traffic()

    def opened(self, method: str) -> Any:
        """Open the file as h5py, or what looks like it, does by a method."""
        if method.startswith("recall"):
            import recallfs

            return recallfs.open_h5(f"recall://far/{self.name}", True)
        if method.startswith("remfile"):
            import remfile

            cache = remfile.DiskCache(str(self.folder)) if method.endswith("with_cache") else None
            return h5py.File(remfile.File(self.url, disk_cache=cache), "r")
        import fsspec

        far: Any = fsspec.filesystem("http")
        if method.endswith("with_cache"):
            from fsspec.implementations.cached import CachingFileSystem

            far = CachingFileSystem(fs=far, cache_storage=str(self.folder), check_files=False)
        return h5py.File(far.open(self.url, "rb"), "r")

    def read(self, method: str) -> None:
        """Open the file and read it by pynwb, up to the point where slices can be taken."""
        if self.lindi is not None:
            self.lindi.do("open")
            return
        file = self.opened(method)
        io = pynwb.NWBHDF5IO(file=file, mode="r")
        self.data = io.read().acquisition[SERIES].data
        self.kept += [file, io]  # so that no collector runs in what is measured

    def close(self) -> None:
        """Close what was read."""
        while self.kept:
            with contextlib.suppress(Exception):
                self.kept.pop().close()

    def slice(self, rows: slice) -> None:
        """Read rows of the series."""
        if self.lindi is not None:
            self.lindi.do("slice", rows.start, rows.stop)
            return
        values = self.data[rows]
        assert len(values) == rows.stop - rows.start

    def traffic(self) -> dict[str, Any]:
        """Return what went over the network since the preparation."""
        return tracked(dict(self.server.traffic()))


REMOTE_METHODS = (
    "recall_cold",
    "recall_warm",
    "fsspec_https_no_cache",
    "fsspec_https_with_cache",
    "remfile_no_cache",
    "remfile_with_cache",
    "lindi_local_json",
)
"""Warm: another process has opened the file before; the others' caches begin empty."""


def camel(method: str) -> str:
    """Write a method's name as part of a class's."""
    return "".join(word.capitalize() for word in method.split("_"))


def file_readers(prefix: str, base: type, methods: tuple[str, ...]) -> dict[str, type]:
    """Make a class for each method; nwb_benchmarks' database tells them apart by the operation."""
    made = {}
    for method in methods:
        name = f"HDF5PyNWB{camel(method)}FileReadBenchmark"
        timed = prefix == "time_read"

        def run(self: Any, _world: dict[str, Any], _case: dict[str, Any], method: str = method) -> Any:
            self.read(method)
            return None if timed else self.traffic()

        made[name] = type(
            name,
            (base,),
            {
                "method": method,
                "params": [READ_CASES],
                f"{prefix}_hdf5_pynwb_{method}": run,
                "__doc__": f"Opens files by {method}.",
            },
        )
    return made
