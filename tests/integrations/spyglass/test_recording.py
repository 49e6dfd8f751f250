"""A recording of Spyglass' own is adopted, proved, released, and read as if nothing had been."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from datetime import timedelta
from typing import Any

import h5py
import numpy as np
import pytest

from conftest import sha256
from recallfs.errors import RecallError
from recallfs.integrations import spyglass

pytestmark = pytest.mark.spyglass


def read(recording: Any) -> dict[str, Any]:
    """Return what a user's cell shows: series, ids, times."""
    (row,) = recording.fetch_nwb()
    series = row["object_id"]
    return {
        "data": series.data[:],
        "timestamps": series.timestamps[:],
        "id": series.object_id,
        "electrodes": row["electrodes_id"],
        "file": series.get_ancestor("NWBFile").object_id,
        "name": row["analysis_file_name"],
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Compare two answers of `read`."""
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def test_get_recording_of_a_released_file(proved: Any) -> None:
    """SpikeInterface gets the recording by path, as Spyglass hands it out."""
    before = proved.recording.get_recording(proved.key).get_traces()
    proved.release(hold=timedelta(days=1))
    assert np.array_equal(proved.recording.get_recording(proved.key).get_traces(), before)


def test_the_same_cell_before_and_after_release(
    proved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user with SELECT rights only, without conda, gets the same data, ids and bytes as before.

    No row is written, and it does not fail for anybody else afterwards.
    """
    before, registered = read(proved.recording), proved.external()
    digest = proved.release()
    with proved.user("reader", monkeypatch):
        folders = [part for part in os.environ["PATH"].split(":") if "programs" not in part]
        monkeypatch.setenv("PATH", ":".join(folders))
        assert shutil.which("conda") is None
        assert same(read(proved.recording), before)
        with pytest.raises(Exception, match=r"(?i)denied"):
            type(proved.recording)().update1({**proved.key, "hash": "0" * 32})
    assert sha256(proved.place()) == digest
    assert proved.external() == registered
    proved.close()
    assert same(read(proved.recording), before)


def _read_in_child(pipeline: Any, answers: Any) -> None:
    import datajoint

    datajoint.conn().connect()  # a connection cannot be shared with the parent
    try:
        found = read(pipeline.recording)
        answers.put((found["id"], float(found["data"].sum())))
    except BaseException as error:
        answers.put(repr(error))
        raise


def assert_two_get(proved: Any, before: dict[str, Any]) -> None:
    """Let two processes read at the same time."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    readers = [context.Process(target=_read_in_child, args=(proved, answers)) for _ in range(2)]
    for reader in readers:
        reader.start()
    found = [answers.get(timeout=200) for _ in readers]
    for reader in readers:
        reader.join(60)
    assert found == [(before["id"], float(before["data"].sum()))] * 2


def test_two_readers_of_one_missing_file(proved: Any) -> None:
    """Two processes that ask at the same time both get it, and one recompute serves both."""
    before = read(proved.recording)
    digest = proved.release()
    assert_two_get(proved, before)
    assert sha256(proved.place()) == digest


def test_a_changed_parameter_is_named(proved: Any) -> None:
    """Another row of parameters: no other data comes back, and the checksum is not rewritten."""
    from spyglass.spikesorting.v1 import SpikeSortingPreprocessingParameters

    table = SpikeSortingPreprocessingParameters()
    before = (table & {"preproc_param_name": "default"}).fetch1()
    registered = proved.external()
    proved.release()
    changed = {**before, "preproc_params": {**before["preproc_params"], "frequency_min": 600}}
    table.update1(changed)
    try:
        with pytest.raises(RecallError, match=r"preproc_params.frequency_min was 300, is 600"):
            read(proved.recording)
    finally:
        table.update1(before)
    assert not proved.place().exists()
    assert proved.external() == registered


def test_another_raw_file_is_a_mismatch(proved: Any) -> None:
    """Raw data that somebody changed behind the database give an error, never other data."""
    registered, raw = proved.external(), proved.base / "raw" / "rat1.nwb"
    kept = raw.read_bytes()
    proved.release()
    with h5py.File(raw, "r+") as file:
        file["acquisition/e-series/data"][1000:1010] += 50
    try:
        with pytest.raises(RecallError) as caught:
            read(proved.recording)
    finally:
        raw.write_bytes(kept)
    assert caught.value.kind == "digest-mismatch"
    assert "ProcessedElectricalSeries/data" in f"{caught.value} {caught.value.details}"
    assert not proved.place().exists()
    assert proved.external() == registered


def test_a_recording_that_is_only_logged_at_creation(made: Any) -> None:
    """A row that Spyglass counts as proved since its creation is not released without a proof."""
    from spyglass.spikesorting.v1 import RecordingRecomputeSelection

    assert list((RecordingRecomputeSelection & made.key).fetch("logged_at_creation")) == [1]
    spyglass.adopt(made.recording)[0].checked()
    made.close()
    (result,) = spyglass.release(made.recording)
    assert result.error is not None
    assert result.error.kind == "unproved"
    assert made.place().exists()
