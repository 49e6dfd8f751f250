#!/usr/bin/env python3
"""What a catalog answers, and how fast, as it grows; the peer is a bare `sqlite3` look-up.

Half of the entries have a recipe and a proof, as in a lab that has proved what it can. The peer
looks a path up by its primary key in a table of two columns, in the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recallfs.catalog.database import Catalog
from recallfs.catalog.sidecar import Incarnation, Record
from recallfs.values import Derivation, Entry, InputRef, Level, Metadata, OutputRef, Proof

STORE = "5" * 32
MOMENT = "2024-05-06T07:08:09.000010+00:00"
NOW = "2026-01-01T00:00:00.000000+00:00"
LATER = "2027-01-01T00:00:00.000000+00:00"


def path_of(number: int) -> str:
    """Spread files over subjects and sessions, 100 to a folder."""
    folder = number // 100
    return f"sub-{folder // 50:04}/ses-{folder % 50:02}/file-{number % 100:03}_ecephys.nwb"


def record_of(number: int) -> Record:
    """Make the record of a file; every other one was made by a recipe and is proved."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    identifier = digest[:32]
    size = 1_000_000 + number * 7919 % 10_000_000_000
    entry = Entry(
        id=identifier,
        path=path_of(number),
        size_bytes=size,
        sha256=digest,
        sha1=digest[:40],
        metadata=Metadata(0o644, 1000, 1000, 1_600_000_000_000_000_000 + number * 10**11),
        created_at=MOMENT,
    )
    first = Incarnation(digest, size, Level.EXACT, MOMENT)
    if number % 2 == 0:
        return Record(STORE, entry, b"", (first,))
    source = hashlib.sha256(str(number - 1).encode()).hexdigest()
    derivation = Derivation(
        id=digest[32:],
        key=digest,
        recipe=f"lab.step{number % 7}",
        version="1",
        source_digest="e" * 64,
        parameters={"low_hz": 0.1, "number": number},
        inputs=(InputRef("raw", source[:32], path_of(number - 1), source),),
        outputs=(OutputRef("", identifier),),
        seed=None,
        started_at=MOMENT,
        threads=4,
        environment_id="4" * 64,
        seconds=12.5,
    )
    proof = Proof(
        id=digest[16:48],
        entry_id=identifier,
        derivation_id=derivation.id,
        environment_id="4" * 64,
        level=Level.EXACT,
        method="graft",
        sha256=digest,
        made_by="somebody@somewhere",
        made_at=MOMENT,
        valid_until=LATER,
        seconds=13.0,
        hidden_by="namespace",
    )
    return Record(STORE, entry, b"", (first,), derivations=(derivation,), proofs=(proof,))


def timed(action: Callable[[], Any]) -> float:
    """Return how long something took, in seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def look_ups(look: Callable[[str], Any], count: int, total: int) -> tuple[float, float]:
    """Return median and 99th percentile of look-ups of random paths, in milliseconds."""
    chance = random.Random(0)  # noqa: S311 - a benchmark
    times = []
    for _ in range(count):
        path = path_of(chance.randrange(total))
        start = time.perf_counter()
        found = look(path)
        times.append((time.perf_counter() - start) * 1000)
        assert found is not None
    times.sort()
    return statistics.median(times), times[int(len(times) * 0.99)]


def measure(catalog: Catalog, peer: sqlite3.Connection, first: int, total: int) -> dict[str, Any]:
    """Add entries up to a number, and ask."""
    records = [record_of(number) for number in range(first, min(total, first + 100_000))]
    add_s = timed(lambda: catalog.put(records))
    added = len(records)

    def rest() -> Iterator[Record]:
        for number in range(first + added, total):
            yield record_of(number)

    batch: list[Record] = []
    for record in rest():
        batch.append(record)
        if len(batch) == 50_000:
            catalog.put(batch)
            batch = []
    catalog.put(batch)
    peer.executemany(
        "INSERT INTO t VALUES (?, ?)", ((path_of(n), str(n)) for n in range(first, total))
    )
    peer.commit()
    p50, p99 = look_ups(catalog.entry_at, 20_000, total)
    peer_p50, peer_p99 = look_ups(
        lambda path: peer.execute("SELECT v FROM t WHERE p = ?", (path,)).fetchone(), 20_000, total
    )
    releasable = catalog.releasable(NOW)
    return {
        "entries": total,
        "add_rows": added,
        "add_s": round(add_s, 2),
        "look_up_p50_ms": round(p50, 3),
        "look_up_p99_ms": round(p99, 3),
        "sqlite_p50_ms": round(peer_p50, 4),
        "sqlite_p99_ms": round(peer_p99, 4),
        "folder_ms": round(1000 * timed(lambda: catalog.children("sub-0000/ses-00")), 2),
        "root_ms": round(1000 * timed(lambda: catalog.children("")), 2),
        "totals_s": round(timed(catalog.totals), 3),
        "proved_s": round(timed(lambda: catalog.proved(NOW)), 3),
        "first_2000_to_release_s": round(
            timed(lambda: [next(releasable, None) for _ in range(2000)]), 3
        ),
    }


def main() -> None:
    """Measure at each size and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--url", help="a server's database, empty; by default SQLite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        catalog = Catalog(options.url or Path(folder) / "catalog.sqlite", STORE)
        catalog.prepare()
        peer = sqlite3.connect(Path(folder) / "peer.sqlite")
        peer.execute("CREATE TABLE t (p TEXT PRIMARY KEY, v TEXT)")
        results, first = [], 0
        for total in options.sizes:
            results.append(measure(catalog, peer, first, total))
            first = total
            if not options.json:
                print(results[-1], flush=True)
        if options.json:
            print(json.dumps(results, indent=2))
        catalog.close()


if __name__ == "__main__":
    main()
