"""Many files judged at once: by the catalog and one look each, and as one by one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import event, given
from hypothesis import strategies as st

from conftest import TESTS, Lab
from recallfs.catalog import schema
from recallfs.catalog.evidence import Listed, listing
from recallfs.cli.app import main
from recallfs.config import ReleaseSettings
from recallfs.release.assessment import assess, assess_all
from recallfs.release.glance import Glance, last_uses
from recallfs.release.looks import Looks, look_of
from recallfs.release.plan import draw_up, read_plan, write_plan
from recallfs.release.policy import Candidate, Decision, Wanted, decide, without_conflicts
from recallfs.resolve.derive import derive
from recallfs.resolve.selection import select, select_listed, select_places
from recallfs.values import Level, State, now_utc

WANTED = Wanted(max_skeleton=1.0)


def second(
    lab: Lab, path: str = "second.h5", source: str = "derived.h5", recipe: str = "double"
) -> None:
    """Make a file from a derived one, and prove it."""
    derive(
        lab.stores,
        recipe,
        outputs={"": f"recall://lab/{path}"},
        inputs={"raw": f"recall://lab/{source}"},
        parameters={"factor": 3.0} if recipe == "double" else {},
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


def test_what_is_kept_at_the_path_says_what_the_tables_say(lab: Lab) -> None:
    """Proofs, revocations, runs and inputs are told alike by an index made before it was kept."""
    lab.derive("unproved.h5")
    for number, name in enumerate(("once.h5", "twice.h5", "revoked.h5")):
        lab.derive(name, factor=3.0 + number)
        lab.prove(name)
    lab.prove("twice.h5")
    assert main(["revoke", "recall://lab/revoked.h5", "--why", "x"]) == 0
    ids = [place.id for place in lab.store.catalog.places_below("")]
    quick = listing(lab.store.catalog, ids, now_utc())
    assert {len(item.proofs) for item in quick.values()} == {0, 1, 2}
    emptied = sa.update(schema.paths).values(standing=None, made_from=None)
    lab.store.catalog._database.transact(lambda connection: connection.execute(emptied))
    assert listing(lab.store.catalog, ids, now_utc()) == quick


def test_the_quick_way_plans_what_the_slow_way_does(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder read at once and looked at beside is judged as file by file, from other tables."""
    names = ("proved", "twice", "revoked", "expired", "linked", "pinned", "dirty", "gone", "plain")
    for name in names:
        lab.derive(f"a/{name}.h5", "text", words=name)
    lab.write_config('[release]\nproof_validity = "1s"\n')
    lab.prove("a/expired.h5")
    lab.write_config()
    for name in ("twice", *names):
        if name not in {"plain", "expired", "gone"}:
            lab.prove(f"a/{name}.h5")
    second(lab, "a/orphan.h5", "a/gone.h5", "text")
    second(lab, "a/chained.h5", "a/linked.h5", "text")
    os.link(lab.root / "a/linked.h5", tmp_path / "linked.h5")
    (lab.root / "a/dirty.h5").write_bytes(b"other")
    (lab.root / "a/gone.h5").unlink()
    assert main(["pin", "recall://lab/a/pinned.h5"]) == 0
    assert main(["revoke", "recall://lab/a/revoked.h5", "--why", "x"]) == 0
    stores, folder = lab.stores, ["recall://lab/a"]
    chain = Wanted(max_skeleton=1.0, allow_chain=True)
    told, plans = [], []
    emptied = sa.update(schema.paths).values(standing=None, made_from=None)
    for is_quick in (True, False):
        monkeypatch.setattr("recallfs.release.looks.MANY", 1 if is_quick else 1000)
        if not is_quick:
            lab.store.catalog._database.transact(lambda connection: connection.execute(emptied))
        for wanted in (WANTED, chain):
            found = select_listed(stores, folder) if is_quick else select_places(stores, folder)
            assessment = assess_all(stores, found, wanted)
            told.append(
                [(file.id, each._replace(unused_s=0)) for _, file, each in assessment.files]
            )
            fit = [item for item in assessment.files if item[2].verdict == "release"]
            known = assessment.evidence if is_quick else None
            plans.append(replace(draw_up(stores, fit, wanted, known=known), made_at=""))
    assert (told[:2], plans[:2]) == (told[2:], plans[2:])
    fit_names = [file.url.rpartition("/")[2] for file in plans[1].files]
    assert fit_names == ["chained.h5", "proved.h5", "twice.h5"]
    alone = {
        entry.id: assess(stores, store, entry, chain)._replace(unused_s=0)
        for store, entry in select(stores, folder)
    }
    assert alone == dict(told[1])
    assert {each.kind for each in alone.values()} == {
        "", "unproved", "hard-linked", "pinned", "dirty", "conflict", "relied-on"
    }  # fmt: skip
    for plan in plans:
        write_plan(plan, tmp_path / "plan.json")
        document = json.loads((tmp_path / "plan.json").read_text())
        assert (read_plan(tmp_path / "plan.json"), document["totals"]) == (plan, plan.totals)


