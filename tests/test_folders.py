"""Folders that recipes write: made, proved, released and recalled like files, by one run each."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Lab, sha256
from processes import run_cli
from recallfs.catalog import records
from recallfs.errors import ConflictError, InvalidInputError, RecallError, RecomputeError
from recallfs.recipes.outputs import in_commit_order, recorded_outputs
from recallfs.resolve.binding import adopt
from recallfs.resolve.derive import Derived, derive
from recallfs.resolve.recall import recall
from recallfs.resolve.tree import forget
from recallfs.values import OutputRef, State

FILES = [
    "binary.json",
    "cached.json",
    "properties/contact_vector.npy",
    "properties/gain_to_uV.npy",
    "times.h5",
    "traces_cached_seg0.raw",
]


def count_file(lab: Lab) -> Path:
    """Where the recipes tell that they ran."""
    return lab.base / "count"


def runs(lab: Lab) -> int:
    """Count the executions since the file was removed."""
    place = count_file(lab)
    return len(place.read_text().splitlines()) if place.exists() else 0


def make(lab: Lab, folder: str = "rec", recipe: str = "foldered", **more: Any) -> Derived:
    """Run a recipe that writes a folder."""
    if lab.store.catalog.entry_at("raw.h5") is None:
        lab.write_raw()
    return derive(
        lab.stores,
        recipe,
        outputs={"": f"recall://lab/{folder}"},
        inputs={"raw": "recall://lab/raw.h5"},
        parameters={"count_file": str(count_file(lab)), **more},
    )


def digests(folder: Path) -> dict[str, str]:
    """Digest every file of a folder."""
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def remove(folder: Path) -> None:
    """Remove the files of a folder behind recallfs' back."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


def test_every_file_of_a_folder_becomes_an_entry(lab: Lab) -> None:
    """The files are entries with the folder's derivation, each named below the declared output."""
    made = make(lab)
    assert made.outputs == {"recording/": "recall://lab/rec"}
    assert sorted(digests(lab.root / "rec")) == FILES
    entries = {entry.path: entry for entry in lab.store.catalog.entries_below("rec")}
    assert sorted(entries) == [f"rec/{name}" for name in FILES]
    assert {entry.state for entry in entries.values()} == {State.RESIDENT}
    found = {path: records.load(lab.store, e.id).derivations for path, e in entries.items()}
    assert len({item.id for each in found.values() for item in each}) == 1
    for path, (derivation,) in found.items():
        named = {item.name: item.entry_id for item in derivation.outputs}
        assert named[f"recording/{path.removeprefix('rec/')}"] == entries[path].id
    key = found["rec/times.h5"][0].key
    assert sorted(lab.store.catalog.outputs_for_key(key)) == [f"recording/{n}" for n in FILES]
    assert not make(lab).executed
    assert make(lab).outputs == made.outputs


def test_what_is_shown_of_a_folder_names_its_files(lab: Lab) -> None:
    """A folder is no entry: told are the recipe that wrote it, and files to look at."""
    make(lab)
    done = lab.cli("show", "recall://lab/rec", check=False)
    assert done.returncode == 18
    assert "6 files on record below it, made by foldered 1: recall://lab/rec/" in done.stderr
    lab.cli("show", "recall://lab/rec/times.h5")
    assert lab.cli("show", "recall://lab/nothing", check=False).returncode == 14


@pytest.mark.namespaces
def test_folder_is_proved_released_and_recalled_by_one_run_each(lab: Lab) -> None:
    """On the command line a folder of six files takes one run to prove and one to come back."""
    make(lab)
    before = digests(lab.root / "rec")
    count_file(lab).unlink()
    proved = lab.cli_json("prove", "recall://lab/rec")
    assert len(proved["proved"]) == 6
    assert {row["url"]: row["method"] for row in proved["proved"]}["recall://lab/rec/times.h5"] == (
        "graft"
    )
    assert runs(lab) == 1
    lab.cli("release", "recall://lab/rec", "--hold", "0s", "--max-skeleton", "1.0", "--yes")
    assert not digests(lab.root / "rec")
    count_file(lab).unlink()
    got = lab.cli_json("get", "recall://lab/rec")
    assert len(got["files"]) == 6
    assert digests(lab.root / "rec") == before
    assert runs(lab) == 1
    history = [lab.store.catalog.entry_at(f"rec/{name}") for name in FILES]
    assert all(entry is not None and entry.state is State.RESIDENT for entry in history)


