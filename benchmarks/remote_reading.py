"""Reading NWB files from afar: requests, bytes and seconds, against what else reads them there.

Writes three recordings (A in gzip chunks of 10 MB, B in small chunks, C like A and appended to ten
times), serves them from a server with a latency and a bandwidth, and opens each by pynwb in a fresh
process: cold, then warm in another process. In between, slices of a second are read: one over a new
connection, one over the same. On A and C that is one or two large chunks, on B it is 48.

The peers are fsspec's HTTP file system, its block cache, remfile, remfile with its disk cache, and
lindi with its JSON at hand; those that are not installed are left out
(``uv pip install remfile lindi "fsspec[http]"``; lindi wants zarr 2). Imports are not measured, nor
is the opening of a store, which a process does once. Of several turns the quickest counts.

Local is the same program with the file on its disk, in the page cache: pynwb's own work, and
inflating. The bound of a slice is a round trip (two over a new connection) and the bytes that the
method asked for, at the rate of one connection; inflating the values is added to it, which no
method can spare. Processor time (user and system) is told too, for computers that do other work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RATE_HZ = 30_000
CHANNELS = 64
BYTES_PER_S = 50_000_000
METHODS = ("local", "recall", "fsspec", "blockcache", "remfile", "remfile+disk", "lindi")
SERIES = "acquisition/e/data"
MODULES = {
    "recall": (
        "recallfs.partial.opening",
        "recallfs.skeleton.format",
        "recallfs.skeleton.neighbours",
    ),
    "fsspec": ("h5py", "fsspec.implementations.http"),
    "blockcache": ("h5py", "fsspec.implementations.http", "fsspec.implementations.cached"),
    "remfile": ("h5py", "remfile"),
    "remfile+disk": ("h5py", "remfile"),
    "lindi": ("lindi",),
}


def write_recording(place: Path, kind: str, seconds: int) -> None:
    """Write a recording of noise, with the few objects that each NWB file has."""
    import numpy as np
    from hdmf.backends.hdf5 import H5DataIO
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.ecephys import ElectricalSeries

    rng = np.random.default_rng(0)
    rows = seconds * RATE_HZ
    chunks = (10_000, 4) if kind == "B" else (81_920, CHANNELS)
    first = rows // 2 if kind == "C" else rows

    def values(count: int) -> Any:
        return rng.normal(0, 40, (count, CHANNELS)).astype(np.int16)

    nwb = NWBFile("a recording", kind, datetime(2026, 1, 1, tzinfo=timezone.utc))
    device = nwb.create_device("probe")
    group = nwb.create_electrode_group("g", "shank", "CA1", device)
    for number in range(CHANNELS):
        nwb.add_electrode(x=float(number), y=0.0, z=0.0, location="CA1", group=group)
    region = nwb.create_electrode_table_region(list(range(CHANNELS)), "all")
    data = H5DataIO(
        values(first), chunks=chunks, compression="gzip", compression_opts=1,
        maxshape=(None, CHANNELS),
    )  # fmt: skip
    nwb.add_acquisition(ElectricalSeries("e", data, region, rate=float(RATE_HZ)))
    for number in range(400):
        nwb.add_trial(start_time=number * 0.5, stop_time=number * 0.5 + 0.4)
    with NWBHDF5IO(place, "w") as io:
        io.write(nwb)
    if kind != "C":
        return
    import h5py

    step = (rows - first) // 10
    for _ in range(10):
        with h5py.File(place, "r+") as file:
            series = file[SERIES]
            series.resize(series.shape[0] + step, axis=0)
            series[-step:] = values(step)


def opened(method: str, url: str, folder: Path) -> Any:
    """Open a file as `method` does; what pynwb takes."""
    if method == "local":
        import h5py

        return h5py.File(folder / "local.nwb", "r")
    if method == "recall":
        import recallfs

        return recallfs.open_h5(f"recall://far/{Path(url).name}", True)
    if method == "lindi":
        import lindi

        return lindi.LindiH5pyFile.from_lindi_file(str(folder / "file.lindi.json"))
    import h5py

    if method.startswith("remfile"):
        import remfile

        cache = remfile.DiskCache(str(folder / "disk")) if method.endswith("disk") else None
        return h5py.File(remfile.File(url, disk_cache=cache), "r")
    import fsspec

    if method == "fsspec":
        return h5py.File(fsspec.filesystem("http").open(url, "rb"), "r")
    from fsspec.implementations.cached import CachingFileSystem

    caching = CachingFileSystem(
        fs=fsspec.filesystem("http"), cache_storage=str(folder / "blocks"), check_files=False
    )
    return h5py.File(caching.open(url, "rb"), "r")


def child(method: str, url: str, folder: Path, at_s: list[int]) -> None:
    """Open, and read slices; print JSON after each, and go on when told to."""
    from pynwb import NWBHDF5IO

    for name in MODULES.get(method, ()):
        __import__(name)
    if method == "recall":
        from recallfs.resolve.stores import stores_in_reach

        stores_in_reach().by_name("far")
    input()
    begun, cpu = time.perf_counter(), time.process_time()
    file = opened(method, url, folder)
    io = NWBHDF5IO(file=file, mode="r")
    nwb = io.read()
    data = nwb.acquisition["e"].data
    print(json.dumps([time.perf_counter() - begun, time.process_time() - cpu]), flush=True)
    for second in at_s:
        input()
        begun, cpu = time.perf_counter(), time.process_time()
        values = data[second * RATE_HZ : (second + 1) * RATE_HZ]
        spent = [time.perf_counter() - begun, time.process_time() - cpu]
        assert values.shape == (RATE_HZ, CHANNELS)
        print(json.dumps(spent), flush=True)
    os._exit(0)  # what peers do at the end is not measured


def measured(
    server: Any, method: str, url: str, folder: Path, at_s: list[int]
) -> list[dict[str, float]]:
    """Run a child, and return seconds, requests and bytes of each of its steps."""
    command = [sys.executable, __file__, "--child", method, url, str(folder), json.dumps(at_s)]
    steps = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        for _ in range(1 + len(at_s)):
            server.traffic()
            run.stdin.write("\n")
            run.stdin.flush()
            line = run.stdout.readline()
            if not line:
                raise RuntimeError(f"{method} failed on {url}")
            requests, size = server.traffic()
            seconds, cpu_s = json.loads(line)
            steps.append({"s": seconds, "cpu_s": cpu_s, "requests": requests, "bytes": size})
    return steps


def release(base: Path, files: dict[str, Path], url: str, served: Path) -> None:
    """Make a store of the files, and release them."""
    from recallfs.catalog.store import create_store
    from recallfs.release.assessment import assess
    from recallfs.release.original import with_skeleton
    from recallfs.release.policy import Wanted
    from recallfs.release.release import release as release_file
    from recallfs.resolve.commit import add_existing
    from recallfs.resolve.stores import stores_in_reach
    from recallfs.values import parse_span

    os.environ["RECALLFS_CONFIG"] = str(base / "config.toml")
    (base / "config.toml").write_text(
        f'[stores.far]\nroot = "{base / "far"}"\n[cache]\nfolder = "{base / "cache"}"\n'
        f"[sources.kachery]\nenabled = false\n[sources.dandi]\nenabled = false\n"
        f'[[sources.mirror]]\nname = "far"\nurl = "{url}"\nlayout = "sha256"\n'
        'failure_domain = "elsewhere"\n[release]\ncopies = 1\n'
    )
    create_store(base / "far", "far", vault=base / "vault")
    stores = stores_in_reach()
    store = stores.by_name("far")
    for name, file in files.items():
        shutil.copyfile(file, base / "far" / name)
        add_existing(store, [name])
        entry = store.catalog.entry_at(name)
        assert entry is not None
        with_skeleton(store, entry, store.root / name)
        sha256 = entry.sha256
        copy = served / "sha256" / sha256[:2] / sha256[2:4] / sha256
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, copy)
        wanted = Wanted(hold=parse_span("0s"), max_skeleton=1.0)
        decision = assess(stores, store, entry, wanted)
        release_file(stores, store, entry, decision, wanted)
    store.catalog.close()


def asked() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=40, help="length of the recordings")
    parser.add_argument("--rtt", default="20,100", help="latencies in ms")
    parser.add_argument("--files", default="A,B,C")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--slow-start", action="store_true", help="as TCP's connections begin")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Write, serve, measure, print."""
    options = asked()
    if options.child:
        method, url, folder, at_s = options.child
        child(method, url, Path(folder), json.loads(at_s))
        return
    needs = {"lindi": "lindi", "remfile": "remfile", "remfile+disk": "remfile", "fsspec": "aiohttp",
             "blockcache": "aiohttp"}  # fmt: skip
    methods = [m for m in options.methods.split(",") if m not in needs or find_spec(needs[m])]
    os.environ.pop("RECALLFS_CONFIG", None)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        (base / "served").mkdir()
        files = {}
        for kind in options.files.split(","):
            files[f"{kind}.nwb"] = base / "served" / f"{kind}.nwb"
            write_recording(files[f"{kind}.nwb"], kind, options.seconds)
        from recallfs.testing.http import Files
        from recallfs.testing.latency import Distant

        with Files(base / "served") as near:
            release(base, files, near.url, base / "served")
            port = near.port
        at_s = [3, options.seconds - 3]
        for rtt_ms in map(int, options.rtt.split(",")):
            with Distant(
                base / "served",
                rtt_s=rtt_ms / 1000,
                bytes_per_s=BYTES_PER_S,
                slow_start=options.slow_start,
                port=port,
            ) as server:
                for name, file in files.items():
                    turns: dict[str, list[Any]] = {method: [] for method in methods}
                    # By turns, so that what else the computer does harms all alike.
                    for turn in range(options.turns):
                        for method in methods:
                            folder = base / f"{method}-{rtt_ms}-{name}-{turn}"
                            turns[method].append(one_turn(server, method, file, folder, at_s))
                    rows += told((rtt_ms, name), turns, options.json)
        if options.json:
            print(json.dumps(rows, indent=2))


