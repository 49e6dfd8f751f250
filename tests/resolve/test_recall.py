"""Recall: which source, what is refused, what every source said."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import h5py
import pytest

from conftest import Lab, sha256
from recallfs.catalog import records
from recallfs.errors import (
    ConflictError,
    IntegrityError,
    IntegrityWarning,
    NotRecallableError,
    RecomputeError,
    SourceError,
)
from recallfs.resolve.chain import Limits, plan_for
from recallfs.resolve.recall import recall
from recallfs.resolve.wish import Wish


def bring_back(lab: Lab, path: str = "derived.h5", wish: Wish | None = None) -> str:
    """Recall a file and return where it came from."""
    return recall(lab.stores, lab.store, path, wish).source


def mirror(lab: Lab, name: str = "m") -> Path:
    """Configure a mirror folder beside the store."""
    folder = lab.base / name
    folder.mkdir()
    lab.write_config(f'[[sources.mirror]]\nname = "{name}"\nurl = "file://{folder}"\n')
    return folder


def test_resident_file_is_not_touched(lab: Lab) -> None:
    """A file that is here costs nothing and is reported as resident."""
    lab.derive()
    assert bring_back(lab) == "resident"


def test_missing_file_is_recalled_too(lab: Lab) -> None:
    """A file that somebody removed by hand comes back, unless the store says otherwise."""
    before = sha256(lab.derive())
    lab.prove()
    (lab.root / "derived.h5").unlink()
    plan = plan_for(lab.stores, lab.store, lab.entry("derived.h5"))
    assert (plan.action, plan.state.value) == ("recall", "missing")
    assert bring_back(lab) == "recompute"
    assert sha256(lab.root / "derived.h5") == before
    (lab.root / "derived.h5").unlink()
    text = lab.config.read_text().replace("[recipes]", "recall_missing = false\n\n[recipes]")
    lab.config.write_text(text)
    with pytest.raises(NotRecallableError, match="recall_missing"):
        bring_back(lab)


def test_mirror_is_asked_before_recompute(lab: Lab) -> None:
    """A mirror's copy is taken, and the recipe does not run."""
    folder = mirror(lab)
    count = lab.base / "count"
    place = lab.derive(recipe="counted", count_file=str(count), seconds=0.0)
    before = sha256(place)
    lab.prove()
    shutil.copyfile(place, folder / "derived.h5")
    lab.release()
    count.write_text("")
    assert bring_back(lab) == "mirror:m"
    assert sha256(place) == before
    assert count.read_text() == ""


def test_corrupt_mirror_falls_through_and_is_named(lab: Lab) -> None:
    """Wrong bytes of a mirror are not taken; alone, they are an integrity error naming it."""
    folder = mirror(lab)
    place = lab.derive()
    before = sha256(place)
    content = bytearray(place.read_bytes())
    content[5000] ^= 1
    (folder / "derived.h5").write_bytes(content)
    lab.prove()
    lab.release()
    with pytest.raises(IntegrityError, match="mirror:m holds other bytes"):
        bring_back(lab, wish=Wish(limits=Limits(only="mirror")))
    assert not place.exists()
    with pytest.warns(IntegrityWarning, match="mirror:m holds other bytes"):
        assert bring_back(lab) == "recompute"
    assert sha256(place) == before


def test_every_answer_is_listed_when_all_fail(lab: Lab) -> None:
    """When nothing helps, the error says what each source answered."""
    mirror(lab)
    lab.released()
    (lab.root / "raw.h5").unlink()
    with pytest.raises(NotRecallableError) as caught:
        bring_back(lab)
    assert set(caught.value.details["answers"]) == {"mirror:m", "recompute"}
    assert "mirror:m has no copy" in str(caught.value)


