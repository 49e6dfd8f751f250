"""SIGKILL at every named moment: the path is absent or complete, and the records agree."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from conftest import Lab, sha256
from recallfs.atomic import FAULT_POINTS
from recallfs.catalog import records
from recallfs.values import State

pytestmark = pytest.mark.long

PARTIAL_POINTS = [p for p in FAULT_POINTS if p.startswith("blocks.")]  # see tests/partial
RECALL_POINTS = [p for p in FAULT_POINTS if not p.startswith(("release.", "purge.", "blocks."))]
RELEASE_POINTS = [
    "record.written",
    "record.renamed",
    "catalog.recorded",
    "place.linked",
    "place.unstaged",
    *(p for p in FAULT_POINTS if p.startswith(("release.", "purge."))),
]


def kill(lab: Lab, point: str, *arguments: str) -> None:
    """Run a command that is killed at a fault point, and make sure that it was."""
    done = lab.cli(*arguments, check=False, kill_at=point)
    assert done.returncode == -signal.SIGKILL, f"{point} was not passed: {done}"


def reopen(lab: Lab) -> None:
    """Open the store in a new process, as the next user would."""
    lab.cli("status")


def check_agreement(lab: Lab) -> None:
    """Hold catalog, sidecars and tree against each other."""
    store = lab.store
    sidecars = {path.stem for path in (store.control / "entries").glob("*/*.rsc1")}
    entries = list(store.catalog.entries_below(""))
    assert {entry.id for entry in entries} == sidecars
    assert not list((store.control / "staging").iterdir())
    assert not list((store.control / "aside").iterdir())
    assert not store.catalog.intents()
    trashed = {path.name for path in (store.control / "trash").iterdir()}
    assert trashed == set(store.catalog.trashed())
    for entry in entries:
        record = records.load(store, entry.id)
        assert record.entry.path == entry.path
        assert record.entry.state is entry.state
        place = store.root / entry.path
        if entry.state is State.RESIDENT:
            assert sha256(place) == entry.sha256
            assert record.release is None
            assert place.stat().st_nlink == 1
        else:
            assert entry.state is State.RELEASED
            assert not place.exists()
            assert record.release is not None
            assert (entry.id in trashed) == (record.release.stage == "trashed")


@pytest.mark.parametrize("point", RECALL_POINTS)
def test_killed_recall_leaves_absent_or_complete(lab: Lab, point: str) -> None:
    """A recall killed at any moment leaves no part of a file, and the next one succeeds."""
    before = lab.released()
    kill(lab, point, "get", "recall://lab/derived.h5")
    target = lab.root / "derived.h5"
    assert not target.exists() or sha256(target) == before
    reopen(lab)
    check_agreement(lab)
    assert not target.exists() or sha256(target) == before
    lab.cli("get", "recall://lab/derived.h5")
    assert sha256(target) == before
    check_agreement(lab)


@pytest.mark.parametrize("point", RELEASE_POINTS)
def test_killed_release_loses_nothing(lab: Lab, point: str) -> None:
    """A release killed at any moment leaves the file resident or recallable to the same bytes."""
    before = sha256(lab.derive())
    lab.prove()
    command = ("release", "recall://lab/derived.h5", "--yes", "--hold", "0s", "--max-skeleton", "1")
    kill(lab, point, *command)
    reopen(lab)
    check_agreement(lab)
    lab.cli("get", "recall://lab/derived.h5")
    assert sha256(lab.root / "derived.h5") == before
    check_agreement(lab)
    lab.cli(*command)
    assert not (lab.root / "derived.h5").exists()
    check_agreement(lab)


# "stage.created" is passed by recalls only.
@pytest.mark.parametrize("point", [p for p in RECALL_POINTS if p != "stage.created"])
def test_killed_run_makes_all_or_nothing(lab: Lab, point: str) -> None:
    """A first run killed at any moment can simply be started again."""
    lab.write_raw()
    command = ("run", "double", "-o", "recall://lab/new.h5", "-i", "raw=recall://lab/raw.h5")
    kill(lab, point, *command)
    target = lab.root / "new.h5"
    complete = sha256(target) if target.exists() else None
    reopen(lab)
    check_agreement(lab)
    assert (sha256(target) if target.exists() else None) == complete
    lab.cli(*command)
    assert lab.entry("new.h5").sha256 == sha256(target)
    check_agreement(lab)


@pytest.mark.parametrize("point", ["record.written", "record.renamed", "catalog.recorded"])
def test_killed_add_can_be_repeated(lab: Lab, point: str) -> None:
    """Cataloguing killed at any moment changes no file and can be repeated."""
    (lab.root / "notes.txt").write_text("kept")
    kill(lab, point, "add", str(lab.root / "notes.txt"))
    reopen(lab)
    check_agreement(lab)
    lab.cli("add", str(lab.root / "notes.txt"))
    assert lab.entry("notes.txt").size_bytes == 4
    assert (lab.root / "notes.txt").read_text() == "kept"
    check_agreement(lab)


def test_every_fault_point_is_tried() -> None:
    """No named moment is left out of the matrix, and each one is passed by the code."""
    assert {*RECALL_POINTS, *RELEASE_POINTS, *PARTIAL_POINTS} == set(FAULT_POINTS)
    sources = Path(records.__file__).parents[1].rglob("*.py")
    code = "".join(path.read_text() for path in sources)
    assert all(f'fault_point("{point}")' in code for point in FAULT_POINTS)