def one_turn(
    server: Any, method: str, file: Path, folder: Path, at_s: list[int]
) -> list[dict[str, float]]:
    """Open a file and read slices, with nothing of it here; then open it again."""
    folder.mkdir()
    (folder / "local.nwb").symlink_to(file)
    shutil.rmtree(folder.parent / "cache" / "blocks", ignore_errors=True)
    url = f"{server.url}/{file.name}"
    if method == "lindi":
        import lindi

        made = lindi.LindiH5pyFile.from_hdf5_file(str(file), url=url)
        made.write_lindi_file(str(folder / "file.lindi.json"))
    steps = measured(server, method, url, folder, at_s)
    return [*steps, *measured(server, method, url, folder, [])]


def told(
    case: tuple[int, str], turns: dict[str, list[Any]], is_quiet: bool
) -> list[dict[str, Any]]:
    """Return rows, and print them unless told not to."""
    best = {
        method: [
            {**min(each, key=lambda s: s["s"]), "cpu_s": min(step["cpu_s"] for step in each)}
            for each in zip(*steps, strict=True)
        ]
        for method, steps in turns.items()
    }
    none = [{"s": float("nan"), "cpu_s": float("nan")}] * 4
    rows: list[dict[str, Any]] = []
    for method, steps in best.items():
        rows += rows_of((*case, method), steps, best.get("local", none), is_quiet)
    return rows


