"""Records: evidence changes whole or not at all, and the catalog can be made from it again."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from recallfs.catalog import changes, records, schema
from recallfs.catalog.rebuild import RebuildReport, rebuild
from recallfs.catalog.sidecar import Pin, Record, encode
from recallfs.catalog.store import Store, create_store, open_store
from recallfs.errors import CatalogError, IntegrityError, InvalidInputError
from recallfs.testing.records import MOMENT, plain_record, rich_record
from recallfs.values import Identity, Metadata, State

LATER = "2025-01-01T00:00:00.000000+00:00"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give a new store."""
    store = create_store(tmp_path / "root", "lab", vault=tmp_path / "vault")
    yield store
    store.catalog.close()


def resident(store: Store, path: str, *, name: str = "") -> Record:
    """Write a file and record it as it is."""
    place = store.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(path)
    record = plain_record(path, name=name, store_id=store.id)
    status = place.lstat()
    record = replace(
        record,
        entry=replace(record.entry, size_bytes=status.st_size, metadata=Metadata.from_stat(status)),
    )
    changes.create(store, [record])
    return record


def rows(store: Store) -> dict[str, list[Any]]:
    """Return all that an index holds: every table but those of readers and work in hand."""
    left_out = {"events", "recalls", "accesses", "leases", "intents"}
    with store.catalog._database.engine.connect() as connection:
        return {
            name: sorted(tuple(row) for row in connection.execute(sa.select(table)))
            for name, table in schema.metadata.tables.items()
            if name not in left_out
        }


def fill(store: Store) -> None:
    """Record one file of each sort."""
    resident(store, "day 1/raw.nwb")
    resident(store, "ω/pinned")
    with changes.edit(store, plain_record("ω/pinned").entry.id, "pin") as draft:
        pin = Pin(True, "for the figure", "ana@lab", MOMENT)
        draft.record = replace(draft.record, pins=(pin,))
    rich = replace(rich_record(), store_id=store.id)
    records.save(store, rich)
    other = plain_record("purged", store_id=store.id)
    assert rich.release is not None
    records.save(
        store,
        replace(
            other,
            entry=replace(other.entry, state=State.RELEASED),
            release=replace(rich.release, stage="purged"),
        ),
    )
    records.save_environment(store, "4" * 64, {"python": "3.11", "packages": {"ω": "1"}})
    rebuild(store)


def test_a_lost_catalog_is_made_again(store: Store) -> None:
    """After catalog.sqlite is deleted, a rebuild gives the same rows in every table."""
    fill(store)
    before = rows(store)
    rich = rich_record()
    assert before["trash"]
    assert before["environments"]
    assert before["proofs"]
    store.catalog.close()
    for path in store.control.glob("catalog.sqlite*"):
        path.unlink()
    again = open_store(store.root)
    assert again.catalog.entry_at("ω/pinned") is None
    report = rebuild(again)
    assert report == RebuildReport(entries=4, states={"resident": 2, "released": 2})
    assert rows(again) == before
    assert again.catalog.entry_at(rich.entry.path) == rich.entry
    assert again.catalog.outputs_for_key("c" * 64) == {"": rich.entry.id, "b": "3" * 32}
    assert [entry.id for entry in again.catalog.dependents(replace(rich.entry, id="1" * 32))] == [
        rich.entry.id
    ]
    assert again.catalog.trashed() == [rich.entry.id]
    environment = again.catalog.environment("4" * 64)
    assert environment is not None
    assert environment.pop("label")
    assert environment == {"python": "3.11", "packages": {"ω": "1"}}
    again.catalog.close()


def test_rebuilding_a_good_catalog_changes_nothing(store: Store) -> None:
    """A rebuild is safe at any time."""
    fill(store)
    before = rows(store)
    rebuild(store)
    assert rows(store) == before


def test_a_rebuild_looks_at_the_tree(store: Store) -> None:
    """A file that is gone is missing; a changed one has no identity and is hashed when used."""
    kept, gone, changed = (resident(store, path) for path in ("kept", "gone", "changed"))
    (store.root / "gone").unlink()
    (store.root / "changed").write_text("something else")
    report = rebuild(store)
    assert report.states == {"resident": 2, "missing": 1}
    seen = Identity.from_stat((store.root / "kept").lstat())
    assert store.catalog.entry_at("kept") == replace(kept.entry, identity=seen)
    assert store.catalog.entry_at("gone") == replace(gone.entry, state=State.MISSING)
    assert store.catalog.entry_at("changed") == changed.entry


