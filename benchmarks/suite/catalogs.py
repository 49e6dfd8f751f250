"""Catalogs of many entries; half have a recipe and a proof, as in a lab that proved what it can."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

from recallfs.catalog.database import Catalog
from recallfs.catalog.sidecar import Incarnation, Record
from recallfs.values import Derivation, Entry, InputRef, Level, Metadata, OutputRef, Proof
from suite.selection import by_selection

SIZES = by_selection((10_000, 100_000), (10_000, 100_000), (10_000, 100_000, 1_000_000))
CASES = [
    {"name": f"Catalog{entries}", "https_url": f"catalog-{entries}", "entries": entries}
    for entries in SIZES
]
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


def catalogs() -> dict[str, str]:
    """Make the catalogs, and for each the peer: a table of two columns in SQLite."""
    base = Path.cwd() / "catalogs"
    for entries in SIZES:
        place = base / f"catalog-{entries}"
        place.mkdir(parents=True)
        catalog = Catalog(place / "catalog.sqlite", STORE)
        catalog.prepare()
        for first in range(0, entries, 50_000):
            last = min(entries, first + 50_000)
            catalog.put([record_of(number) for number in range(first, last)])
        catalog.close()
        with sqlite3.connect(place / "peer.sqlite") as peer:
            peer.execute("CREATE TABLE t (p TEXT PRIMARY KEY, v TEXT)")
            peer.executemany(
                "INSERT INTO t VALUES (?, ?)",
                ((path_of(number), str(number)) for number in range(entries)),
            )
        peer.close()
    return {"base": str(base)}


catalogs.timeout = 3600.0  # type: ignore[attr-defined]