def test_outage_is_never_file_not_found(lab: Lab) -> None:
    """A mirror that cannot be asked makes a source error, not 'absent'."""
    lab.write_config('[[sources.mirror]]\nname = "m"\nurl = "http://127.0.0.1:9/x"\n')
    lab.released()
    (lab.root / "raw.h5").unlink()
    with pytest.raises(SourceError) as caught:
        bring_back(lab)
    assert not isinstance(caught.value, FileNotFoundError)
    assert "mirror:m cannot be reached" in str(caught.value)


def test_drifted_result_is_kept_aside_and_not_served(lab: Lab) -> None:
    """A recompute that differs by one ulp is refused, named and kept for a comparison."""
    drift = lab.base / "drift"
    place = lab.derive("drift.h5", recipe="drifting", drift_file=str(drift))
    before = sha256(place)
    drift.unlink()
    lab.prove("drift.h5")
    lab.release("drift.h5")
    with pytest.raises(IntegrityError, match="/deep/data") as caught:
        bring_back(lab, "drift.h5")
    assert not place.exists()
    kept = Path(caught.value.details["answers"]["recompute"]["details"]["kept"])
    with h5py.File(kept) as file:
        assert "deep/data" in file
    drift.unlink()
    assert bring_back(lab, "drift.h5") == "recompute"
    assert sha256(place) == before


def test_missing_input_is_recalled_first(lab: Lab) -> None:
    """A chain of released files comes back from the bottom up."""
    first = sha256(lab.derive("first.h5"))
    second = sha256(lab.derive("second.h5", raw="first.h5"))
    lab.prove("first.h5")
    lab.prove("second.h5")
    (lab.root / "first.h5").unlink()
    (lab.root / "second.h5").unlink()
    assert bring_back(lab, "second.h5") == "recompute"
    assert sha256(lab.root / "second.h5") == second
    assert sha256(lab.root / "first.h5") == first


def test_changed_input_is_named_at_recall(lab: Lab) -> None:
    """An input that somebody edited is named, and nothing is made from it."""
    lab.released()
    with h5py.File(lab.root / "raw.h5", "r+") as file:
        file["data"][0, 0] = 1e9
    with pytest.raises(IntegrityError, match="input raw=") as caught:
        bring_back(lab)
    assert caught.value.kind == "input-changed"
    assert not (lab.root / "derived.h5").exists()


def test_moved_input_is_found(lab: Lab) -> None:
    """An input that was renamed, or whose bytes another entry has, is found all the same."""
    before = lab.released()
    from recallfs.resolve.tree import move

    move(lab.store, "raw.h5", "raw files/moved.h5")
    assert bring_back(lab) == "recompute"
    assert sha256(lab.root / "derived.h5") == before


def test_vanished_recipe_is_said(lab: Lab) -> None:
    """A recipe that is no longer registered is named in the error."""
    lab.released()
    lab.config.write_text(lab.config.read_text().replace('modules = ["lab_recipes"]', ""))
    with pytest.raises((RecomputeError, ValueError, SourceError), match="double"):
        bring_back(lab)


def test_dirty_file_is_not_served(lab: Lab) -> None:
    """A file that was changed since it was recorded is refused until it is accepted."""
    place = lab.derive()
    with h5py.File(place, "r+") as file:
        file["data"][0, 0] = 1e9
    with pytest.raises(ConflictError) as caught:
        bring_back(lab)
    assert caught.value.kind == "dirty"
    lab.cli("add", str(place))
    assert bring_back(lab) == "resident"


def test_mode_owner_and_time_are_restored(lab: Lab) -> None:
    """A recalled file has the permission bits and the time that were recorded."""
    place = lab.derive()
    before = place.stat()
    lab.prove()
    lab.release()
    bring_back(lab)
    after = place.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_mtime_ns,
        before.st_uid,
        before.st_gid,
    )


