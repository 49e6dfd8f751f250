"""The part of a catalog's contract about values that come back as they were put."""

from __future__ import annotations

from dataclasses import replace

from recallfs.catalog.database import Catalog, Intent
from recallfs.catalog.sidecar import Pin
from recallfs.testing.paths import AWKWARD, moved_to
from recallfs.testing.records import MOMENT, hex_id, plain_record
from recallfs.values import PATH_BYTES, Copy, Identity, State


class FidelityContract:
    """What is kept to the last byte and bit; a base of `CatalogContract`."""

    def test_names_that_differ_are_different(self, catalog: Catalog) -> None:
        """Each awkward name is found by itself and by no other, alone and among all."""
        catalog.put([plain_record(path) for path in AWKWARD])
        assert [entry.path for entry in catalog.entries_below("")] == sorted(AWKWARD)
        for path in AWKWARD:
            found = catalog.entry_at(path)
            assert found is not None
            assert found.id == hex_id(path)
            assert catalog.entry_at(f"{path} ") is None or f"{path} " in AWKWARD
        assert set(catalog.entries_at(AWKWARD)) == set(AWKWARD)
        catalog.drop(hex_id("A"))
        assert catalog.entry_at("A") is None
        assert catalog.entry_at("a") is not None

    def test_the_longest_path_is_kept_whole(self, catalog: Catalog) -> None:
        """A path of as many bytes as may be, which nothing compresses, is kept and can move."""
        text = "".join(chr(0x4E00 + (i * 7919) % 20000) for i in range(800))
        path = "/".join(text[i : i + 66] for i in range(0, 800, 66))
        path += "/" + "z" * (PATH_BYTES - len(path.encode()) - 1)
        assert len(path.encode()) == PATH_BYTES
        record = plain_record(path)
        copy = Copy("nas", path[:-1] + "y", "nas", True, MOMENT)
        catalog.put([replace(record, copies=(copy,))])
        catalog.put([plain_record(path[:-1])])
        catalog.intend([Intent(record.entry.id, "move", path, {"new": path[:-2]}, "h")])
        assert catalog.intents()[0].path == path
        catalog.add_event("move", record.entry, "ana", {})
        catalog.put([moved_to(record, path[:-2])])
        assert [e.path for e in catalog.entries_below("")] == [path[:-2], path[:-1]]
        assert catalog.events()[0]["path"] == path

    def test_large_numbers_are_kept(self, catalog: Catalog) -> None:
        """Sizes, times and ids beyond 32 bits, and inodes of 64, come back as they were."""
        plain = plain_record("large")
        metadata = replace(plain.entry.metadata, uid=2**32 - 2, gid=2**32 - 2, mtime_ns=-1)
        for number, inode in enumerate((1, 2**31, 2**63 - 1, 2**63, 2**64 - 1)):
            identity = Identity(2**64 - inode, inode, 2**50, 2**62, -(2**62))
            entry = replace(
                plain.entry,
                id=hex_id(str(number)),
                path=f"large {number}",
                size_bytes=2**60,
                metadata=metadata,
                identity=identity,
            )
            catalog.put([replace(plain, entry=entry)])
            assert catalog.entry(entry.id) == entry
            catalog.see(entry, State.DIRTY, identity)
            assert catalog.entry(entry.id) == replace(entry, state=State.DIRTY)
        assert catalog.totals() == {"dirty": (5, 5 * 2**60)}

    def test_long_and_odd_texts_are_kept(self, catalog: Catalog) -> None:
        """Megabytes of JSON, every kind of character and long names come back as they were."""
        record = plain_record("a")
        text = "\U0001f9e0 'quoted' \\\\ %s \n\t" * 40_000
        catalog.put([replace(record, pins=(Pin(True, text, "ω" * 200, MOMENT),))], {"e": "{}"})
        catalog.intend([Intent(record.entry.id, "move", "a", {"text": text}, "h" * 250)])
        assert catalog.intents()[0].details == {"text": text}
        catalog.add_event("pin", record.entry, "ω" * 200, {"text": text})
        assert catalog.events(record.entry.id)[0]["details"] == {"text": text}
        assert catalog.take_lease("k", "h" * 250, instead_of=None) == 1
        assert catalog.free_lease("k", 1, text)
        lease = catalog.lease("k")
        assert lease is not None
        assert lease.failure == text

    def test_seconds_keep_their_precision(self, catalog: Catalog) -> None:
        """Durations are 64-bit numbers."""
        entry = plain_record("a").entry
        catalog.put([plain_record("a")])
        catalog.add_recall(entry, who="a", source="nas", seconds=0.1234567890123, level="exact")
        assert catalog.recalls(entry.id)[0]["seconds"] == 0.1234567890123
