"""The part of a catalog's contract about what is asked of many entries at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa

from recallfs.catalog import schema, statistics
from recallfs.catalog.database import Catalog
from recallfs.catalog.evidence import listing
from recallfs.catalog.sidecar import Pin, Record
from recallfs.testing.records import MOMENT, hex_id, plain_record, rich_record
from recallfs.values import Identity, InputRef, State, after


class OverviewContract:
    """What lists, sums and plans get; a base of `CatalogContract`."""

    def test_lists_and_sums_of_a_whole_catalog(self, catalog: Catalog) -> None:
        """What an overview asks is answered from the right entries, and in the right order."""
        record = rich_record()
        now = datetime.now(timezone.utc)
        iso = now.isoformat(timespec="microseconds")
        ns = int(now.timestamp() * 1e9)
        day = 86_400 * 10**9
        proof = replace(record.proofs[0], made_at=iso, valid_until=after(iso, timedelta(days=1)))

        def derived(name: str, size_bytes: int, days: int, *, proved: bool = True) -> Record:
            metadata = replace(record.entry.metadata, mtime_ns=ns - days * day)
            entry = replace(
                record.entry,
                id=hex_id(name),
                path=name,
                size_bytes=size_bytes,
                metadata=metadata,
                state=State.RESIDENT,
            )
            derivation = replace(record.derivations[0], id=hex_id(f"run {name}"), outputs=())
            return replace(
                record,
                entry=entry,
                incarnations=(),
                copies=(),
                derivations=(derivation,),
                proofs=(replace(proof, id=hex_id(f"proof {name}"), entry_id=entry.id),)
                if proved
                else (),
                pins=(),
                release=None,
            )

        pinned = replace(derived("pinned", 7, 60), pins=(Pin(True, "", "ana", MOMENT),))
        plain = plain_record("plain")
        catalog.put(
            [
                record,
                plain,
                derived("b/new", 10, 1),
                derived("b/old", 30, 60),
                derived("b0", 20, 60),
                derived("unproved", 40, 400, proved=False),
                pinned,
            ]
        )
        catalog.add_recall(
            derived("b0", 20, 60).entry, who="ana", source="nas", seconds=1.0, level="exact"
        )
        catalog.add_event("recall-failed", plain.entry, "ana", {"why": "ω"})
        catalog.add_event("forget", plain.entry, "ana", {})
        month = now - timedelta(days=30)
        assert list(catalog.releasable(iso)) == [("b/old", 30), ("b0", 20), ("b/new", 10)]
        assert list(catalog.releasable(iso, folder="b")) == [("b/old", 30), ("b/new", 10)]
        assert list(catalog.releasable(iso, unused_since=month)) == [("b/old", 30)]
        assert list(catalog.releasable(iso, min_bytes=20)) == [("b/old", 30), ("b0", 20)]
        assert catalog.came_back() == []
        for path in ("b0", "b/old"):
            catalog.add_event("release", derived(path, 1, 60).entry, "ana", {})
        assert catalog.came_back() == [("b/old", 30), ("b0", 20)]
        assert catalog.came_back(folder="b") == [("b/old", 30)]
        assert catalog.came_back(unused_since=month) == [("b/old", 30)]
        assert list(catalog.releasable(after(iso, timedelta(days=2)))) == []
        summary = statistics.summarise(catalog, now)
        assert summary.releasable == (3, 60)
        kept = derived("b/new", 10, 1).kept_bytes
        assert statistics.much_kept(catalog, now, kept / 20 - 0.01) == [
            (hex_id("b0"), 20), (hex_id("b/new"), 10)
        ]  # fmt: skip
        assert statistics.much_kept(catalog, now, kept / 10) == []
        assert summary.proved[0] >= 3
        assert summary.recipes == {
            "": {"resident": (1, 5)},
            "lab.filter": {"resident": (5, 107), "released": (1, record.entry.size_bytes)},
        }
        assert {name: tuple(amount) for name, amount in summary.ages.items()} == {
            "week": (2, 30),
            "month": (0, 0),
            "quarter": (2, 37),
            "year": (0, 0),
            "older": (2, 45),
        }
        idle = statistics.largest_idle(catalog, now, idle=timedelta(days=30), limit=2)
        assert idle == [("unproved", 40), ("b/old", 30)]
        assert summary.derived == (5, 107)
        assert summary.states == catalog.totals()
        trash = statistics.trash_totals(catalog, MOMENT)
        assert trash.waiting == (1, record.entry.size_bytes)
        assert trash.due == (0, 0)
        assert record.release is not None
        assert trash.next_purge == record.release.purge_after
        assert statistics.trash_totals(catalog, iso).due == (1, record.entry.size_bytes)
        assert catalog.recall_totals(MOMENT) == [("nas", 1, 20, 1.0)]
        failures = statistics.failures_since(catalog, MOMENT, limit=5)
        assert [event["details"] for event in failures] == [{"why": "ω"}]
        identifier = plain.entry.id
        assert set(statistics.entries_with_prefix(catalog, identifier[:6])) == {identifier}
        assert identifier[:2] in statistics.prefixes(catalog)
        assert statistics.forgotten(catalog, [identifier, "0" * 32]) == {identifier}
        catalog.take_lease(f"entry:{identifier}", "ana", instead_of=None)
        catalog.take_lease("entry:other", "ana", instead_of=None)
        assert [key for key, _ in statistics.held_leases(catalog)] == [f"entry:{identifier}"]
        newest = statistics.newest_moment(catalog)
        assert newest is not None
        assert newest >= iso
        assert catalog.beat_leases({f"entry:{identifier}": 1, "entry:other": 9}) == {"entry:other"}
        events = catalog.events()
        catalog.restore_events([{k: v for k, v in event.items() if k != "id"} for event in events])
        catalog.add_event("pin", plain.entry, "ana", {})
        assert len(catalog.events()) == 9

    def test_a_plan_gets_all_that_counts(self, catalog: Catalog) -> None:
        """Of many at once: proofs, runs and inputs; also where nothing is kept at the path."""
        rich, plain = rich_record(), plain_record("Ω/plain")
        other = InputRef("other", "4" * 32, "day 1/Ω", "5" * 64)
        ran = replace(rich.derivations[0], inputs=(other, *rich.derivations[0].inputs))
        record = replace(
            rich,
            entry=replace(rich.entry, identity=Identity(2**64 - 5, 2**64 - 6, 7, 8, 9)),
            derivations=(ran,),
            proofs=(*rich.proofs, replace(rich.proofs[0], id="5" * 32, made_at="2024-05-08")),
        )
        ids = [record.entry.id, plain.entry.id]
        for at, proofs in (("2024-05-07T12", ["6"]), ("2024-06", ["5", "6"]), ("2026", [])):
            catalog.put([record, plain])
            found = listing(catalog, ids, at)
            item, without = found[record.entry.id], found[plain.entry.id]
            assert [proof.id for proof in item.proofs] == [letter * 32 for letter in proofs]
            assert (item.path, item.sha256, item.recipe) == (
                record.entry.path,
                record.entry.sha256,
                ran.recipe,
            )
            assert item.inputs == ran.inputs
            assert (item.device, item.inode) == (-5, -6)
            assert item.seconds == (13.5 if proofs else 12.75)
            assert (without.path, without.inputs, without.proofs) == ("Ω/plain", (), ())
            emptied = sa.update(schema.paths).values(standing=None, made_from=None)
            with catalog._database.engine.begin() as connection:
                connection.execute(emptied)
            assert listing(catalog, ids, at) == found
