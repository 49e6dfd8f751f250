"""Downloads with every byte verified against curl, which verifies none, from the same server.

Two servers on loopback, each a process of its own that hands files over by `sendfile`: one that is
as fast as it goes, and one that answers 50 ms late and gives each connection 20 MB/s, as a server
far away does. Runs take turns. Ratios are speed over curl's: the targets are 0.8 on the fast one
with a single stream, and 2 on the far one.

    python benchmarks/transfer_speed.py --size 512MB --runs 5
    python benchmarks/transfer_speed.py --json
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from recallfs.digest.pipeline import usable_cores
from recallfs.digest.stream import digest_file
from recallfs.transfer.download import Limits, Wanted, download
from recallfs.transfer.http import Client
from recallfs.transfer.remote import HttpRemote, Location
from recallfs.transfer.timing import Deadlines
from recallfs.values import format_size, parse_size

FAR_S = 0.05
FAR_BYTES_PER_S = 20e6
PIECE_BYTES = 256 * 1024


def answer(connection: socket.socket, path: Path, delay_s: float, bytes_per_s: float) -> None:
    """Answer the requests of one connection with (parts of) a file."""
    size = path.stat().st_size
    with connection, path.open("rb") as file, contextlib.suppress(OSError):
        time.sleep(delay_s)  # the handshake of TCP
        while True:
            request = b""
            while b"\r\n\r\n" not in request:
                received = connection.recv(65536)
                if not received:
                    return
                request += received
            time.sleep(delay_s)
            part = re.search(rb"(?i)\r\nrange: *bytes=(\d+)-(\d*)", request)
            start, stop, status = 0, size, "200 OK"
            extra = ""
            if part:
                start, stop = int(part[1]), int(part[2] or size - 1) + 1
                status = "206 Partial Content"
                extra = f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n"
            head = f"HTTP/1.1 {status}\r\n{extra}Content-Length: {stop - start}\r\n\r\n"
            connection.sendall(head.encode())
            due = time.monotonic()
            while start < stop:
                most = min(stop - start, PIECE_BYTES if bytes_per_s else 2**30)
                sent = os.sendfile(connection.fileno(), file.fileno(), start, most)
                start += sent
                if bytes_per_s:
                    due += sent / bytes_per_s
                    time.sleep(max(0.0, due - time.monotonic()))


def serve(path: Path, delay_s: float, bytes_per_s: float, ready: Connection) -> None:
    """Serve one file for ever, and say at which port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        ready.send(server.getsockname()[1])
        while True:
            connection, _ = server.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(
                target=answer, args=(connection, path, delay_s, bytes_per_s), daemon=True
            ).start()


@contextlib.contextmanager
def serving(path: Path, delay_s: float, bytes_per_s: float) -> Iterator[str]:
    """Give the URL of a file, served by another process."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(
        target=serve, args=(path, delay_s, bytes_per_s, there), daemon=True
    )
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/file"
    finally:
        process.kill()
        process.join()


def run_curl(url: str, folder: Path) -> Path:
    """Run the peer."""
    target = folder / "curl"
    subprocess.run(["curl", "-s", "-o", str(target), url], check=True)
    return target


def run_download(url: str, folder: Path, wanted: Wanted, streams: int) -> Path:
    """Download with all digests, to a synced file."""
    deadlines = Deadlines()
    remote = HttpRemote(Client(), lambda _: Location(url), deadlines=deadlines, source="benchmark")
    done = download(
        remote,
        wanted,
        partials=folder / "partials",
        key="file",
        target=folder / "download",
        deadlines=deadlines,
        limits=Limits(streams=streams),
        source="benchmark",
    )
    return done.path


def measure(folder: Path, url: str, wanted: Wanted, runs: int, sha256: str) -> dict[str, Any]:
    """Time the contenders in turns, and check that they brought the same bytes."""
    plain = Wanted(wanted.size_bytes)
    contenders: dict[str, Callable[[], Path]] = {
        "curl": lambda: run_curl(url, folder),
        "one stream": lambda: run_download(url, folder, plain, 1),
        "one stream, blocks known": lambda: run_download(url, folder, wanted, 1),
        "four streams allowed": lambda: run_download(url, folder, wanted, 4),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(runs):
        for name, contender in contenders.items():
            start = time.perf_counter()
            path = contender()
            times[name].append(time.perf_counter() - start)
            if run == 0:
                with path.open("rb") as file:
                    digest = hashlib.sha256()
                    while piece := file.read(2**20):
                        digest.update(piece)
                assert digest.hexdigest() == sha256, f"{name} brought other bytes"
            path.unlink()
    return {
        name: {
            "median_s": statistics.median(each),
            "min_s": min(each),
            "bytes_per_s": wanted.size_bytes / min(each),
            "speed_over_curl": min(times["curl"]) / min(each),
        }
        for name, each in times.items()
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="512MB", help="length of the file, such as 512MB")
    parser.add_argument("--far-size", default="200MB", help="length for the server far away")
    parser.add_argument("--runs", type=int, default=5, help="runs of each contender")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: temporary)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    if shutil.which("curl") is None:
        parser.error("curl is not installed, and it is the peer")
    result: dict[str, Any] = {"cores": usable_cores(), "runs": arguments.runs}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for server, size, delay_s, bytes_per_s in (
            ("near", parse_size(arguments.size), 0.0, 0.0),
            ("far", parse_size(arguments.far_size), FAR_S, FAR_BYTES_PER_S),
        ):
            path = folder / server
            with path.open("wb") as file:
                for _ in range(size // 10**6):
                    file.write(os.urandom(10**6))
            digests = digest_file(path)
            wanted = Wanted(digests.size_bytes, digests.blocks)
            with serving(path, delay_s, bytes_per_s) as url:
                runs = arguments.runs if server == "near" else max(1, arguments.runs // 2)
                result[server] = {
                    "size_bytes": wanted.size_bytes,
                    "contenders": measure(folder, url, wanted, runs, digests.sha256),
                }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['cores']} cores, {result['runs']} runs in turns; ratios of least times")
    for server in ("near", "far"):
        print(f"\n{server}, {format_size(result[server]['size_bytes'])}")
        for name, row in result[server]["contenders"].items():
            print(
                f"  {name:26}{row['min_s']:7.2f} s{row['bytes_per_s'] / 1e6:7.0f} MB/s"
                f"{row['speed_over_curl']:7.2f}x"
            )


if __name__ == "__main__":
    main()
