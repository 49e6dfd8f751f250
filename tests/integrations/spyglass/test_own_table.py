"""A lab's own table gets recall by a recipe of three lines; what goes wrong harms nothing."""

from __future__ import annotations

import multiprocessing
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import sha256
from recallfs.catalog import records
from recallfs.errors import RecallError
from recallfs.integrations import spyglass
from recallfs.integrations.spyglass.database import file_rows
from recallfs.release.proof import Proved
from recallfs.resolve.stores import stores_in_reach

pytestmark = pytest.mark.spyglass


@pytest.fixture
def pipeline(made: Any) -> Any:
    """Give the store, with Spyglass asking recallfs."""
    spyglass.install()
    yield made
    spyglass.uninstall()


def proved_of(row: Any) -> Proved:
    """Prove a row's file."""
    proved = spyglass.prove(row)[0].checked().proved
    assert proved is not None
    return proved


def test_any_table(proved: Any) -> None:
    """`fetch_nwb` on a table of which Spyglass knows nothing gives the same data and ids."""
    before = proved.mean.fetch_nwb()[0]["mean"]
    data, identifier = before.data[:], before.object_id
    digest, registered = proved.release(proved.mean), proved.external()
    after = proved.mean.fetch_nwb()[0]["mean"]
    assert np.array_equal(after.data[:], data)
    assert after.object_id == identifier
    assert sha256(proved.place(proved.mean)) == digest
    assert proved.external() == registered


def test_files_upstream_are_inputs(proved: Any) -> None:
    """What another analysis file is made from is an input: in sight at a proof, relied on after."""
    from spyglass_tables import Trend

    spyglass.adopt(Trend)[0].checked()
    made = proved_of(Trend)
    assert made.proof.level.value == "exact"
    store = stores_in_reach().by_name("analysis")
    (derivation,) = records.load(store, made.proof.entry_id).derivations
    assert [item.name for item in derivation.inputs] == [proved.place(proved.mean).name]
    proved.release(Trend(), hold=timedelta(days=1))
    (refused,) = spyglass.release(proved.mean)
    assert refused.error is not None
    assert refused.error.kind == "relied-on"