def test_the_time_of_a_file_counts(store: Store) -> None:
    """A file of the same size that was written since is not taken for unchanged."""
    record = resident(store, "same-size")
    (store.root / "same-size").write_text("SAME-SIZE")
    os.utime(store.root / "same-size", ns=(0, record.entry.metadata.mtime_ns + 1))
    rebuild(store)
    found = store.catalog.entry_at("same-size")
    assert found is not None
    assert found.identity is None


def test_a_damaged_sidecar_is_reported_and_left(store: Store) -> None:
    """One bad sidecar costs its own entry only, and its bytes are not touched."""
    good, bad = resident(store, "good"), resident(store, "bad")
    path = store.sidecar_path(bad.entry.id)
    content = path.read_bytes().replace(b"resident", b"released")
    path.write_bytes(content)
    report = rebuild(store)
    assert report.damaged == [str(path)]
    assert report.entries == 1
    assert path.read_bytes() == content
    assert store.catalog.entry_at("bad") is None
    assert store.catalog.entry_at("good") is not None
    assert store.catalog.entry(good.entry.id) is not None


def test_a_sidecar_under_another_name_is_damaged(store: Store) -> None:
    """A copied sidecar does not speak for another entry, neither when loaded nor rebuilt."""
    good, other = resident(store, "good"), resident(store, "other")
    path = store.sidecar_path(other.entry.id)
    path.write_bytes(store.sidecar_path(good.entry.id).read_bytes())
    with pytest.raises(IntegrityError, match="holds the record of the entry") as caught:
        records.load(store, other.entry.id)
    assert caught.value.kind == "damaged-record"
    report = rebuild(store)
    assert report.damaged == [str(path)]
    assert report.entries == 1


def test_of_two_sidecars_for_a_path_the_newer_counts(store: Store) -> None:
    """The older one is reported and kept; which file is read first does not matter."""
    for name in ("x", "y"):
        for first, second in (("older", "newer"), ("newer", "older")):
            for which in (first, second):
                record = plain_record(name, name=f"{name}-{which}", store_id=store.id)
                if which == "newer":
                    record = replace(record, entry=replace(record.entry, created_at=LATER))
                path = store.sidecar_path(record.entry.id)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(encode(record))
    report = rebuild(store)
    assert report.entries == 2
    assert len(report.superseded) == 2
    assert all(Path(path).is_file() for path in report.superseded)
    for name in ("x", "y"):
        found = store.catalog.entry_at(name)
        assert found is not None
        assert found.created_at == LATER


def test_a_newer_sidecar_stops_a_rebuild(store: Store) -> None:
    """A sidecar of a later recallfs is not left out: the old catalog stays as it was."""
    record = resident(store, "a")
    resident(store, "b")
    path = store.sidecar_path(record.entry.id)
    path.write_bytes(path.read_bytes().replace(b'"rsc1"', b'"rsc2"'))
    before = rows(store)
    with pytest.raises(CatalogError) as caught:
        rebuild(store)
    assert caught.value.kind == "schema-version"
    assert rows(store) == before


def test_unfinished_files_are_no_sidecars(store: Store) -> None:
    """What a killed writer left beside a sidecar is not read by a rebuild."""
    record = resident(store, "a")
    folder = store.sidecar_path(record.entry.id).parent
    (folder / ".new-0123").write_bytes(b"half")
    assert rebuild(store) == RebuildReport(entries=1, states={"resident": 1})


def test_a_large_store_is_rebuilt_in_batches(store: Store) -> None:
    """More sidecars than one batch holds all arrive."""
    for i in range(1203):
        record = plain_record(f"f{i}", store_id=store.id)
        path = store.sidecar_path(record.entry.id)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(record))
    report = rebuild(store)
    assert report == RebuildReport(entries=1203, states={"missing": 1203})
    assert sum(1 for _ in store.catalog.entries_below("")) == 1203