def test_files_are_looked_at_alike_by_a_process_beside(tmp_path: Path) -> None:
    """Whichever process looks, the same is seen, of odd names and of what is not there as well."""
    names = ["a", "Ω é", "line\nbreak", "gone", "folder", "link", "folder/b"]
    (tmp_path / "folder").mkdir()
    for name in ("a", "Ω é", "line\nbreak", "folder/b"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to("gone")
    os.link(tmp_path / "a", tmp_path / "b")
    os.utime(tmp_path / "a", ns=(-5, 2**62 + 1))
    with Looks(tmp_path, names, is_beside=True) as beside, Looks(tmp_path, names) as here:
        seen = [status and look_of(status) for status in here]
        assert list(beside) == seen
    assert [status and status.st_nlink for status in seen] == [2, 1, 1, None, 2, 1, 1]
    with Looks(tmp_path / "no", names, is_beside=True) as nothing:
        assert list(nothing) == [None] * len(names)


@given(
    size=st.integers(0, 10**4),
    kept=st.none() | st.integers(0, 500),
    pinned=st.booleans(),
    proof=st.sampled_from([None, *(level.value for level in Level)]),
    links=st.integers(1, 2),
    written=st.integers(0, 20),
    read=st.integers(0, 20),
    older=st.none() | st.integers(0, 20),
    idle=st.none() | st.integers(0, 20),
    lowest=st.none() | st.sampled_from(list(Level)),
)
def test_a_glance_agrees_with_a_closer_look(  # noqa: PLR0917 - hypothesis gives them
    size: int, kept: int | None, pinned: bool, proof: str | None, links: int, written: int,
    read: int, older: int | None, idle: int | None, lowest: Level | None,
) -> None:  # fmt: skip
    """What is released at a glance is released, with the same words, when all is gone through."""
    days = 86400
    item = Listed(
        "a", "e", "resident", size, "0" * 64, written * days * 10**9, 1, -7, size, 5, 6, pinned,
        kept, None, proof and "p", "v", proof, "graft", "2026-01-01T00", 12.0, "double", (),
    )  # fmt: skip
    status = os.stat_result(
        (0o100644, 2**64 - 7, 1, links, 0, 0, size, read * days, 0, 0,
         read * days, 0, 0, 0, 5, 6)
    )  # fmt: skip
    span = [None if value is None else timedelta(days=value) for value in (older, idle)]
    wanted = Wanted(older_than=span[0], idle=span[1], min_size_bytes=100)
    settings, present = ReleaseSettings(), 20.0 * days
    found = Glance("recall://lab/", settings, wanted, lowest).decide(item, status, present)
    used, looked = last_uses(item.mtime_ns, None, status)
    closely = decide(
        Candidate(
            "recall://lab/a", size, State.RESIDENT, pinned, timedelta(seconds=present - used),
            timedelta(seconds=present - looked), item.proofs, (), kept or 0, links, (), (), {},
            lowest=lowest,
        ),
        settings,
        wanted,
    )  # fmt: skip
    event(str(found is not None))
    if found is not None:
        assert found == closely
    elif kept is not None:
        assert closely.verdict != "release"


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
    assert "released or about to be, proved" in told
    assert "Freed now: 0 B; on 20" in told
    plan = json.loads(out.read_text())
    ground = {item["url"]: (item["how"], item["files"]) for item in plan["plan"]["ground"]}
    assert ground == {
        "recall://lab/raw.h5": ("pinned", 2),
        "recall://lab/derived.h5": ("proof", 1),  # which the plan releases as well
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
