"""Running recipes: inputs recalled, outputs committed whole or not at all, nothing run twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import TESTS, Lab, sha256
from recallfs.catalog import records
from recallfs.catalog.store import create_store
from recallfs.errors import (
    ConflictError,
    IntegrityError,
    InvalidInputError,
    RecallError,
    RecipeFailedError,
    RecomputeError,
)
from recallfs.resolve.derive import Derived, derive
from recallfs.resolve.recall import recall
from recallfs.resolve.tree import forget


def run(
    lab: Lab,
    recipe: str,
    output: str | dict[str, str] = "out",
    raw: str | None = None,
    **parameters: Any,
) -> Derived:
    """Run a recipe of the lab; paths are those of its store."""
    outputs = output if isinstance(output, dict) else {"": output}
    return derive(
        lab.stores,
        recipe,
        outputs={name: f"recall://lab/{path}" for name, path in outputs.items()},
        inputs={} if raw is None else {"raw": f"recall://lab/{raw}"},
        parameters=parameters,
    )


def set_limits(lab: Lab, limits: str) -> None:
    """Write a configuration with limits of recipes."""
    lab.config.write_text(
        f'[stores.lab]\nroot = "{lab.root}"\n[recipes]\nmodules = ["lab_recipes"]\n'
        f'paths = ["{TESTS}"]\n{limits}\n'
    )


def assert_nothing_left(lab: Lab, *paths: str) -> None:
    """Hold that a run that failed left neither files nor records nor staging."""
    assert not [path for path in paths if (lab.root / path).exists()]
    assert not [path for path in paths if lab.store.catalog.entry_at(path)]
    assert not lab.staged
    assert not lab.store.catalog.intents()


def test_same_derivation_is_not_run_again(lab: Lab) -> None:
    """The same recipe, inputs and parameters give the existing result; others are run."""
    lab.write_raw()
    count = lab.base / "count"
    wanted = {"count_file": str(count), "seconds": 0}
    first = run(lab, "counted", "a.h5", "raw.h5", **wanted)
    again = run(lab, "counted", "b.h5", "raw.h5", **wanted)
    assert (first.executed, again.executed) == (True, False)
    assert again.outputs == first.outputs == {"output": "recall://lab/a.h5"}
    assert again.key == first.key
    assert not (lab.root / "b.h5").exists()
    assert len(count.read_text().splitlines()) == 1
    other = run(lab, "counted", "b.h5", "raw.h5", **{**wanted, "seconds": 0.01})
    assert other.executed
    assert other.key != first.key
    assert len(count.read_text().splitlines()) == 2


def test_forgotten_result_is_made_again(lab: Lab) -> None:
    """A result that was forgotten does not stand in for a new one."""
    assert run(lab, "text", "a").executed
    forget(lab.store, "a")
    assert run(lab, "text", "a").executed


def test_missing_input_is_recalled_first(lab: Lab) -> None:
    """An input that is not here is brought back by its own recipe, and recorded by its digest."""
    digest = sha256(lab.derive("middle.h5"))
    lab.prove("middle.h5")
    (lab.root / "middle.h5").unlink()
    run(lab, "double", "end.h5", "middle.h5")
    assert sha256(lab.root / "middle.h5") == digest
    (derivation,) = records.load(lab.store, lab.entry("end.h5").id).derivations
    assert [(item.name, item.sha256) for item in derivation.inputs] == [("raw", digest)]


def test_input_that_cannot_come_back_is_named(lab: Lab) -> None:
    """Without its input a recipe is not started."""
    lab.write_raw().unlink()
    with pytest.raises(RecallError, match=r"recall://lab/raw\.h5"):
        run(lab, "double", "end.h5", "raw.h5")
    with pytest.raises(InvalidInputError) as caught:
        run(lab, "double", "end.h5", "nothing.h5")
    assert caught.value.kind == "unknown-entry"
    assert_nothing_left(lab, "end.h5")


def test_changed_input_is_refused(lab: Lab) -> None:
    """An input that was changed since it was recorded is not used silently."""
    lab.write_raw().write_bytes(b"something else")
    with pytest.raises(ConflictError) as caught:
        run(lab, "double", "end.h5", "raw.h5")
    assert caught.value.kind == "dirty"
    assert_nothing_left(lab, "end.h5")


def test_several_outputs_are_committed_together(lab: Lab) -> None:
    """All outputs of a recipe appear, each with the one derivation."""
    made = run(lab, "pair", {"left": "l.txt", "right": "sub/r.txt"})
    assert made.outputs == {"left": "recall://lab/l.txt", "right": "recall://lab/sub/r.txt"}
    assert (lab.root / "l.txt").read_text() == "left" * 5000
    assert (lab.root / "sub/r.txt").read_text() == "right" * 5000
    left, right = (
        records.load(lab.store, lab.entry(path).id).derivations[0].id
        for path in ("l.txt", "sub/r.txt")
    )
    assert left == right
    assert not run(lab, "pair", {"left": "x", "right": "y"}).executed


def test_half_of_a_pair_is_completed(lab: Lab) -> None:
    """Where one of two outputs is gone for good, running again makes both, as they were."""
    run(lab, "pair", {"left": "l", "right": "r"})
    forget(lab.store, "l")
    assert run(lab, "pair", {"left": "l", "right": "r"}).executed
    assert (lab.root / "l").read_text() == "left" * 5000


@pytest.mark.parametrize("change", ["dirty", "released"])
def test_half_of_a_pair_that_became_somebodys_is_kept(lab: Lab, change: str) -> None:
    """What was changed or released since is not thrown away to complete a pair."""
    run(lab, "pair", {"left": "l", "right": "r"})
    forget(lab.store, "l")
    if change == "dirty":
        (lab.root / "r").write_text("edited by hand")
    else:
        lab.prove("r")
        lab.release("r")
    identifier = lab.entry("r").id
    with pytest.raises(ConflictError):
        run(lab, "pair", {"left": "l", "right": "r"})
    assert lab.entry("r").id == identifier
    assert change == "released" or (lab.root / "r").read_text() == "edited by hand"
    assert not (lab.root / "l").exists()


@pytest.mark.parametrize("occupant", ["file", "entry", "folder"])
def test_occupied_output_is_refused_before_running(lab: Lab, occupant: str) -> None:
    """A path that is taken is refused, and what is there stays."""
    place = lab.root / "out"
    if occupant == "folder":
        place.mkdir()
    else:
        place.write_text("mine")
    if occupant == "entry":
        from recallfs.resolve.commit import add_existing

        add_existing(lab.store, ["out"])
    count = lab.base / "count"
    lab.write_raw()
    with pytest.raises(ConflictError):
        run(lab, "counted", "out", "raw.h5", count_file=str(count))
    assert not count.exists()
    assert place.is_dir() if occupant == "folder" else place.read_text() == "mine"


def test_file_from_itself_is_refused(lab: Lab) -> None:
    """An output that an input is made from is refused, with the circle spelled out."""
    lab.derive("middle.h5")
    with pytest.raises(RecomputeError, match=r"middle\.h5 ← recall://lab/raw\.h5") as caught:
        run(lab, "double", "raw.h5", "middle.h5")
    assert caught.value.kind == "cycle"
    with pytest.raises(RecomputeError) as caught:
        run(lab, "double", "raw.h5", "raw.h5")
    assert caught.value.kind == "cycle"


def test_input_of_another_store_is_refused(lab: Lab, tmp_path: Path) -> None:
    """A derivation stays within one store."""
    create_store(tmp_path / "other", "other", vault=tmp_path / "vault2")
    lab.config.write_text(lab.config.read_text() + f'[stores.other]\nroot = "{tmp_path}/other"\n')
    lab.write_raw()
    with pytest.raises(InvalidInputError, match="within one store"):
        derive(
            lab.stores,
            "double",
            outputs={"": "recall://other/out.h5"},
            inputs={"raw": "recall://lab/raw.h5"},
            parameters={},
        )
    with pytest.raises(InvalidInputError, match="one store"):
        derive(
            lab.stores,
            "pair",
            outputs={"left": "recall://other/l", "right": "recall://lab/r"},
            inputs={},
            parameters={},
        )


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ({"left": "l"}, "given were left"),
        ({"": "l"}, "given were"),
        ({"left": "x", "right": "x"}, "a path of its own"),
        ({"left": "", "right": "x"}, "a path of its own"),
        ({"left": "../x", "right": "x"}, r"climbs out"),
    ],
    ids=str,
)
def test_unfit_outputs_are_refused(lab: Lab, output: dict[str, str], problem: str) -> None:
    """Outputs must be all that the recipe writes, each at a path of its own."""
    with pytest.raises(InvalidInputError, match=problem):
        run(lab, "pair", output)


def test_unknown_recipe_and_parameter_are_refused(lab: Lab) -> None:
    """What the recipe does not know is refused before anything is run."""
    for recipe, parameters, kind in (
        ("txt", {}, "unknown-recipe"),
        ("text", {"wrods": "x"}, "invalid-parameters"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            run(lab, recipe, **parameters)
        assert caught.value.kind == kind
    assert_nothing_left(lab, "out")


@pytest.mark.parametrize(
    ("how", "kind", "limits"),
    [
        ("raise", "recipe-failed", ""),
        ("nothing", "recipe-no-output", ""),
        ("sleep", "recipe-timeout", "timeout_s = 1.5"),
        ("memory", "recipe-memory", 'memory_bytes = "1GB"'),
        ("kill", "recipe-killed", ""),
    ],
)
def test_failing_recipe_leaves_nothing(lab: Lab, how: str, kind: str, limits: str) -> None:
    """However a recipe fails, the error says how, and neither file nor record nor staging stays."""
    set_limits(lab, limits)
    with pytest.raises(RecomputeError) as caught:
        run(lab, "failing", how=how)
    assert caught.value.kind == kind
    if how == "raise":
        assert isinstance(caught.value, RecipeFailedError)
        assert "about to fail" in caught.value.details["log"]
        assert "the probe was unplugged" in str(caught.value)
    assert_nothing_left(lab, "out")


def test_truncated_recompute_is_a_mismatch(lab: Lab) -> None:
    """A recipe that now writes a truncated file does not bring the original back; it is kept."""
    before = sha256(lab.derive())
    lab.prove()
    lab.release()
    folder = lab.base / "recipes"
    folder.mkdir()
    # The same name, version and parameters, but the code has gone bad.
    source = (TESTS / "lab_recipes.py").read_text()
    marker = "compression=4)\n"
    assert source.count(marker) == 1
    (folder / "lab_recipes.py").write_text(
        source.replace(marker, marker + "    os.truncate(output, 9000)\n")
    )
    lab.config.write_text(lab.config.read_text().replace(str(TESTS), str(folder)))
    with pytest.raises(IntegrityError):
        recall(lab.stores, lab.store, "derived.h5")
    assert not (lab.root / "derived.h5").exists()
    assert lab.entry("derived.h5").sha256 == before
    assert not lab.staged
