"""What Spyglass has logged of files is told and kept; none of it is believed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archives import corrupted
from conftest import sha256
from recallfs.catalog import audit, records
from recallfs.errors import RecallError
from recallfs.integrations import spyglass
from recallfs.resolve.recall import recall
from recallfs.resolve.stores import stores_in_reach
from recallfs.testing.dandi import DandiServer
from recallfs.testing.kachery import KacheryServer
from recallfs.values import State

pytestmark = pytest.mark.spyglass


@contextlib.contextmanager
def rows(*inserted: tuple[Any, dict[str, Any]]) -> Iterator[None]:
    """Have rows in tables for a while, whatever they refer to."""
    import datajoint

    connection = datajoint.conn()
    connection.query("SET FOREIGN_KEY_CHECKS = 0")
    try:
        for table, row in inserted:
            table().insert1(row, allow_direct_insert=True)
        yield
    finally:
        for table, row in inserted:
            keys = {name: row[name] for name in table.primary_key}
            (table & keys).delete_quick()
        connection.query("SET FOREIGN_KEY_CHECKS = 1")


def kachery_row(name: str, uri: str) -> tuple[Any, dict[str, Any]]:
    from spyglass.sharing.sharing_kachery import AnalysisNwbfileKachery

    return AnalysisNwbfileKachery, {
        "kachery_zone_name": "default",
        "analysis_file_name": name,
        "analysis_file_uri": uri,
    }


def attempt(pipeline: Any, *, deleted: int) -> tuple[Any, dict[str, Any]]:
    """Return a row of a recompute that Spyglass counts as matched."""
    from spyglass.spikesorting.v1.recompute import RecordingRecompute, RecordingRecomputeSelection

    key = (RecordingRecomputeSelection & pipeline.key).fetch1("KEY")
    return RecordingRecompute, {**key, "matched": 1, "deleted": deleted}


@pytest.fixture
def kachery(made: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KacheryServer]:
    """Serve a gateway that the stores ask."""
    with KacheryServer() as server:
        for name, value in server.environment(tmp_path / "kachery").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RECALLFS_SOURCES__KACHERY__ENABLED", "true")
        yield server


def entry_of(pipeline: Any, row: Any = None) -> Any:
    store, path = stores_in_reach().resolve(str(pipeline.place(row)))
    return store, records.load(store, records.known_entry(store, path).id)


def test_environment_and_attempts_are_noted(made: Any) -> None:
    """Environments and matched attempts go into the audit trail, and are no proof."""
    with rows(attempt(made, deleted=0)):
        (result,) = spyglass.adopt(made.recording)
        result.checked()
        told = " ".join(result.notes)
        assert "proves nothing" in told
        assert "1 recomputes in Spyglass' tables 1 matched, 1 of them logged at creation" in told
        (amount,) = spyglass.survey(made.recording)
        assert (amount.attempts, amount.matched, amount.deleted) == (1, 1, 0)
    store, record = entry_of(made)
    (event,) = audit.trail(store, actions=["spyglass"])
    logged = event["details"]
    (identifier,) = logged["environments"]
    assert identifier.startswith("admin_")
    assert (logged["matched"], logged["logged_at_creation"]) == (1, 1)
    assert logged["versions"]["spyglass"] == "0.6.0"
    assert logged["versions"]["nwb:core"]
    assert not record.proofs
    made.close()
    (released,) = spyglass.release(made.recording)
    assert released.error is not None
    assert released.error.kind == "unproved"


def test_a_deleted_file_is_known_by_its_checksum(made: Any, kachery: KacheryServer) -> None:
    """Spyglass deleted it: Kachery gives it back if size and md5 are DataJoint's, else nobody."""
    place = made.place()
    content = place.read_bytes()
    kept = made.base / "kept.nwb"
    kept.write_bytes(content)
    uri = kachery.add_file(kept)
    made.close()
    place.unlink()
    with rows(attempt(made, deleted=1), kachery_row(place.name, f"sha1://{uri}")):
        (result,) = spyglass.adopt(made.recording)
        assert result.checked().key == ""
        assert "Spyglass deleted it after a match" in " ".join(result.notes)
    _, record = entry_of(made)
    assert record.entry.state is State.MISSING
    assert record.dandi_etag == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert not record.derivations
    spyglass.install()
    try:
        assert len(made.recording.fetch_nwb()) == 1
    finally:
        spyglass.uninstall()
    assert place.read_bytes() == content
    _, record = entry_of(made)
    assert record.entry.sha256 == sha256(kept)


