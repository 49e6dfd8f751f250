"""The contract of a catalog as tests, to be run on each database that holds one.

    class TestMine(CatalogContract):
        @pytest.fixture
        def url(self):
            return "postgresql+psycopg://..."  # of an empty database, a fresh one for each test

Needs pytest and Hypothesis.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from recallfs.catalog import schema
from recallfs.catalog.database import Catalog, Intent
from recallfs.catalog.sidecar import Record
from recallfs.errors import ConflictError, RecallError
from recallfs.testing.fidelity import FidelityContract
from recallfs.testing.overviews import OverviewContract
from recallfs.testing.paths import AWKWARD, PathsMachine, check_listings, folders_of, moved_to
from recallfs.testing.records import MOMENT, STORE_ID, hex_id, plain_record, rich_record
from recallfs.testing.sharing import SharedCatalogContract
from recallfs.values import Copy, Entry, Identity, State, after, now_utc

_OTHER_STORE_ID = "6" * 32
_EVIDENCE = [table for table in schema.metadata.tables.values() if table is not schema.stores]


def _rows(catalog: Catalog, table: sa.Table) -> list[tuple[object, ...]]:
    """Return all rows of a table, sorted."""
    with catalog._database.engine.connect() as connection:
        return sorted((tuple(row) for row in connection.execute(sa.select(table))), key=repr)


class CatalogContract(FidelityContract, OverviewContract, SharedCatalogContract):
    """What every catalog does, whatever database holds it."""

    examples = 20
    """How many histories the model is compared with."""

    @pytest.fixture
    def url(self) -> str:
        """Give the address of an empty database, a fresh one for each test."""
        raise NotImplementedError

    @pytest.fixture
    def catalog(self, url: str) -> Iterator[Catalog]:
        """Give an empty catalog."""
        catalog = Catalog(url, STORE_ID)
        catalog.prepare()
        yield catalog
        catalog.close()

    def test_listings_of_awkward_siblings(self, catalog: Catalog) -> None:
        """Names around '/' in sort order, unicode and LIKE's wildcards do not confuse a listing."""
        catalog.put([plain_record(path) for path in AWKWARD])
        check_listings(catalog, set(AWKWARD), folders_of(set(AWKWARD)))

    def test_an_entry_is_read_as_it_was_put(self, catalog: Catalog) -> None:
        """Every field comes back, the identity too; there is nothing at other paths."""
        record = rich_record()
        entry = replace(record.entry, identity=Identity(1, 2**62, 3, 4, 5))
        catalog.put([replace(record, entry=entry)])
        assert catalog.entry_at(entry.path) == entry
        assert catalog.entry(entry.id) == entry
        assert catalog.entries_with_sha256(entry.sha256) == [entry]
        assert catalog.entry_at(entry.path.upper()) is None
        assert catalog.entry_at(entry.path + "/") is None
        assert catalog.entry("0" * 32) is None
        assert catalog.entries_with_sha256("0" * 64) == []

    def test_putting_twice_changes_nothing(self, catalog: Catalog) -> None:
        """Putting a record again adds no row and alters none, in any table."""
        catalog.put([rich_record()], {"4" * 64: '{"python": "3.11"}'})
        before = {table.name: _rows(catalog, table) for table in _EVIDENCE}
        indexed = {name for name, found in before.items() if found}
        assert indexed >= {"entries", "paths", "incarnations", "copies", "derivations", "trash"}
        assert indexed >= {
            "derivation_inputs",
            "derivation_outputs",
            "proofs",
            "pins",
            "environments",
        }
        catalog.put([rich_record(), rich_record()][:1], {"4" * 64: '{"python": "3.11"}'})
        assert {table.name: _rows(catalog, table) for table in _EVIDENCE} == before

    def test_evidence_is_only_added(self, catalog: Catalog) -> None:
        """A record that claims another past cannot change rows; new ones are added."""
        record = rich_record()
        catalog.put([record])
        forged = replace(
            record,
            entry=replace(record.entry, sha256="f" * 64, size_bytes=1, state=State.RESIDENT),
            proofs=(replace(record.proofs[0], sha256="f" * 64, valid_until="9999"),),
            copies=(*record.copies, Copy("nas", "file:///x", "nas", False, MOMENT)),
            release=None,
        )
        tables = (schema.entries, schema.proofs, schema.incarnations)
        before = [_rows(catalog, table) for table in tables]
        catalog.put([forged])
        assert [_rows(catalog, table) for table in tables] == before
        assert len(_rows(catalog, schema.copies)) == 2
        found = catalog.entry(record.entry.id)
        assert found is not None
        assert (found.sha256, found.state) == ("a" * 64, State.RESIDENT)
        assert catalog.trashed() == []

    def test_a_large_batch_is_put_whole(self, catalog: Catalog) -> None:
        """More records than one statement holds arrive, and their intents end."""
        records = [plain_record(f"d{i % 7}/f{i}") for i in range(1201)]
        catalog.intend(Intent(r.entry.id, "create", r.entry.path, {}, "h") for r in records)
        assert len(catalog.intents()) == 1201
        catalog.put(records)
        assert sum(1 for _ in catalog.entries_below("")) == 1201
        assert catalog.intents() == []

    def test_a_put_that_fails_changes_nothing(self, catalog: Catalog) -> None:
        """One impossible record takes back the whole transaction."""
        good = plain_record("good")
        bad = replace(
            plain_record("bad"), entry=replace(plain_record("bad").entry, size_bytes=2**70)
        )
        with pytest.raises((OverflowError, RecallError)):
            catalog.put([good, bad])
        assert catalog.entry_at("good") is None
        assert _rows(catalog, schema.entries) == []

    def test_a_path_is_taken_over_only_on_purpose(self, catalog: Catalog) -> None:
        """A new entry takes a path from the one it replaces, and from no other."""
        first, second = plain_record("a"), plain_record("a", name="second")
        catalog.put([first])
        for wrong in (
            [second],
            [plain_record("b"), second],
            [plain_record("c"), plain_record("c", name="d")],
        ):
            with pytest.raises(ConflictError):
                catalog.put(wrong)
            assert [entry.id for entry in catalog.entries_below("")] == [first.entry.id]
        catalog.put([second], replacing=[first.entry.id])
        found = catalog.entry_at("a")
        assert found is not None
        assert found.id == second.entry.id
        assert catalog.entry(first.entry.id) is None
        assert len(_rows(catalog, schema.entries)) == 2

    def test_paths_can_be_exchanged_and_moved(self, catalog: Catalog) -> None:
        """Two entries may take each other's path in one put."""
        a, b = plain_record("a"), plain_record("b")
        catalog.put([a, b])
        catalog.put([moved_to(a, "b"), moved_to(b, "x/a")])
        assert {e.path: e.id for e in catalog.entries_below("")} == {
            "b": a.entry.id,
            "x/a": b.entry.id,
        }
        assert catalog.children("")[1] == ["x"]

    def test_what_was_seen_is_noted(self, catalog: Catalog) -> None:
        """State and identity of a path change without touching the entry."""
        record = plain_record("a")
        catalog.put([record])
        catalog.see(record.entry, State.DIRTY, Identity(1, 2, 3, 4, 5))
        dirty = replace(record.entry, state=State.DIRTY, identity=Identity(1, 2, 3, 4, 5))
        assert catalog.entry_at("a") == dirty
        catalog.see(record.entry, State.RESIDENT, None)
        assert catalog.entry_at("a") == dirty, "what was read before a change does not undo it"
        catalog.see(dirty, State.MISSING, None)
        assert catalog.entry_at("a") == replace(record.entry, state=State.MISSING)

    def test_a_dropped_entry_stands_nowhere(self, catalog: Catalog) -> None:
        """Dropping ends path, trash and intent; evidence stays."""
        record = rich_record()
        catalog.put([record])
        catalog.intend([Intent(record.entry.id, "forget", record.entry.path, {}, "h")])
        assert catalog.trashed() == [record.entry.id]
        catalog.drop(record.entry.id)
        assert catalog.entry_at(record.entry.path) is None
        assert catalog.trashed() == []
        assert catalog.intents() == []
        assert len(_rows(catalog, schema.proofs)) == 1

    def test_what_rests_on_an_entry_is_found(self, catalog: Catalog) -> None:
        """Dependents are the outputs of derivations that have the entry as an input."""
        record = rich_record()
        catalog.put([plain_record("day 1/raw.nwb"), record])
        (reference,) = record.derivations[0].inputs
        raw = replace(plain_record("day 1/raw.nwb").entry, id=reference.entry_id)
        same_bytes = replace(raw, id="7" * 32, sha256=reference.sha256)
        assert catalog.dependents(raw) == [record.entry]
        assert catalog.dependents(same_bytes) == [record.entry]
        assert catalog.dependents(replace(raw, id="7" * 32)) == []
        catalog.drop(record.entry.id)
        assert catalog.dependents(raw) == []

    def test_the_newest_result_of_a_key_is_found(self, catalog: Catalog) -> None:
        """Of two derivations with one key, the one that was started last gives the outputs."""
        record = rich_record()
        (old,) = record.derivations
        new = replace(
            old,
            id="e" * 32,
            started_at="2024-05-07T00:00:00.000000+00:00",
            outputs=(replace(old.outputs[0], entry_id="9" * 32),),
        )
        made = plain_record("newer", name="newer")
        new = replace(new, outputs=(replace(new.outputs[0], entry_id=made.entry.id),))
        catalog.put([replace(record, derivations=(old,)), replace(made, derivations=(new,))])
        assert catalog.outputs_for_key("c" * 64) == {"": made.entry.id}
        assert catalog.outputs_for_key("0" * 64) == {}

    def test_an_environment_is_kept_as_it_was(self, catalog: Catalog) -> None:
        """An environment is stored once; a second text under its name changes nothing."""
        catalog.put([], {"e": '{"python": "3.11"}'})
        catalog.put([], {"e": '{"python": "2.7"}'})
        assert catalog.environment("e") == {"python": "3.11"}
        assert catalog.environment("f") is None

    def test_intents_last_until_ended(self, catalog: Catalog) -> None:
        """An intent is read back whole, is replaced by a newer one, and can be dropped."""
        first = Intent("a" * 32, "move", "old", {"old": "old", "new": "ω"}, "host|1|2")
        catalog.intend([first])
        assert catalog.intents() == [first]
        second = first._replace(action="release")
        catalog.intend([second])
        assert catalog.intents() == [second]
        catalog.drop_intent("a" * 32)
        assert catalog.intents() == []
        catalog.intend([])
        assert catalog.intents() == []

    def test_the_trash_is_listed_by_its_time(self, catalog: Catalog) -> None:
        """Entries are due from their moment on, not before."""
        record = rich_record()
        assert record.release is not None
        due = record.release.purge_after
        catalog.put([record, plain_record("resident")])
        assert catalog.trashed() == [record.entry.id]
        assert catalog.trashed(due) == [record.entry.id]
        assert catalog.trashed(due[:-1] + "!") == []
        catalog.put([replace(record, release=replace(record.release, stage="purged"))])
        assert catalog.trashed() == []

    def test_a_lease_is_held_by_one(self, catalog: Catalog) -> None:
        """A held lease is refused to others until it is given back; numbers only grow."""
        assert catalog.lease("k") is None
        assert catalog.take_lease("k", "ana", instead_of=None) == 1
        assert catalog.take_lease("k", "ben", instead_of=None) is None
        assert catalog.free_lease("k", 1, failure="no luck") is True
        assert catalog.lease("k") == (1, 0, None, "no luck")
        assert catalog.take_lease("k", "ben", instead_of=None) == 2
        assert catalog.lease("k") == (2, 0, "ben", None)
        assert catalog.take_lease("other", "ana", instead_of=None) == 1

    def test_a_woken_holder_is_fenced_off(self, catalog: Catalog) -> None:
        """After a takeover the earlier holder can neither beat nor free the lease."""
        assert catalog.take_lease("k", "ana", instead_of=None) == 1
        seen = catalog.lease("k")
        assert catalog.take_lease("k", "ben", instead_of=seen) == 2
        assert catalog.beat_lease("k", 1) is False
        assert catalog.free_lease("k", 1) is False
        assert catalog.lease("k") == (2, 0, "ben", None)
        assert catalog.beat_lease("k", 2) is True
        assert catalog.free_lease("k", 2) is True
        assert catalog.beat_lease("k", 2) is False

    def test_a_beat_prevents_a_takeover(self, catalog: Catalog) -> None:
        """Who saw the lease before its holder's last beat does not get it; nor do two takers."""
        catalog.take_lease("k", "ana", instead_of=None)
        stale = catalog.lease("k")
        assert catalog.beat_lease("k", 1) is True
        assert catalog.take_lease("k", "ben", instead_of=stale) is None
        fresh = catalog.lease("k")
        assert catalog.take_lease("k", "ben", instead_of=fresh) == 2
        assert catalog.take_lease("k", "eve", instead_of=fresh) is None

    def test_a_reader_is_not_stopped_by_a_writer(self, catalog: Catalog) -> None:
        """While a write is under way, reads are answered from before it."""
        catalog.put([plain_record("a")])
        found: list[Entry | None] = []

        def change(connection: sa.Connection) -> None:
            connection.execute(sa.delete(schema.paths))
            thread = threading.Thread(target=lambda: found.append(catalog.entry_at("a")))
            thread.start()
            thread.join(20)

        catalog._database.transact(change)
        assert found == [plain_record("a").entry]
        assert catalog.entry_at("a") is None

    def test_a_listing_may_be_changed_under_way(self, catalog: Catalog) -> None:
        """Entries may be put while a listing is read, which holds up nobody."""
        catalog.put([plain_record(f"{i:04}") for i in range(600)])
        listed: list[str] = []
        for entry in catalog.entries_below(""):
            if not listed:
                catalog.put([plain_record("9999")])
            listed.append(entry.path)
        assert listed == [f"{i:04}" for i in range(600)]
        assert catalog.entry_at("9999") is not None

    def test_recalls_are_counted(self, catalog: Catalog) -> None:
        """Recalls are listed newest first and added up by source."""
        entry = plain_record("abc").entry
        catalog.put([plain_record("abc")])
        catalog.add_recall(entry, who="ana", source="nas", seconds=1.5, level="exact")
        catalog.add_recall(entry, who="ben", source="recompute", seconds=2.0, level="exact")
        catalog.add_recall(entry, who="eve", source="nas", seconds=0.5, level="exact")
        assert [recall["who"] for recall in catalog.recalls(entry.id)] == ["eve", "ben", "ana"]
        assert [recall["who"] for recall in catalog.recalls(entry.id, source="nas")] == [
            "eve",
            "ana",
        ]
        assert catalog.recall_totals() == [("nas", 2, 6, 2.0), ("recompute", 1, 3, 2.0)]
        assert len(_rows(catalog, schema.accesses)) == 1

    def test_the_audit_trail_is_in_order(self, catalog: Catalog) -> None:
        """Events come back oldest first, with their details, of one entry or all."""
        records = [plain_record("one", name="one"), plain_record("two", name="two")]
        catalog.put(records)
        one, two = (record.entry for record in records)
        catalog.add_event("release", one, "ana", {"evidence": "copies"})
        catalog.add_event("pin", two, "ben", {})
        assert [event["action"] for event in catalog.events()] == ["release", "pin"]
        (event,) = catalog.events(one.id)
        assert (event["who"], event["path"], event["details"]) == (
            "ana",
            "one",
            {"evidence": "copies"},
        )

    def test_totals_and_proved_files(self, catalog: Catalog) -> None:
        """Entries and bytes are added up by state; only valid proofs of resident files count."""
        record = rich_record()
        now = now_utc()
        proof = replace(record.proofs[0], made_at=now, valid_until=after(now, timedelta(days=1)))
        resident = replace(
            record, entry=replace(record.entry, state=State.RESIDENT), proofs=(proof,)
        )
        assert catalog.totals() == {}
        catalog.put([resident, plain_record("abc")])
        assert catalog.totals() == {"resident": (2, 125_000_000_004)}
        assert catalog.proved(now) == {"files": 1, "size_bytes": 125_000_000_001}
        assert catalog.proved(after(now, timedelta(days=2))) == {"files": 0, "size_bytes": 0}
        revoked = replace(record.revocations[0], proof_id=proof.id)
        catalog.put([replace(resident, revocations=(revoked,))])
        assert catalog.proved(now) == {"files": 0, "size_bytes": 0}
        catalog.put([replace(resident, entry=record.entry)])
        assert catalog.totals() == {"resident": (1, 3), "released": (1, 125_000_000_001)}

    def test_answers_agree_with_a_plain_model(self, catalog: Catalog) -> None:
        """After any history of changes, every question about paths is answered as by a dict."""

        class Machine(PathsMachine):
            pass

        Machine.catalog = catalog
        run_state_machine_as_test(
            Machine,
            settings=settings(
                deadline=None,
                max_examples=self.examples,
                stateful_step_count=12,
                suppress_health_check=list(HealthCheck),
            ),
        )

    def test_preparing_again_changes_nothing(self, url: str, catalog: Catalog) -> None:
        """A catalog that is there and new enough is opened as it is."""
        catalog.put([rich_record()])
        again = Catalog(url, STORE_ID)
        again.prepare()
        assert [entry.path for entry in again.entries_below("")] == [rich_record().entry.path]
        again.close()

    def test_a_closed_catalog_opens_by_itself(self, catalog: Catalog) -> None:
        """After its connections were closed, a catalog makes new ones."""
        catalog.put([plain_record("a")])
        catalog.close()
        assert catalog.entry_at("a") is not None
        catalog.close()
        catalog.put([plain_record("b")])
        assert len(list(catalog.entries_below(""))) == 2

    def test_stores_share_a_database(self, url: str, catalog: Catalog) -> None:
        """Two stores with the same paths in one database never see or change each other's rows."""
        other = Catalog(url, _OTHER_STORE_ID)
        other.prepare()
        catalog.put([plain_record("a/b", name="one")])
        other.put([plain_record("a/b", name="two", store_id=_OTHER_STORE_ID)])
        other.intend([Intent(hex_id("two"), "release", "a/b", {}, "h")])
        try:
            for item, name in ((catalog, "one"), (other, "two")):
                found = item.entry_at("a/b")
                assert found is not None
                assert found.id == hex_id(name)
                assert len(list(item.entries_below(""))) == 1
                assert item.children("") == ([], ["a"])
                assert item.totals() == {"resident": (1, 3)}
                item.add_event("pin", found, "ana", {})
                assert len(item.events()) == 1
            assert catalog.intents() == []
            catalog.replace_all(list, {})
            assert catalog.entry_at("a/b") is None
            assert other.entry_at("a/b") is not None
            assert len(other.intents()) == 1
        finally:
            other.close()

    def test_a_rebuild_replaces_all_or_nothing(self, catalog: Catalog) -> None:
        """Replacing the index drops what is not there any more; if it fails, all is as before."""
        catalog.put([plain_record("a"), rich_record()])
        catalog.intend([Intent(hex_id("a"), "move", "a", {}, "h")])

        def broken() -> Iterator[Record]:
            yield from (plain_record(f"new {number}") for number in range(2500))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            catalog.replace_all(broken, {})
        assert {entry.path for entry in catalog.entries_below("")} == {
            "a",
            rich_record().entry.path,
        }
        assert len(catalog.intents()) == 1
        catalog.replace_all(lambda: (plain_record(f"new {n}") for n in range(2500)), {})
        assert sum(1 for _ in catalog.entries_below("")) == 2500
        assert catalog.intents() == []
        assert catalog.trashed() == []