def rows_of(
    case: tuple[int, str, str],
    steps: list[dict[str, float]],
    local_steps: list[dict[str, float]],
    is_quiet: bool,
) -> list[dict[str, Any]]:
    """Return the rows of one method, and print them unless told not to."""
    rtt_ms, name, method = case
    rows = []
    total = 0.0
    for what, step, local in zip(
        ("open, cold", "1 s slice, new connection", "1 s slice", "open, warm"),
        steps, local_steps, strict=True,
    ):  # fmt: skip
        trips = 2 if "new" in what else 1
        bound = trips * rtt_ms / 1000 + step["bytes"] / BYTES_PER_S if step["requests"] else 0.0
        # What was fetched with the metadata may spare a part of a slice: so all of it counts.
        total = step["bytes"] + (0.0 if what == "open, warm" else total)
        row = {
            "rtt_ms": rtt_ms, "file": name, "what": what, "method": method, **step,
            "total_bytes": total, "to_local": step["s"] / local["s"],
            "cpu_to_local": step["cpu_s"] / local["cpu_s"],
            "to_bound": step["s"] / (bound + local["s"]),
        }  # fmt: skip
        rows.append(row)
        if not is_quiet:
            print(
                f"{rtt_ms:4} ms {name} {what:26} {method:13} {step['s']:7.3f} s "
                f"{step['requests']:4.0f} requests {step['bytes'] / 1e6:8.3f} MB "
                f"({total / 1e6:7.3f} so far)  "
                f"{row['to_local']:6.2f} x local ({row['cpu_to_local']:.2f} CPU)  "
                f"{row['to_bound']:5.2f} x bound + local",
                flush=True,
            )
    return rows


if __name__ == "__main__":
    main()