@pytest.mark.namespaces
def test_reading_one_file_after_the_other_runs_the_recipe_once(lab: Lab) -> None:
    """The first read of a file brings the folder back; the others find theirs."""
    make(lab)
    before = digests(lab.root / "rec")
    lab.cli("prove", "recall://lab/rec")
    remove(lab.root / "rec")
    count_file(lab).unlink()
    said = {name: recall(lab.stores, lab.store, f"rec/{name}").source for name in reversed(FILES)}
    assert digests(lab.root / "rec") == before
    assert runs(lab) == 1
    assert list(said.values()) == ["recompute", *["resident"] * 5]


@pytest.mark.namespaces
def test_processes_that_read_different_files_share_one_run(lab: Lab) -> None:
    """Six processes ask for one file each at once: one of them runs the recipe for all."""
    import subprocess

    make(lab, seconds=1.0)
    before = digests(lab.root / "rec")
    lab.cli("prove", "recall://lab/rec")
    remove(lab.root / "rec")
    count_file(lab).unlink()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "recallfs", "get", f"recall://lab/rec/{name}", "--json"],
            env={**os.environ, **lab.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in FILES
    ]
    ended = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert [code for _, code in ended] == [0] * 6, ended
    assert digests(lab.root / "rec") == before
    assert runs(lab) == 1


@pytest.mark.namespaces
def test_file_that_differs_each_time_keeps_nobody_else_back(lab: Lab) -> None:
    """JSON with a date in it is not proved and not put back; the files beside it are."""
    make(lab, how="noisy")
    before = digests(lab.root / "rec")
    done = lab.cli("prove", "recall://lab/rec", "--json", check=False)
    assert done.returncode == 1
    assert runs(lab) == 3  # once more, to see that it differs each time
    assert "cached.json" in done.stdout
    noisy = lab.root / "rec/cached.json"
    noisy.unlink()
    (lab.root / "rec/binary.json").unlink()
    recall(lab.stores, lab.store, "rec/binary.json")
    assert not noisy.exists()
    with pytest.raises(RecallError, match="recomputed to other bytes"):
        recall(lab.stores, lab.store, "rec/cached.json")
    assert not noisy.exists()
    before.pop("cached.json")
    assert digests(lab.root / "rec") == before


@pytest.mark.namespaces
def test_file_that_is_not_written_again_is_named(lab: Lab) -> None:
    """A run that leaves out a file of the folder fails for that file only, and says so."""
    make(lab, how="fewer")
    (lab.root / "rec/cached.json").unlink()
    (lab.root / "rec/times.h5").unlink()
    with pytest.raises(RecallError, match=r"did not write 'recording/cached\.json' this time"):
        recall(lab.stores, lab.store, "rec/cached.json")
    assert lab.cli_json("prove", "recall://lab/rec/binary.json")["proved"]


def test_occupied_path_beside_is_left_alone(lab: Lab) -> None:
    """What a user put in place of a released file is not touched when a file beside it is read."""
    make(lab)
    (lab.root / "rec/cached.json").unlink()
    (lab.root / "rec/binary.json").write_text("mine")
    recall(lab.stores, lab.store, "rec/cached.json")
    assert (lab.root / "rec/binary.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("link", "is a symbolic link"),
        ("empty", "a folder without files"),
        ("file", "no folder where its output"),
    ],
)
def test_folder_that_cannot_be_kept_is_refused(lab: Lab, how: str, said: str) -> None:
    """Links, no files at all, or a file instead: one sentence, and nothing is left."""
    with pytest.raises(RecomputeError, match=said) as caught:
        make(lab, how=how)
    assert caught.value.kind == "recipe-no-output"
    assert not (lab.root / "rec").exists()
    assert not list(lab.store.catalog.entries_below("rec"))


def test_folder_that_is_taken_is_refused(lab: Lab) -> None:
    """Files or entries that others put in the folder are in the way before anything runs."""
    (lab.root / "rec").mkdir()
    (lab.root / "rec/notes.txt").write_text("mine")
    with pytest.raises(ConflictError, match="has files that this derivation did not make"):
        make(lab)
    (lab.root / "rec/notes.txt").rename(lab.root / "other")
    (lab.root / "rec").rmdir()
    (lab.root / "rec").write_text("a file")
    with pytest.raises(ConflictError, match="is a file already"):
        make(lab)
    assert runs(lab) == 0
    assert (lab.root / "rec").read_text() == "a file"


