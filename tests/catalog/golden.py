"""A catalog with something in every table, and all its answers: kept for each schema version.

``python tests/catalog/golden.py`` writes ``data/catalog-<revision>.sqlite.xz`` and, beside it, what
the code that wrote it answers. A new revision adds a pair; the pairs of earlier ones never change.
"""

from __future__ import annotations

import dataclasses
import json
import lzma
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from recallfs.catalog import schema
from recallfs.catalog.database import Catalog, Intent
from recallfs.testing.records import MOMENT, STORE_ID, hex_id, plain_record, rich_record
from recallfs.values import Identity, State

DATA = Path(__file__).parent / "data"
OTHER_STORE_ID = "6" * 32
PATHS = (
    "a/x",
    "a",
    "a-2/y",
    "a0/z",
    "A/x",
    "day 1/raw.nwb",
    "é/1",
    "e\u0301/1",
    "\U0001f9e0",
    "x ",
)


def fill(url: str) -> None:
    """Take a new catalog through what a store goes through: every table has rows afterwards."""
    catalog, other = Catalog(url, STORE_ID), Catalog(url, OTHER_STORE_ID)
    catalog.prepare()
    plain = {path: plain_record(path) for path in PATHS}
    rich = rich_record()
    catalog.put(list(plain.values()))
    catalog.put([rich], {"4" * 64: '{"python": "3.11"}'})
    other.put([plain_record("a/x", name="other", store_id=OTHER_STORE_ID)])
    identity = Identity(2**40, 2**62, 2**33, 1_700_000_000_123_456_789, 1_700_000_000_123_456_790)
    catalog.see(plain["a"].entry, State.RESIDENT, identity)
    catalog.see(plain["A/x"].entry, State.MISSING, None)
    moved = replace(plain["a0/z"], entry=replace(plain["a0/z"].entry, path="moved/z"))
    catalog.put([moved])
    catalog.drop(plain["a-2/y"].entry.id)
    catalog.put([plain_record("x ", name="second at x")], replacing=[plain["x "].entry.id])
    catalog.add_recall(rich.entry, who="ana@lab", source="recompute", seconds=2.5, level="exact")
    catalog.add_recall(rich.entry, who="ben@lab", source="nas", seconds=0.5, level="exact")
    catalog.add_event("release", rich.entry, "ana@lab", {"evidence": "proof"})
    catalog.add_event("forget", plain["a-2/y"].entry, "ben@lab", {"why": "Größe"})
    catalog.intend([Intent(plain["a/x"].entry.id, "move", "a/x", {"new": "ω"}, "host|1|2")])
    catalog.take_lease("held", "host|1|2", instead_of=None)
    catalog.beat_lease("held", 1)
    catalog.take_lease("failed", "host|1|2", instead_of=None)
    catalog.free_lease("failed", 1, "no luck")
    for item in (catalog, other):
        item.close()


def answers(url: str) -> Any:
    """Ask a catalog everything, as JSON holds it."""
    catalog, other = Catalog(url, STORE_ID), Catalog(url, OTHER_STORE_ID)
    catalog.prepare()
    folders = ["", "a", "A", "day 1", "e\u0301", "moved", "absent"]
    rich = rich_record()
    raw = replace(plain_record("day 1/raw.nwb").entry, id=rich.derivations[0].inputs[0].entry_id)
    found = {
        "entries": list(catalog.entries_below("")),
        "below": {folder: list(catalog.entries_below(folder)) for folder in folders},
        "children": {folder: catalog.children(folder) for folder in folders},
        "other": list(other.entries_below("")),
        "by_id": [catalog.entry(hex_id(path)) for path in PATHS],
        "by_digest": catalog.entries_with_sha256("a" * 64),
        "dependents": catalog.dependents(raw),
        "outputs": catalog.outputs_for_key("c" * 64),
        "environment": catalog.environment("4" * 64),
        "intents": [intent._asdict() for intent in catalog.intents()],
        "trashed": [catalog.trashed(), catalog.trashed(MOMENT)],
        "leases": {key: catalog.lease(key) for key in ("held", "failed", "unknown")},
        "recalls": catalog.recalls(rich.entry.id),
        "recall_totals": catalog.recall_totals(),
        "events": catalog.events(),
        "totals": [catalog.totals(), other.totals()],
        "proved": catalog.proved("2024-06-01T00:00:00.000000+00:00"),
    }
    for item in (catalog, other):
        item.close()
    return json.loads(json.dumps(found, default=dataclasses.asdict))


def names(revision: str) -> tuple[Path, Path]:
    """Return where a revision's catalog and its answers are."""
    return DATA / f"catalog-{revision}.sqlite.xz", DATA / f"catalog-{revision}.json"


def main() -> None:
    """Make the pair of the present revision, unless it is there."""
    catalog, said = names(schema.REVISION)
    if catalog.exists():
        sys.exit(f"{catalog} is there; it never changes")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.sqlite"
        fill(f"sqlite:///{path}")
        said.write_text(json.dumps(answers(f"sqlite:///{path}"), ensure_ascii=False) + "\n")
        catalog.write_bytes(lzma.compress(path.read_bytes(), preset=9))


if __name__ == "__main__":
    main()
