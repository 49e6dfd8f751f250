"""Many files judged at once: by the catalog and one look each, and as one by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import TESTS, Lab
from recallfs.cli.app import main
from recallfs.release.assessment import assess, assess_all
from recallfs.release.plan import draw_up, read_plan, write_plan
from recallfs.release.policy import Decision, Wanted, without_conflicts
from recallfs.resolve.derive import derive

WANTED = Wanted(max_skeleton=1.0)


def second(lab: Lab, path: str = "second.h5", source: str = "derived.h5") -> None:
    """Make a file from a derived one, and prove it."""
    derive(
        lab.stores,
        "double",
        outputs={"": f"recall://lab/{path}"},
        inputs={"raw": f"recall://lab/{source}"},
        parameters={"factor": 3.0},
    )
    lab.prove(path)


def decided(lab: Lab, wanted: Wanted = WANTED) -> dict[str, Decision]:
    """Judge all files of the lab at once."""
    found = [(lab.store, entry) for entry in lab.store.catalog.entries_below("")]
    files = assess_all(lab.stores, found, wanted).files
    return {entry.path: decision for _, entry, decision in files}


def test_many_are_judged_as_one_by_one(lab: Lab) -> None:
    """The catalog's answers are those of the sidecars, whatever the state of a file."""
    for number, name in enumerate(("proved", "gone", "dirty", "pinned", "unproved", "revoked")):
        lab.derive(f"{name}.h5", factor=3.0 + number)
        if name != "unproved":
            lab.prove(f"{name}.h5")
    lab.release("gone.h5")
    (lab.root / "dirty.h5").write_bytes(b"other")
    assert main(["pin", "recall://lab/pinned.h5"]) == 0
    assert main(["revoke", "recall://lab/revoked.h5", "--why", "x"]) == 0
    together = decided(lab)
    for path, decision in together.items():
        alone = assess(lab.stores, lab.store, lab.entry(path), WANTED)
        same = ("verdict", "kind", "reason", "evidence", "frees_bytes", "expected_s")
        assert [getattr(decision, key) for key in same] == [getattr(alone, key) for key in same]
    kinds = {path: decision.kind or decision.verdict for path, decision in together.items()}
    assert kinds == {
        "proved.h5": "release",
        "gone.h5": "skip",
        "dirty.h5": "dirty",
        "pinned.h5": "pinned",
        "unproved.h5": "unproved",
        "revoked.h5": "unproved",
        "raw.h5": "unproved",
    }


def test_no_sidecar_is_read_for_many(lab: Lab, tmp_path: Path) -> None:
    """A plan is drawn up with the sidecars out of reach: the catalog has what it takes."""
    lab.derive()
    lab.prove()
    found = [(lab.store, lab.entry("derived.h5"))]
    (lab.store.control / "entries").rename(tmp_path / "entries")
    assessment = assess_all(lab.stores, found, WANTED)
    plan = draw_up(lab.stores, assessment.files, WANTED, known=assessment.evidence)
    (tmp_path / "entries").rename(lab.store.control / "entries")
    assert plan.files[0].rests_on == ("recall://lab/raw.h5",)
    alone = assess(lab.stores, lab.store, lab.entry("derived.h5"), WANTED)
    assert plan.files[0].frees_bytes == alone.frees_bytes < plan.files[0].size_bytes


def test_ground_is_named(lab: Lab, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A plan says what its files rest on, how that is kept, and what a chain costs at worst."""
    lab.derive()
    lab.prove()
    second(lab)
    main(["pin", "recall://lab/raw.h5"])
    out = tmp_path / "plan.json"
    words = ["release", "recall://lab/*.h5", "--max-skeleton", "1", "--plan-out", str(out)]
    main([*words, "--allow-chain", "--hold", "14d"])
    told = capfd.readouterr().out
    assert "here, pinned" in told
    assert "here, held while they are released" in told
    assert "Freed now: 0 B; on 20" in told
    plan = json.loads(out.read_text())
    ground = {item["url"]: (item["how"], item["files"]) for item in plan["plan"]["ground"]}
    assert ground == {
        "recall://lab/raw.h5": ("pinned", 2),
        "recall://lab/derived.h5": ("held", 1),
    }
    items = {item["url"]: item for item in plan["plan"]["files"]}
    assert items["recall://lab/second.h5"]["depth"] == 2
    assert items["recall://lab/second.h5"]["worst_s"] > items["recall://lab/derived.h5"]["worst_s"]
    assert plan["totals"]["files"] == 2
    write_plan(read_plan(out), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == out.read_text()


def test_of_two_that_rest_on_each_other_one_is_taken(lab: Lab) -> None:
    """The plan says which stays, and why; with a chain allowed both go."""
    lab.derive()
    lab.prove()
    second(lab)
    both = {path: item for path, item in decided(lab).items() if path != "raw.h5"}
    assert sorted(item.verdict for item in both.values()) == ["refuse", "release"]
    (reason,) = (item.reason for item in both.values() if item.verdict == "refuse")
    assert "to be released and frees more" in reason
    chain = decided(lab, Wanted(max_skeleton=1.0, allow_chain=True))
    assert chain["derived.h5"].verdict == chain["second.h5"].verdict == "release"


def test_conflicts_are_settled_purely() -> None:
    """In a chain of three the two ends are taken, if the middle frees less than one of them."""

    def made(name: str, frees: int) -> Decision:
        return Decision(name, "release", "", "", "proof:1", frees)

    files = {"a": made("a", 30), "b": made("b", 20), "c": made("c", 10)}
    changed = without_conflicts(files, {"b": ["a"], "c": ["b"]})
    assert {name: item.kind for name, item in changed.items()} == {"b": "relied-on"}
    assert without_conflicts(files, {"b": ["x"]}) == {}


def test_missing_recipe_is_named(lab: Lab) -> None:
    """A proof whose recipe is found nowhere any more releases nothing."""
    lab.derive()
    lab.prove()
    assert decided(lab)["derived.h5"].verdict == "release"
    lab.config.write_text(f'[stores.lab]\nroot = "{lab.root}"\n[recipes]\npaths = ["{TESTS}"]\n')
    decision = decided(lab)["derived.h5"]
    assert (decision.verdict, decision.kind) == ("refuse", "unknown-recipe")
    assert "the recipe 'double' is not found in the environment" in decision.reason
    alone = assess(lab.stores, lab.store, lab.entry("derived.h5"), WANTED)
    assert (alone.kind, alone.reason) == (decision.kind, decision.reason)


def test_lost_ancestor_is_named(lab: Lab) -> None:
    """Down a chain, the input that is gone is what the refusal names."""
    lab.derive()
    lab.prove()
    second(lab)
    chain = Wanted(max_skeleton=1.0, allow_chain=True)
    assert main(["release", "recall://lab/derived.h5", "--yes", "--hold", "0s", "--allow-chain",
                 "--max-skeleton", "1"]) == 0  # fmt: skip
    assert decided(lab, chain)["second.h5"].verdict == "release"
    (lab.root / "raw.h5").unlink()
    decision = decided(lab, chain)["second.h5"]
    assert decision.kind == "relied-on"
    assert "recall://lab/derived.h5, which nothing can bring back" in decision.reason
    assert "recall://lab/raw.h5" in decision.reason
