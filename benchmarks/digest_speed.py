"""All digests in one pass against sha256 alone, by OpenSSL's program and by hashlib.

Runs take turns on the same file, its pages in memory. Ratios are speed over the peer's speed:
1.0 is as fast as sha256 alone, and the target is 0.9 on two cores.

    python benchmarks/digest_speed.py --size 256MB --runs 9
    python benchmarks/digest_speed.py --json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recallfs.digest.pipeline import usable_cores
from recallfs.digest.stream import StreamDigester, digest_file
from recallfs.values import format_size, parse_size

READ_BYTES = 256 * 1024

MEMORY_SCRIPT = """
import pathlib, resource, sys
from recallfs.digest.stream import digest_file
def peak_bytes():
    # A child inherits ru_maxrss from its parent, so Linux' own count of this process comes first.
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
before = peak_bytes()
digest_file(pathlib.Path(sys.argv[1]))
print(peak_bytes() - before)
"""


def read_pieces(path: Path, take: Callable[[memoryview], object]) -> None:
    """Read a file into one buffer again and again, as `hashlib.file_digest` does."""
    buffer = memoryview(bytearray(READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while length := file.readinto(buffer):
            take(buffer[:length])


def run_openssl(path: Path) -> str:
    """Run the peer: OpenSSL's own program."""
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-r", str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()[0]


def run_hashlib(path: Path) -> str:
    """Run the peer: OpenSSL's sha256 inside this process."""
    digest = hashlib.sha256()
    read_pieces(path, digest.update)
    return digest.hexdigest()


def run_stream(path: Path) -> str:
    """Run the digester of streams, fed in small pieces."""
    with StreamDigester() as digester:
        read_pieces(path, digester.update)
        return digester.finish().sha256


CONTENDERS: dict[str, Callable[[Path], str]] = {
    "openssl dgst -sha256": run_openssl,
    "hashlib.sha256": run_hashlib,
    "digest_file": lambda path: digest_file(path).sha256,
    "StreamDigester": run_stream,
    "digest_file + dandi-etag": lambda path: digest_file(path, dandi_etag=True).sha256,
}


def make_file(path: Path, size_bytes: int) -> None:
    """Write random bytes, and leave them in the page cache."""
    with path.open("wb") as file:
        left = size_bytes
        while left:
            left -= file.write(os.urandom(min(left, 1024**2)))
    run_hashlib(path)


def time_small_file(folder: Path) -> float:
    """Return the least time for a file of 3 kB, in seconds."""
    path = folder / "small.bin"
    make_file(path, 3000)
    times = []
    for _ in range(1000):
        start = time.perf_counter()
        digest_file(path)
        times.append(time.perf_counter() - start)
    return min(times)


def measure(folder: Path, size_bytes: int, runs: int) -> dict[str, Any]:
    """Time all contenders in turns on one file, and check that they agree."""
    path = folder / "digest-speed.bin"
    make_file(path, size_bytes)
    names = [name for name in CONTENDERS if "openssl" not in name or shutil.which("openssl")]
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(runs):
        answers = set()
        for name in names:
            start = time.perf_counter()
            answers.add(CONTENDERS[name](path))
            times[name].append(time.perf_counter() - start)
        assert len(answers) == 1, "the contenders disagree on the sha256"
    memory = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, str(path)], capture_output=True, text=True, check=True
    )
    return {
        "size_bytes": size_bytes,
        "runs": runs,
        "cores": usable_cores(),
        "memory_growth_bytes": int(memory.stdout),
        "small_file_s": time_small_file(folder),
        "contenders": {
            name: {
                "min_s": min(each),
                "median_s": statistics.median(each),
                "bytes_per_s": size_bytes / min(each),
                "ratios": {
                    peer: min(times[peer]) / min(each) for peer in names if "sha256" in peer
                },
            }
            for name, each in times.items()
        },
    }


def print_table(result: dict[str, Any]) -> None:
    """Print the result for people."""
    print(
        f"{format_size(result['size_bytes'])}, {result['cores']} cores, {result['runs']} runs in "
        "turns, page cache warm; ratios of least times\n"
    )
    print(f"{'':26}{'min':>9}{'median':>10}{'speed':>12}{'/ openssl':>11}{'/ hashlib':>11}")
    for name, row in result["contenders"].items():
        ratios = [
            f"{row['ratios'][peer]:.2f}x" if peer in row["ratios"] else "-"
            for peer in ("openssl dgst -sha256", "hashlib.sha256")
        ]
        print(
            f"{name:26}{row['min_s'] * 1e3:6.1f} ms{row['median_s'] * 1e3:7.1f} ms"
            f"{row['bytes_per_s'] / 1e6:7.0f} MB/s{ratios[0]:>11}{ratios[1]:>11}"
        )
    print(
        f"\nmemory above the process' own: {format_size(result['memory_growth_bytes'])}; "
        f"a file of 3 kB: {result['small_file_s'] * 1e6:.0f} us"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="256MB", help="length of the file, such as 256MB")
    parser.add_argument("--runs", type=int, default=9, help="runs of each contender")
    parser.add_argument("--folder", type=Path, help="where to put the file (default: temporary)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = measure(Path(folder), parse_size(arguments.size), arguments.runs)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print_table(result)


if __name__ == "__main__":
    main()