def test_an_edit_is_saved_whole(store: Store) -> None:
    """Within an edit an intent says what is done; afterwards both records agree and it is gone."""
    record = resident(store, "a")
    with changes.edit(store, record.entry.id, "move", {"new": "b"}) as draft:
        (intent,) = store.catalog.intents()
        assert (intent.action, intent.path, intent.details) == ("move", "a", {"new": "b"})
        draft.record = replace(
            draft.record, entry=replace(draft.record.entry, path="b", state=State.MISSING)
        )
        assert records.load(store, record.entry.id) == record
    assert store.catalog.intents() == []
    assert records.load(store, record.entry.id).entry.path == "b"
    assert store.catalog.entry_at("a") is None
    found = store.catalog.entry_at("b")
    assert found is not None
    assert found.state is State.MISSING


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_edit_that_raises_changes_nothing(store: Store, error: type[BaseException]) -> None:
    """Sidecar and catalog stay as they were, no intent is left, and the lock is free."""
    record = resident(store, "a")
    sidecar, before = store.sidecar_path(record.entry.id).read_bytes(), rows(store)

    def fail() -> None:
        with changes.edit(store, record.entry.id, "release") as draft:
            draft.record = replace(draft.record, pins=(Pin(True, "", "", MOMENT),))
            raise error

    with pytest.raises(error):
        fail()
    assert store.sidecar_path(record.entry.id).read_bytes() == sidecar
    assert rows(store) == before
    assert store.catalog.intents() == []
    with changes.edit(store, record.entry.id, "pin"):
        pass


def test_edits_at_once_lose_nothing(store: Store) -> None:
    """Threads that each add a pin to one record end with all of them."""
    record = resident(store, "a")

    def pin(number: int) -> None:
        with changes.edit(store, record.entry.id, "pin") as draft:
            word = Pin(True, str(number), "ana", f"{MOMENT}-{number}")
            draft.record = replace(draft.record, pins=(*draft.record.pins, word))

    threads = [threading.Thread(target=pin, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = records.load(store, record.entry.id)
    assert {word.reason for word in found.pins} == {str(i) for i in range(8)}
    assert len(rows(store)["pins"]) == 8


def test_a_missing_sidecar_is_damage(store: Store) -> None:
    """A sidecar that is gone is an error that says where another one is; no edit is begun."""
    record = resident(store, "a")
    store.sidecar_path(record.entry.id).unlink()
    with pytest.raises(IntegrityError, match="restore it from the vault") as caught:
        records.load(store, record.entry.id)
    assert caught.value.kind == "damaged-record"
    with pytest.raises(IntegrityError), changes.edit(store, record.entry.id, "pin"):
        raise AssertionError("the block must not run")
    assert store.catalog.intents() == []


def test_creating_that_fails_leaves_nothing(store: Store) -> None:
    """When the bytes cannot be placed, sidecars, intents and paths are taken back, of all."""
    wanted = [plain_record(path, store_id=store.id) for path in ("a", "b")]

    def place() -> None:
        assert len(store.catalog.intents()) == 2
        assert all(store.sidecar_path(record.entry.id).is_file() for record in wanted)
        assert store.catalog.entry_at("a") is None
        raise KeyError

    with pytest.raises(KeyError):
        changes.create(store, wanted, place)
    assert store.catalog.intents() == []
    assert list((store.control / "entries").glob("*/*")) == []
    assert rows(store)["paths"] == []


def test_unknown_entries_are_told_as_such(store: Store) -> None:
    """A path that is not in the catalog is an error with its address and the way in."""
    resident(store, "a")
    assert records.known_entry(store, "a").path == "a"
    with pytest.raises(InvalidInputError, match="recall://lab/b is not in the catalog") as caught:
        records.known_entry(store, "b")
    assert caught.value.kind == "unknown-entry"


def test_a_retired_sidecar_is_kept_but_not_read(store: Store) -> None:
    """The evidence of a file that was written over is put away, once."""
    record = resident(store, "a")
    content = store.sidecar_path(record.entry.id).read_bytes()
    for _ in range(2):
        records.retire(store, record.entry.id)
    kept = store.control / "superseded" / f"{record.entry.id}.rsc1"
    assert kept.read_bytes() == content
    assert rebuild(store) == RebuildReport()


def test_an_environment_is_written_once(store: Store) -> None:
    """A captured environment never changes."""
    records.save_environment(store, "e", {"python": "3.11"})
    records.save_environment(store, "e", {"python": "2.7"})
    kept = records.environment(store, "e")
    assert kept.pop("label").endswith("_python_00")
    assert kept == {"python": "3.11"}