def test_other_bytes_are_not_taken_for_a_deleted_file(made: Any, kachery: KacheryServer) -> None:
    """What Kachery has under its name is another file of that size: nothing comes back."""
    place = made.place()
    kept = made.base / "kept.nwb"
    kept.write_bytes(place.read_bytes())
    uri = kachery.add_file(corrupted(kept))
    made.close()
    place.unlink()
    with rows(kachery_row(place.name, f"sha1://{uri}")):
        spyglass.adopt(made.recording)[0].checked()
    store, record = entry_of(made)
    with pytest.raises(RecallError):
        recall(stores_in_reach(), store, record.entry.path)
    assert not place.exists()


def test_a_file_that_was_never_written(made: Any) -> None:
    """A row without a file, of which nobody deleted anything, is no entry."""
    place = made.place()
    made.close()
    place.unlink()
    (result,) = spyglass.adopt(made.recording)
    assert result.error is not None
    assert "deleted or never written" in str(result.error)
    with pytest.raises(RecallError):
        entry_of(made)


def test_a_linked_file_is_no_copy(made: Any, kachery: KacheryServer) -> None:
    """A URI of Kachery is recorded, but does not let a file be released that is only linked."""
    place = made.place(made.mean)
    digest = hashlib.sha1(place.read_bytes(), usedforsecurity=False).hexdigest()
    wrong = "0" * 40
    with rows(kachery_row(place.name, f"sha1://{digest}?label={place.name}")):
        (result,) = spyglass.adopt(made.mean)
        assert "a file that is only linked there is no copy" in " ".join(result.notes)
        assert len(spyglass.adopt(made.mean)) == 1
    _, record = entry_of(made, made.mean)
    (copy,) = record.copies
    assert (copy.source, copy.verified_at) == ("kachery", "")
    made.close()
    (released,) = spyglass.release(made.mean)
    assert released.error is not None
    assert released.error.kind == "unproved"
    with rows(kachery_row(place.name, f"sha1://{wrong}")):
        (result,) = spyglass.adopt(made.mean)
        assert "another file under its name" in " ".join(result.notes)
    assert len(entry_of(made, made.mean)[1].copies) == 1


def test_a_path_in_dandi_is_recorded(
    made: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What DandiPath names is asked for: the same file is a copy, another or none is told."""
    from spyglass.common.common_dandi import DandiPath

    place = made.place(made.mean)
    with DandiServer() as server:
        monkeypatch.setenv("DANDI_INSTANCE", server.api_url)
        monkeypatch.setenv("RECALLFS_SOURCES__DANDI__ENABLED", "true")
        dandiset = server.add_dandiset()
        server.add_asset(dandiset, "sub-1/mean.nwb", place)
        other = tmp_path / "other.nwb"
        other.write_bytes(b"other")
        server.add_asset(dandiset, "sub-1/other.nwb", other)
        told = {}
        for path in ("sub-1/mean.nwb", "sub-1/other.nwb", "sub-1/none.nwb"):
            row = {
                "export_id": 1,
                "file_id": 1,
                "dandiset_id": dandiset,
                "filename": place.name,
                "dandi_path": path,
                "dandi_instance": server.api_url,
            }
            with rows((DandiPath, row)):
                (result,) = spyglass.adopt(made.mean)
            told[path] = " ".join(result.notes)
    assert "DANDI has it" in told["sub-1/mean.nwb"]
    assert "is another file (5 bytes)" in told["sub-1/other.nwb"]
    assert "is not there" in told["sub-1/none.nwb"]
    (copy,) = entry_of(made, made.mean)[1].copies
    assert (copy.source, copy.verified_at) == ("dandi", "")
