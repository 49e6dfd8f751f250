"""What the modules of remote and local reading share: the files, the cases and the methods."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import h5py
import pynwb

from recallfs.partial.opening import open_h5
from recallfs.resolve.stores import stores_in_reach
from suite import online, peers
from suite.recordings import (
    APPENDED,
    LARGE_CHUNKS,
    RATE_HZ,
    SERIES,
    SMALL_CHUNKS,
    configure,
    make_far_store,
)
from suite.selection import ONLINE, Timed, by_selection, tracked
from suite.servers import Far

SECONDS = by_selection(10, 40, 120)
"""Length of the recordings."""

RTT_MS = by_selection((20,), (20, 100))
FILES = by_selection((LARGE_CHUNKS, SMALL_CHUNKS), (LARGE_CHUNKS, SMALL_CHUNKS, APPENDED))
CHANNELS = slice(0, 64)


def case_name(file: str, *more: str) -> str:
    """Name a case as nwb_benchmarks does: the kind of data first."""
    return (
        "Ecephys"
        + "".join(word.capitalize() for word in Path(file).stem.split("-"))
        + "".join(more)
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
if ONLINE:
    READ_CASES = [{"name": "Online", "https_url": ONLINE, "rtt_ms": 0}]
SLICE_CASES = [
    {
        "name": "Online"
        if ONLINE
        else case_name(case["https_url"], f"TestCase{number}At{case['rtt_ms']}ms"),
        "https_url": case["https_url"],
        "object_name": SERIES,
        "slice_range": (slice(0, seconds * RATE_HZ), CHANNELS),
        "rtt_ms": case["rtt_ms"],
    }
    for case in READ_CASES
    for number, seconds in enumerate(by_selection((1,), (1, 2, 4, 8, 16)), 1)
]


def far_world() -> dict[str, Any]:
    """Make the recordings and release them; asv does this once for all that ask for it."""
    base = Path.cwd() / "far-world"
    base.mkdir()
    if ONLINE:
        return {"base": str(base), "port": 0, **online.make_store(base)}
    port = make_far_store(base, FILES, SECONDS, keep=False)
    if peers.has_lindi():
        for name in FILES:
            url = f"http://127.0.0.1:{port}/{name}"
            peers.make_lindi_json(base / "served" / name, url, base / f"{name}.lindi.json")
    return {"base": str(base), "port": port}


far_world.timeout = 600.0  # type: ignore[attr-defined]


def near_world() -> dict[str, Any]:
    """Make the recordings and keep them resident."""
    base = Path.cwd() / "near-world"
    base.mkdir()
    return {"base": str(base), "port": make_far_store(base, FILES, SECONDS, keep=True)}


near_world.timeout = 600.0  # type: ignore[attr-defined]


def without_rtt(case: dict[str, Any]) -> str:
    """Name a case where no round trip is made."""
    return str(case["name"]).replace(f"At{case['rtt_ms']}ms", "").replace(f"{case['rtt_ms']}ms", "")


def is_nearest(case: dict[str, Any]) -> bool:
    """Tell whether a case is the one of its kind with the shortest round trip."""
    return bool(case["rtt_ms"] == min(RTT_MS))


def open_by_peer(method: str, url: str, folder: Path) -> h5py.File:
    """Open a far file by fsspec or remfile, whose cache, if it is to have one, is in a folder."""
    if method.startswith("remfile"):
        import remfile

        cache = remfile.DiskCache(str(folder)) if method.endswith("with_cache") else None
        return h5py.File(remfile.File(url, disk_cache=cache), "r")
    import fsspec

    far: Any = fsspec.filesystem("http")
    if method.endswith("with_cache"):
        from fsspec.implementations.cached import CachingFileSystem

        far = CachingFileSystem(fs=far, cache_storage=str(folder), check_files=False)
    return h5py.File(far.open(url, "rb"), "r")


class Remote(Timed):
    """A far file and one method of reading it."""

    setup_cache = staticmethod(far_world)
    param_names = ("case",)

    params = (READ_CASES,)
    method = ""

    def setup(self, world: dict[str, Any], case: dict[str, Any]) -> None:
        """Start the server, forget what an earlier process kept, and prepare."""
        self.base = Path(world["base"])
        self.name = str(world["path"]) if ONLINE else Path(case["https_url"]).name
        if ONLINE:
            online.configure(self.base, world["api"])
        else:
            configure(self.base, world["port"])
        shutil.rmtree(self.base / "cache", ignore_errors=True)
        self.folder = Path(tempfile.mkdtemp(dir=self.base))
        self.kept: list[Any] = []
        self.lindi: peers.Child | None = None
        self.server: Any = online.Wire() if ONLINE else self.serve(world, case)
        self.url = world["url"] if ONLINE else f"{self.server.about['url']}/{self.name}"
        self.prepare(self.method)

    def serve(self, world: dict[str, Any], case: dict[str, Any]) -> Far:
        """Start the far end."""
        return Far(self.base / "served", rtt_s=case["rtt_ms"] / 1000, port=world["port"])

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
            stores_in_reach().by_name("far")
            if method.endswith("warm"):
                self.read(method)
                self.close()  # another process would find what this one left on the disk
        elif method.startswith("fsspec"):
            peers.require(peers.has("aiohttp"), "fsspec's HTTP file system")
            import fsspec.implementations.cached
            import fsspec.implementations.http  # noqa: F401
        elif method.startswith("remfile"):
            peers.require(peers.has("remfile"), "remfile")
            import remfile  # noqa: F401
        elif method == "lindi_local_json":
            peers.require(peers.has_lindi() and not ONLINE, "lindi, or its JSON of a real file,")
            references = self.base / f"{self.name}.lindi.json"
            self.lindi = peers.Child(peers.OTHERS, peers.READ_BY_LINDI, references)
        self.server.traffic()

    def opened(self, method: str) -> Any:
        """Open the file as h5py, or what looks like it, does by a method."""
        if method.startswith("recall"):
            # What an archive's file looked like when it was whole nobody has recorded.
            partial: bool | str = "unverified" if ONLINE else True
            return open_h5(f"recall://far/{self.name}", partial)
        return open_by_peer(method, self.url, self.folder)

    def read(self, method: str) -> None:
        """Open the file and read it by pynwb, up to the point where slices can be taken."""
        if self.lindi is not None:
            self.lindi.do("open")
            return
        file = self.opened(method)
        io = pynwb.NWBHDF5IO(file=file, mode="r")
        acquired = io.read().acquisition
        self.data = (next(iter(acquired.values())) if ONLINE else acquired[SERIES]).data
        self.kept += [file, io]  # so that no collector runs in what is measured

    def close(self) -> None:
        """Close what was read."""
        while self.kept:
            with contextlib.suppress(OSError, RuntimeError, ValueError):  # as HDF5's own
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


class RemoteSlices(Remote):
    """Slices of a far file that is open."""

    params = (SLICE_CASES,)


class Local(Remote):
    """The same files, here: resident in a store whose mirror is far away."""

    setup_cache = staticmethod(near_world)
    params = ([{**case, "name": without_rtt(case)} for case in READ_CASES if is_nearest(case)],)

    def opened(self, method: str) -> Any:
        """Open by path, or through recallfs."""
        if method.startswith("recall"):
            return super().opened(method)
        return h5py.File(self.base / "far" / self.name, "r")


class LocalSlices(Local):
    """Slices of a file that is here and open."""

    params = ([{**case, "name": without_rtt(case)} for case in SLICE_CASES if is_nearest(case)],)


LOCAL_METHODS = ("recall_resident", "h5py_path")
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


def class_for_each(
    methods: tuple[str, ...], base: type, name: str, members: dict[str, Any]
) -> dict[str, type]:
    """Make a class for each method, which ``{}`` stands for in the names of class and members."""
    made = {}
    for method in methods:
        title = name.format("".join(word.capitalize() for word in method.split("_")))
        own = {member.format(method): value for member, value in members.items()}
        made[title] = type(title, (base,), {"method": method, "__doc__": f"By {method}.", **own})
    return made


def file_readers(prefix: str, base: type, methods: tuple[str, ...]) -> dict[str, type]:
    """Make a class for each method; nwb_benchmarks' database tells them apart by the operation."""
    is_timed = prefix == "time_read"

    def run(self: Any, _world: dict[str, Any], _case: dict[str, Any]) -> Any:
        self.read(self.method)
        return None if is_timed else self.traffic()

    members = {f"{prefix}_hdf5_pynwb_{{}}": run}
    return class_for_each(methods, base, "HDF5PyNWB{}FileReadBenchmark", members)


def slicers(operation: str, base: type, methods: tuple[str, ...]) -> dict[str, type]:
    """Make a class for each method; nwb_benchmarks' database tells them apart by the class."""
    is_timed = operation.startswith("time")

    def setup(self: Any, world: dict[str, Any], case: dict[str, Any]) -> None:
        base.setup(self, world, case)  # type: ignore[attr-defined]
        self.read(self.method)
        if self.method.endswith("warm"):
            self.slice(case["slice_range"][0])
            self.close()
            self.read(self.method)
        self.server.traffic()

    def run(self: Any, _world: dict[str, Any], case: dict[str, Any]) -> Any:
        self.slice(case["slice_range"][0])
        return None if is_timed else self.traffic()

    members = {"setup": setup, operation: run}
    return class_for_each(methods, base, "{}ContinuousSliceBenchmark", members)
