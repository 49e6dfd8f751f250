"""The content digest against Spyglass' hasher and against h5py decoding alone, in one run.

What inflating alone takes on all cores is the bound: no digest of the values can be faster. Runs
take turns on the same NWB file (gzip, chunks as pynwb chooses or as given), its pages in
memory. The targets: 10x the hasher, and 2.5x decoding by one thread of h5py, on two cores.

    python benchmarks/content_digest.py --size 400MB --runs 3
    python benchmarks/content_digest.py --spyglass DIR   # where spyglass-neuro is installed
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from recallfs.digest.hdf5 import content_digest
from recallfs.values import format_size, parse_size

CHANNELS = 64
SPYGLASS = "spyglass-neuro==0.6.0"

MEMORY_SCRIPT = """
import pathlib, sys
from recallfs.digest.hdf5 import content_digest
content_digest(pathlib.Path(sys.argv[1]))
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


def write_recording(path: Path, size_bytes: int, chunk_rows: int) -> None:
    """Write an NWB file with one series of noise that gzip makes about a third smaller."""
    from hdmf.backends.hdf5.h5_utils import H5DataIO
    from hdmf.data_utils import DataChunkIterator
    from pynwb import NWBHDF5IO, NWBFile, TimeSeries

    rows = max(1, size_bytes // (2 * CHANNELS))
    generator = np.random.default_rng(0)

    def pieces() -> Any:
        for first in range(0, rows, chunk_rows):
            count = min(chunk_rows, rows - first)
            yield from np.cumsum(
                generator.integers(-20, 21, size=(count, CHANNELS)), axis=0, dtype=np.int16
            )

    nwbfile = NWBFile("benchmark", "benchmark", datetime(2026, 1, 1, tzinfo=timezone.utc))
    data = DataChunkIterator(
        pieces(), maxshape=(rows, CHANNELS), dtype=np.dtype("int16"), buffer_size=chunk_rows
    )
    wrapped = H5DataIO(data, compression="gzip", chunks=(chunk_rows, CHANNELS))
    nwbfile.add_acquisition(TimeSeries("e", data=wrapped, unit="V", rate=30000.0))
    with NWBHDF5IO(path, "w") as io:
        io.write(nwbfile)


def decode(path: Path) -> None:
    """Run the peer: h5py reads each chunk once, one after the other."""
    with h5py.File(path) as file:
        dataset = file["/acquisition/e/data"]
        step = dataset.chunks[0]
        for first in range(0, len(dataset), step):
            dataset[first : first + step]


def inflate(path: Path) -> None:
    """Do the least that any digest of values must: inflate each chunk, on all cores."""
    import deflate

    cores = len(os.sched_getaffinity(0))
    with h5py.File(path) as file, ThreadPoolExecutor(cores) as pool:
        dataset = file["/acquisition/e/data"].id
        length = int(np.prod(dataset.get_create_plist().get_chunk())) * 2
        places = [dataset.get_chunk_info(n).chunk_offset for n in range(dataset.get_num_chunks())]

        def one(place: tuple[int, ...]) -> int:
            return len(deflate.zlib_decompress(dataset.read_direct_chunk(place)[1], length))

        assert sum(pool.map(one, places)) >= dataset.get_storage_size()


def load_hasher(place: Path | None, folder: Path) -> Callable[[Path], None]:
    """Load Spyglass' hasher alone: importing all of Spyglass wants a database."""
    spec = importlib.util.find_spec("spyglass")
    if place is None and spec is not None and spec.origin:
        place = Path(spec.origin).parents[1]
    if place is None:
        place = folder / "spyglass"
        installer = Path(sys.executable).with_name("uv")
        command = [str(installer), "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--target", str(place), SPYGLASS, "tqdm"], check=True)
    sys.path.append(str(place))  # for its progress bar
    module = importlib.util.spec_from_file_location(
        "nwb_hash", place / "spyglass" / "utils" / "nwb_hash.py"
    )
    assert module is not None
    assert module.loader is not None
    loaded = importlib.util.module_from_spec(module)
    module.loader.exec_module(loaded)

    def run(path: Path) -> None:
        loaded.NwbfileHasher(path)

    return run


def measure(runs: dict[str, Callable[[Path], object]], path: Path, turns: int) -> dict[str, float]:
    """Take turns; return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            start = time.perf_counter()
            run(path)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="400MB", type=parse_size, help="of the values")
    parser.add_argument("--chunk-rows", default=78125, type=int)
    parser.add_argument("--runs", default=3, type=int)
    parser.add_argument("--spyglass", type=Path, help="folder that holds the package spyglass")
    parser.add_argument("--no-hasher", action="store_true", help="leave Spyglass' hasher out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "recording.nwb"
        write_recording(path, options.size, options.chunk_rows)
        runs: dict[str, Callable[[Path], object]] = {
            "h5c1": content_digest,
            "h5c1, one thread": lambda file: content_digest(file, threads=1),
            "h5py decoding": decode,
            "inflating alone": inflate,
        }
        if not options.no_hasher:
            runs["Spyglass' hasher"] = load_hasher(options.spyglass, folder)
        seconds = measure(runs, path, options.runs)
        peak = int(
            subprocess.run(
                [sys.executable, "-c", MEMORY_SCRIPT, str(path)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        stored = path.stat().st_size
    result = {
        "values_bytes": options.size,
        "stored_bytes": stored,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": seconds,
        "speed_over_peer": {
            peer: seconds[peer] / seconds["h5c1"] for peer in seconds if not peer.startswith("h5c1")
        },
        "peak_memory_bytes": peak,
    }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{format_size(options.size)} of values, {format_size(stored)} stored")
    for contender, value in seconds.items():
        ratio = value / seconds["h5c1"]
        print(
            f"{contender:20} {value:8.2f} s {options.size / value / 1e6:8.0f} MB/s   "
            f"h5c1 is {ratio:.2f}x as fast"
        )
    print(f"peak memory of a process that digests it: {format_size(peak)}")


if __name__ == "__main__":
    main()