@pytest.mark.parametrize("loss", ["deleted", "garbage", "deleted, not rebuilt by hand"])
def test_catalog_is_made_again_from_sidecars_and_recalls(lab: Lab, loss: str) -> None:
    """With the catalog lost, a released file comes back as if nothing was: sidecars tell all."""
    before = lab.released()
    lab.store.catalog.close()
    for path in lab.store.control.glob("catalog.sqlite*"):
        path.unlink()
    if loss == "garbage":
        (lab.store.control / "catalog.sqlite").write_bytes(b"no database" * 1000)
        assert lab.cli("get", "recall://lab/derived.h5", check=False).returncode == 80
    if loss != "deleted, not rebuilt by hand":
        lab.cli("catalog", "rebuild", "lab")
    shown = lab.cli_json("show", "recall://lab/derived.h5")
    assert shown["state"] == "released"
    assert len(shown["proofs"]) == 1
    lab.cli("get", "recall://lab/derived.h5")
    assert sha256(lab.root / "derived.h5") == before


def test_log_of_the_last_run_is_kept(lab: Lab) -> None:
    """What a recipe printed can be read after its scratch folder is gone, also when it failed."""
    lab.derive(recipe="counted", count_file=str(lab.base / "count"), seconds=0.0)
    record = records.load(lab.store, lab.entry("derived.h5").id)
    log = lab.store.log_path(record.derivations[0].id)
    assert log.exists()
    lab.prove()
    lab.release()
    (lab.base / "count").unlink()
    (lab.base / "count").mkdir()
    with pytest.raises(RecomputeError) as caught:
        bring_back(lab)
    assert "IsADirectoryError" in log.read_text()
    assert caught.value.details["log_path"] == str(log)
    assert "IsADirectoryError" in caught.value.details["log"]


def test_callback_sees_the_bytes_of_a_recall(lab: Lab) -> None:
    """An fsspec callback is told the size and, byte for byte, how far a recall is."""
    import fsspec

    before = lab.released()
    callback = fsspec.Callback()
    fs = fsspec.filesystem("recall")
    with fs.open("recall://lab/derived.h5", callback=callback) as file:
        assert hashlib.sha256(file.read()).hexdigest() == before
    assert callback.size == lab.entry("derived.h5").size_bytes
    assert callback.value == callback.size


def test_input_renamed_behind_our_back_is_found_by_its_bytes(lab: Lab) -> None:
    """An input that was moved by hand and added again serves, though its first entry is gone."""
    before = lab.released()
    (lab.root / "raw.h5").rename(lab.root / "other name.h5")
    with pytest.raises(NotRecallableError, match=r"raw\.h5"):
        bring_back(lab)
    assert lab.entry("raw.h5").state.value == "missing"
    lab.cli("add", str(lab.root / "other name.h5"))
    assert bring_back(lab) == "recompute"
    assert sha256(lab.root / "derived.h5") == before


def test_missing_file_that_returns_is_resident_again(lab: Lab) -> None:
    """A file that was away for a while is recognised by its bytes."""
    place = lab.write_raw()
    place.rename(lab.base / "away.h5")
    with pytest.raises(NotRecallableError):
        bring_back(lab, "raw.h5")
    (lab.base / "away.h5").rename(place)
    assert bring_back(lab, "raw.h5") == "resident"
    assert lab.entry("raw.h5").state.value == "resident"


@pytest.mark.parametrize("how", ["write", "remove"])
def test_recipe_that_harms_its_input_gives_nothing(lab: Lab, how: str) -> None:
    """What a recipe made that wrote to its input is thrown away, and the input is named."""
    from recallfs.resolve.derive import derive

    lab.write_raw()
    with pytest.raises(IntegrityError, match="changed or vanished") as caught:
        derive(
            lab.stores,
            "harmful",
            outputs={"": "recall://lab/out.txt"},
            inputs={"raw": "recall://lab/raw.h5"},
            parameters={"how": how},
        )
    assert caught.value.kind == "input-changed"
    assert not (lab.root / "out.txt").exists()
    assert lab.store.catalog.entry_at("out.txt") is None