def test_inputs_inside_the_output_folder_are_a_cycle(lab: Lab) -> None:
    """A folder cannot be made from a file in it, nor lie inside another output."""
    make(lab)
    with pytest.raises(RecomputeError, match="from itself"):
        derive(
            lab.stores,
            "foldered",
            outputs={"": "recall://lab/rec"},
            inputs={"raw": "recall://lab/rec/times.h5"},
            parameters={"count_file": str(count_file(lab))},
        )
    with pytest.raises(InvalidInputError, match="a path of its own"):
        derive(
            lab.stores,
            "zarred",
            outputs={"recording.zarr/": "recall://lab/z", "log": "recall://lab/z/log"},
            inputs={"raw": "recall://lab/raw.h5"},
            parameters={"count_file": str(count_file(lab))},
        )


@pytest.mark.parametrize("point", ["place.linked", "catalog.recorded"])
def test_killed_commit_of_a_folder_is_made_good_by_the_next_run(lab: Lab, point: str) -> None:
    """A process that dies with some files in place is seen to have; the next run starts over."""
    lab.write_raw()
    arguments = [
        "run", "foldered", "-o", "recording=recall://lab/rec", "-i", "raw=recall://lab/raw.h5",
        "-p", f"count_file={count_file(lab)}",
    ]  # fmt: skip
    killed = run_cli(arguments, {**os.environ, **lab.environment}, kill_at=f"{point}:3")
    if killed.returncode != -9:
        killed = run_cli(arguments, {**os.environ, **lab.environment}, kill_at=point)
    assert killed.returncode == -9, killed
    lab.cli(*arguments)
    assert sorted(digests(lab.root / "rec")) == FILES
    assert not make(lab).executed


@pytest.mark.namespaces
def test_folder_that_was_made_elsewhere_is_adopted(lab: Lab) -> None:
    """A folder that stands already is bound to the recipe, proved and brought back by one run."""
    make(lab, "made")
    for entry in list(lab.store.catalog.entries_below("made")):
        place = lab.root / "rec" / entry.path.removeprefix("made/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((lab.root / entry.path).read_bytes())
        forget(lab.store, entry.path)
    adopted = adopt(
        lab.stores,
        "foldered",
        outputs={"": "recall://lab/rec"},
        inputs={"raw": "recall://lab/raw.h5"},
        parameters={"count_file": str(count_file(lab)), "rows": 2000},
    )
    assert adopted.is_new
    assert adopted.outputs == {"recording/": "recall://lab/rec"}
    before = digests(lab.root / "rec")
    count_file(lab).unlink()
    lab.cli("prove", "recall://lab/rec")
    remove(lab.root / "rec")
    lab.cli("get", "recall://lab/rec")
    assert digests(lab.root / "rec") == before
    assert runs(lab) == 2


@pytest.mark.namespaces
@pytest.mark.skipif(sys.version_info < (3, 11), reason="zarr 3 is not made for Python 3.10")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_store_comes_back_exactly(lab: Lab, zarr_format: int) -> None:
    """A zarr store of either format, dot files included, and a file beside it: one run."""
    import zarr

    lab.write_raw()
    derive(
        lab.stores,
        "zarred",
        outputs={"recording.zarr/": "recall://lab/z.zarr", "log": "recall://lab/z.log"},
        inputs={"raw": "recall://lab/raw.h5"},
        parameters={"count_file": str(count_file(lab)), "zarr_format": zarr_format},
    )
    assert (lab.root / "z.log").read_text() == "recording.zarr"
    before = digests(lab.root / "z.zarr")
    assert (".zgroup" if zarr_format == 2 else "zarr.json") in before
    values = zarr.open_group(str(lab.root / "z.zarr"), mode="r")["traces"][:]
    count_file(lab).unlink()
    lab.cli("prove", "recall://lab/z.zarr", "recall://lab/z.log")
    lab.cli(
        "release", "recall://lab/z.zarr", "recall://lab/z.log", "--hold", "0s", "--yes",
    )  # fmt: skip
    assert not digests(lab.root / "z.zarr")
    lab.cli("get", "recall://lab/z.log")
    assert digests(lab.root / "z.zarr") == before
    again = zarr.open_group(str(lab.root / "z.zarr"), mode="r")["traces"][:]
    assert np.array_equal(values, again)
    assert runs(lab) == 2


def test_records_stay_small_however_many_files_a_folder_has() -> None:
    """A record names its own file, the folders' first and single files; these are made last."""
    given = [OutputRef(f"big/{n:04}", f"{n:032}") for n in range(1000)]
    given += [OutputRef("log", "l" * 32), OutputRef("other/x", "x" * 32)]
    kept = recorded_outputs(given, "big/0500")
    assert [item.name for item in kept] == ["big/0000", "big/0500", "log", "other/x"]
    order = in_commit_order(item.name for item in given)
    assert set(order[-3:]) == {"big/0000", "log", "other/x"}
