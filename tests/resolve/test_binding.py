"""Files that recallfs did not make, bound to the recipe that made them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import Lab, sha256
from recallfs.catalog import records
from recallfs.catalog.sidecar import Record
from recallfs.errors import ConflictError, InvalidInputError, RecomputeError
from recallfs.resolve.binding import Adopted, adopt
from recallfs.resolve.recall import recall
from recallfs.resolve.wish import Wish
from recallfs.sources.recompute import RecomputeSource


def made_elsewhere(lab: Lab, path: str = "derived.h5") -> Path:
    """Put a file into the store that the recipe made at another place, as if by hand."""
    made = lab.derive("made.h5")
    elsewhere = lab.base / "elsewhere.h5"
    shutil.copyfile(made, elsewhere)
    lab.cli("forget", str(made), "--yes")
    place = lab.root / path
    shutil.move(elsewhere, place)
    return place


def bind(lab: Lab, path: str = "derived.h5", **parameters: object) -> Adopted:
    """Bind a file to the recipe."""
    return adopt(
        lab.stores,
        "double",
        outputs={"": f"recall://lab/{path}"},
        inputs={"raw": "recall://lab/raw.h5"},
        parameters=parameters,
    )


def test_adopted_files_come_back_like_those_that_were_run(lab: Lab) -> None:
    """Adopt, prove, release, recall: the very bytes, though recallfs had not made them."""
    place = made_elsewhere(lab)
    before = sha256(place)
    assert bind(lab).is_new
    assert not records.load(lab.store, lab.entry("derived.h5").id).proofs
    lab.prove()
    lab.release()
    assert recall(lab.stores, lab.store, "derived.h5").source == "recompute"
    assert sha256(place) == before


def test_how_long_it_takes_is_told_once_it_is_known(lab: Lab) -> None:
    """Of an adopted file its proof tells, and before that nobody: it is not said to take 0 s."""
    made_elsewhere(lab)
    bind(lab)
    source = RecomputeSource(lab.stores.config.recipes)

    def record() -> Record:
        return records.load(lab.store, lab.entry("derived.h5").id)

    def expected() -> float | None:
        offer = source.offer(lab.store, record())
        assert offer is not None
        return offer.expected_s

    assert expected() is None
    assert "0.0 s" not in lab.cli("show", "recall://lab/derived.h5").stdout
    lab.prove()
    (proof,) = record().proofs
    assert expected() == proof.seconds > 0
    lab.release()
    said: list[str] = []
    recall(lab.stores, lab.store, "derived.h5", Wish(announce=said.append))
    assert f"(took {proof.seconds:.1f} s last time)" in said[0]


def test_adopting_twice_changes_nothing(lab: Lab) -> None:
    """The same binding is recorded once."""
    made_elsewhere(lab)
    first = bind(lab)
    again = bind(lab)
    assert (first.is_new, again.is_new) == (True, False)
    assert first.key == again.key
    assert len(records.load(lab.store, lab.entry("derived.h5").id).derivations) == 1


def test_a_wrong_binding_is_found_by_the_proof(lab: Lab) -> None:
    """What a file was not made by does not prove, and so is not released."""
    place = made_elsewhere(lab)
    place.write_bytes(b"something else " * 1000)
    bind(lab)
    failed = lab.cli("prove", "recall://lab/derived.h5", check=False)
    assert failed.returncode != 0
    refused = lab.cli("release", "recall://lab/derived.h5", "--yes", check=False)
    assert refused.returncode != 0
    assert place.exists()


def test_bad_input_is_refused_before_anything_is_recorded(lab: Lab) -> None:
    """A file that is not there, an unknown recipe, a cycle, a file that was changed."""
    place = made_elsewhere(lab)
    with pytest.raises(InvalidInputError, match="is not there"):
        bind(lab, "nowhere.h5")
    with pytest.raises(RecomputeError, match="from itself"):
        bind(lab, "raw.h5")
    with pytest.raises(InvalidInputError, match="recipe"):
        adopt(lab.stores, "no-such", outputs={"": str(place)}, inputs={}, parameters={})
    lab.cli("add", str(place))
    place.write_bytes(b"changed")
    with pytest.raises(ConflictError, match="dirty"):
        bind(lab)
    assert not records.load(lab.store, lab.entry("derived.h5").id).derivations


def test_from_the_command_line(lab: Lab) -> None:
    """One command, read back by `show`."""
    made_elsewhere(lab)
    arguments = ("adopt", "recall://lab/derived.h5", "--recipe", "double", "-i")
    done = lab.cli_json(*arguments, "raw=recall://lab/raw.h5")
    assert done["is_new"]
    shown = lab.cli_json("show", "recall://lab/derived.h5")
    assert shown["derivations"][0]["key"] == done["key"]
    again = lab.cli(*arguments, "raw=recall://lab/raw.h5")
    assert "already" in again.stdout
