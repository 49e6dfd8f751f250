"""Records for tests of a catalog: plain ones, and one that uses every field."""

from __future__ import annotations

import hashlib

from recallfs.catalog.sidecar import (
    Incarnation,
    Pin,
    Record,
    Release,
    Revocation,
    SkeletonRef,
)
from recallfs.values import (
    Copy,
    Derivation,
    Entry,
    InputRef,
    Level,
    Metadata,
    OutputRef,
    Proof,
    State,
)

STORE_ID = "5" * 32
MOMENT = "2024-05-06T07:08:09.000010+00:00"


def hex_id(name: str) -> str:
    """Give 32 hexadecimal digits that belong to a name."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def plain_record(path: str, *, name: str = "", store_id: str = STORE_ID) -> Record:
    """Make the least record of a path; `name` gives another entry at the same path."""
    sha256 = hashlib.sha256(path.encode()).hexdigest()
    entry = Entry(
        id=hex_id(name or path),
        path=path,
        size_bytes=len(path),
        sha256=sha256,
        sha1=hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest(),
        metadata=Metadata(0o644, 1000, 1000, 1_700_000_000_123_456_789),
        created_at=MOMENT,
    )
    return Record(store_id, entry, b"", (Incarnation(sha256, len(path), Level.EXACT, MOMENT),))


def rich_record() -> Record:
    """Make a record with a value in every field, some of them awkward."""
    entry = Entry(
        id="0123456789abcdef0123456789abcdef",
        path="day 1/Größe-ω.nwb",
        size_bytes=125_000_000_001,
        sha256="a" * 64,
        sha1="b" * 40,
        metadata=Metadata(0o2640, 70_000, 80_000, 1_700_000_000_123_456_789),
        created_at=MOMENT,
        state=State.RELEASED,
    )
    derivation = Derivation(
        id="d" * 32,
        key="c" * 64,
        recipe="lab.filter",
        version="1.2",
        source_digest="e" * 64,
        parameters={"low_hz": 0.1, "name": 'ω "quoted"\n', "nested": [1, None, {"x": True}]},
        inputs=(InputRef("raw", "1" * 32, "day 1/raw.nwb", "2" * 64),),
        outputs=(OutputRef("", "0123456789abcdef0123456789abcdef"), OutputRef("b", "3" * 32)),
        seed=0x0123456789ABCDEF0123456789ABCDEF,
        started_at="2024-05-06T07:00:00.000000+00:00",
        threads=4,
        environment_id="4" * 64,
        seconds=12.75,
        timeout_s=3600.5,
        memory_bytes=8_000_000_000,
    )
    proof = Proof(
        id="6" * 32,
        entry_id=entry.id,
        derivation_id=derivation.id,
        environment_id="4" * 64,
        level=Level.EXACT,
        method="graft",
        sha256="a" * 64,
        made_by="ana@lab",
        made_at="2024-05-07T00:00:00.000000+00:00",
        valid_until="2025-05-07T00:00:00.000000+00:00",
        seconds=13.5,
        hidden_by="aside",
    )
    return Record(
        store_id=STORE_ID,
        entry=entry,
        blocks=bytes(range(64)),
        incarnations=(
            Incarnation("a" * 64, 125_000_000_001, Level.EXACT, MOMENT),
            Incarnation("7" * 64, 125_000_000_777, Level.CONTENT, "2024-06-01T00:00:00+00:00"),
        ),
        copies=(Copy("tape", "s3://b/aa/ω", "s3:b", True, "2024-05-08T00:00:00+00:00"),),
        derivations=(derivation,),
        proofs=(proof,),
        revocations=(Revocation("9" * 32, "wrong filter", "ben@lab", MOMENT),),
        pins=(
            Pin(True, "for the figure", "ana@lab", "2024-05-09T00:00:00+00:00"),
            Pin(False, "", "ana@lab", "2024-05-10T00:00:00+00:00"),
        ),
        release=Release(
            stage="trashed",
            at="2024-05-11T00:00:00+00:00",
            by="ana@lab",
            purge_after="2024-05-18T00:00:00+00:00",
            evidence=f"proof:{proof.id}",
            inode_watched=True,
        ),
        skeleton=SkeletonRef("8" * 64, 300_000),
    )