def test_other_extensions_are_loaded(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A recompute that caches other specifications still gives the original, exactly."""
    told = tmp_path / "told"
    monkeypatch.setenv("MEAN_TROUBLE", "extended")
    monkeypatch.setenv("MEAN_TOLD", str(told))
    spyglass.adopt(pipeline.mean, "mean-troubled")[0].checked()
    proved = proved_of(pipeline.mean)
    assert proved.proof.level.value == "exact"
    assert "ndx-test" in told.read_text().split(), (
        "the recompute must differ, or this shows nothing"
    )


def test_values_that_differ_prove_nothing(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all but a value of a dataset is equal, the proof fails and says where."""
    monkeypatch.setenv("MEAN_TROUBLE", "other values")
    spyglass.adopt(pipeline.mean, "mean-troubled")[0].checked()
    (result,) = spyglass.prove(pipeline.mean, max_residual=0)
    assert result.error is not None
    assert "acquisition/means/data" in f"{result.error} {result.error.details}"
    pipeline.close()
    (released,) = spyglass.release(pipeline.mean)
    assert released.error is not None
    assert released.error.kind == "unproved"


def _read(row: Any) -> None:
    import datajoint

    datajoint.conn().connect()  # a connection cannot be shared with the parent
    os.environ.update(MEAN_TROUBLE="kills its reader", MEAN_READER=str(os.getpid()))
    row.fetch_nwb()


def test_trouble_leaves_no_file(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that raises or dies, a reader that is killed: nothing is there, and it heals."""
    spyglass.adopt(pipeline.mean, "mean-troubled")[0].checked()
    spyglass.prove(pipeline.mean)[0].checked()
    digest = pipeline.release(pipeline.mean)
    place, registered = pipeline.place(pipeline.mean), pipeline.external()
    for how, sentence in (("raises", "the filter has no coefficients"), ("dies", "SIGKILL")):
        monkeypatch.setenv("MEAN_TROUBLE", how)
        with pytest.raises(RecallError, match=sentence):
            pipeline.mean.fetch_nwb()
        assert not place.exists()
    monkeypatch.delenv("MEAN_TROUBLE")
    reader = multiprocessing.get_context("fork").Process(target=_read, args=(pipeline.mean,))
    reader.start()
    reader.join(120)
    assert reader.exitcode == -9
    assert not place.exists()
    pipeline.mean.fetch_nwb()
    assert sha256(place) == digest
    assert pipeline.external() == registered


def test_the_database_is_down(pipeline: Any) -> None:
    """One sentence says that the database does not answer, and where it was looked for."""
    import datajoint

    row = pipeline.mean
    connection = datajoint.conn()
    before = dict(connection.conn_info)
    connection.conn_info.update(port=1)
    connection.close()
    try:
        with pytest.raises(RecallError) as caught:
            file_rows(row)
    finally:
        connection.conn_info.update(before)
        connection.connect()
    assert caught.value.kind == "source-unavailable"
    assert "does not answer" in str(caught.value)


def test_a_row_without_a_file(pipeline: Any) -> None:
    """A row whose file is gone, or is another one, is not adopted; the others are."""
    from spyglass_tables import Mean

    place = pipeline.place(pipeline.mean)
    place.unlink()
    results = spyglass.adopt(Mean())
    errors = [result.error for result in results if result.error]
    assert len(results) == 2
    assert [error.kind for error in errors] == ["unknown-entry"]
    assert f"{place} is not there" in str(errors[0])
    place.write_bytes(b"another file")
    (result,) = spyglass.adopt(pipeline.mean)
    assert result.error is not None
    assert "12 bytes instead of" in str(result.error)


def test_a_table_without_a_recipe(pipeline: Any) -> None:
    """What has no recipe is named, with what to do."""
    from spyglass.common import LFP, Nwbfile

    with pytest.raises(RecallError, match=r"declared for `common_ephys`\.`_l_f_p`, and none is"):
        spyglass.adopt(LFP)
    with pytest.raises(RecallError, match="has no analysis_file_name"):
        spyglass.survey(Nwbfile)


def test_a_file_that_no_store_knows(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What recallfs does not know of is left to the table's own code, and to Spyglass' words."""
    from spyglass_tables import Trend

    monkeypatch.setattr(Trend, "asked_for", [])
    for row in (pipeline.mean, Trend()):
        place = pipeline.place(row)
        place.unlink()
        with pytest.raises(FileNotFoundError, match="not found in kachery or Dandi"):
            row.fetch_nwb()
    assert Trend.asked_for == [place.name]


def test_make_file_that_raises(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a table's own code raises comes through as it is, and leaves no file."""
    from spyglass_tables import Trend

    monkeypatch.setattr(Trend, "trouble", "no such filter")
    place = pipeline.place(Trend())
    place.unlink()
    with pytest.raises(ArithmeticError, match="no such filter"):
        Trend().fetch_nwb()
    assert not place.exists()


def test_pynapple(proved: Any) -> None:
    """`fetch_pynapple`, which itself looks for no file, gets a released one."""
    digest = proved.release(proved.mean, hold=timedelta(days=1))
    (file,) = proved.mean.fetch_pynapple()
    assert "means" in file.keys()  # noqa: SIM118 - it is no mapping
    file.close()
    assert sha256(proved.place(proved.mean)) == digest


def test_merge_tables(proved: Any) -> None:
    """A released file is read through a Merge table, too."""
    from spyglass_tables import MeanOutput

    if len(MeanOutput()) == 0:
        MeanOutput.insert([proved.mean.fetch1("KEY")], part_name="Mean")
    proved.release(proved.mean, hold=timedelta(days=1))
    (row,) = MeanOutput().fetch_nwb()
    assert row["mean"].name == "means"
    assert proved.place(proved.mean).exists()


def test_uninstall_leaves_nothing(pipeline: Any) -> None:
    """After `uninstall` Spyglass is as it was."""
    from spyglass.spikesorting.v1 import SpikeSortingRecording
    from spyglass.utils import SpyglassMixin

    wrapped = SpikeSortingRecording.__dict__["_make_file"]
    spyglass.install()
    assert SpikeSortingRecording.__dict__["_make_file"] is wrapped, "twice is once"
    spyglass.uninstall()
    assert not hasattr(SpyglassMixin, "_make_file")
    assert SpikeSortingRecording.__dict__["_make_file"].__func__.__module__.startswith("spyglass")
    assert "__init_subclass__" not in vars(SpyglassMixin)


def test_cleanup_harms_nothing(proved: Any) -> None:
    """Spyglass' own cleanup removes nothing of trash, staging, rejects and released files."""
    from spyglass.common import AnalysisNwbfile

    digest = proved.release(proved.mean, hold=timedelta(days=1))
    proved.release(hold=timedelta(0))
    purged = proved.place()
    control = proved.root / ".recall"
    store = stores_in_reach().by_name("analysis")
    entry = records.known_entry(store, purged.relative_to(proved.root).as_posix())
    rejected = store.rejected_path(entry.id)
    rejected.parent.mkdir(exist_ok=True)
    rejected.write_bytes(b"another result")
    run = control / "staging" / "run" / "output-0"
    run.parent.mkdir()
    run.write_bytes(b"half a file")
    before = _listing(control)
    assert any("trash" in name for name in before)
    stray = purged.with_name("stray.nwb")
    stray.write_bytes(b"of nobody")
    AnalysisNwbfile().cleanup(min_file_age_hours=0, max_delete_fraction=1.0)
    assert not stray.exists(), "it did clean up"
    assert _listing(control) == before
    assert not any(name.endswith(".nwb") for name in before)
    assert not purged.exists(), "what was purged stays away"
    for row in (proved.mean, proved.recording):
        assert len(row) == 1, "its row stays"
    assert len(proved.mean.fetch_nwb()) == 1
    assert sha256(proved.place(proved.mean)) == digest


def _listing(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in files
        if not path.name.startswith("catalog.sqlite")
    }
