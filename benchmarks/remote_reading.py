"""Reading NWB files from afar: requests, bytes and seconds, against what else reads them there.

Takes the suite's recordings (in gzip chunks of 10 MB, in small chunks, and appended to ten times),
serves them from a server with a latency and a bandwidth, and opens each by pynwb in a fresh
process: cold, then warm in another process. In between, slices of a second are read: one over a new
connection, one over the same. That is one or two large chunks, or 48 small ones.

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
from suite.reading import open_by_peer
from suite.recordings import (
    APPENDED,
    CHANNELS,
    LARGE_CHUNKS,
    RATE_HZ,
    SERIES,
    SMALL_CHUNKS,
    make_far_store,
)
from suite.servers import BYTES_PER_S

from recallfs.partial.opening import open_h5

NEEDS = {
    "local": "h5py",
    "recall": "h5py",
    "fsspec_https_no_cache": "aiohttp",
    "fsspec_https_with_cache": "aiohttp",
    "remfile_no_cache": "remfile",
    "remfile_with_cache": "remfile",
    "lindi": "lindi",
}
"""What each method needs besides what recallfs does."""

MODULES = {
    "recall": ("recallfs.skeleton.format", "recallfs.skeleton.neighbours"),
    "fsspec": ("fsspec.implementations.http", "fsspec.implementations.cached"),
    "remfile": ("remfile",),
    "lindi": ("lindi",),
}


def opened(method: str, url: str, folder: Path) -> Any:
    """Open a file as `method` does; what pynwb takes."""
    if method == "local":
        return h5py.File(folder / "local.nwb", "r")
    if method == "recall":
        return open_h5(f"recall://far/{Path(url).name}", True)
    if method == "lindi":
        import lindi

        return lindi.LindiH5pyFile.from_lindi_file(str(folder / "file.lindi.json"))
    return open_by_peer(method, url, folder)


def child(method: str, url: str, folder: Path, at_s: list[int]) -> None:
    """Open, and read slices; print JSON after each, and go on when told to."""
    from pynwb import NWBHDF5IO

    for name in MODULES.get(method.partition("_")[0], ()):
        __import__(name)
    if method == "recall":
        from recallfs.resolve.stores import stores_in_reach

        stores_in_reach().by_name("far")
    input()
    begun, cpu = time.perf_counter(), time.process_time()
    file = opened(method, url, folder)
    io = NWBHDF5IO(file=file, mode="r")
    nwb = io.read()
    data = nwb.acquisition[SERIES].data
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


def asked() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=40, help="length of the recordings")
    parser.add_argument("--rtt", default="20,100", help="latencies in ms")
    parser.add_argument("--files", default=",".join((LARGE_CHUNKS, SMALL_CHUNKS, APPENDED)))
    parser.add_argument("--methods", default=",".join(NEEDS))
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
    methods = [method for method in options.methods.split(",") if find_spec(NEEDS[method])]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        names = tuple(options.files.split(","))
        port = make_far_store(base, names, options.seconds, keep=False)
        from recallfs.testing.latency import Distant

        at_s = [3, options.seconds - 3]
        for rtt_ms in map(int, options.rtt.split(",")):
            with Distant(
                base / "served",
                rtt_s=rtt_ms / 1000,
                bytes_per_s=BYTES_PER_S,
                slow_start=options.slow_start,
                port=port,
            ) as server:
                for name in names:
                    file = base / "served" / name
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
                f"{rtt_ms:4} ms {name:16} {what:24} {method:23} {step['s']:7.3f} s "
                f"{step['requests']:4.0f} requests {step['bytes'] / 1e6:8.3f} MB "
                f"({total / 1e6:7.3f} so far)  "
                f"{row['to_local']:6.2f} x local ({row['cpu_to_local']:.2f} CPU)  "
                f"{row['to_bound']:5.2f} x bound + local",
                flush=True,
            )
    return rows


if __name__ == "__main__":
    main()
