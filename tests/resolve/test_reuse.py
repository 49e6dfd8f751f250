"""Results of the same derivation, found through a mirror from a computer with another catalog."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from conftest import Lab, sha256
from recallfs.catalog import records
from recallfs.catalog.store import create_store
from recallfs.errors import CatalogError, ConflictError, IntegrityError
from recallfs.release.push import push, push_target
from recallfs.resolve.derive import Derived, derive
from recallfs.resolve.results import Result, decode, encode
from recallfs.testing.http import Files
from recallfs.testing.misbehaviour import Fault
from recallfs.values import canonical_json

GOLDEN = Path(__file__).parent / "golden" / "rdk1-1.json"


def mirror_table(url: str, layout: str = "sha256") -> str:
    return f'[[sources.mirror]]\nname = "nas"\nurl = "{url}"\nlayout = "{layout}"\n'


def run(lab: Lab, recipe: str, *, reuse: bool | None = True, **parameters: Any) -> Derived:
    """Run a recipe on the lab's raw file."""
    outputs = {"left": "recall://lab/l", "right": "recall://lab/r"}
    return derive(
        lab.stores,
        recipe,
        outputs=outputs if recipe == "pair" else {"": "recall://lab/out"},
        inputs={} if recipe in ("pair", "text") else {"raw": "recall://lab/raw.h5"},
        parameters=parameters,
        reuse=reuse,
    )


def elsewhere(lab: Lab, recipe: str, *, layout: str = "sha256", **parameters: Any) -> Derived:
    """Run a recipe on another computer, push what it gave, and come back to a fresh store."""
    folder = lab.base / "mirror"
    folder.mkdir(exist_ok=True)
    extra = mirror_table(f"file://{folder}", layout)
    lab.write_config(extra)
    lab.write_raw()
    made = run(lab, recipe, **parameters)
    assert made.executed
    for url in made.outputs.values():
        entry = lab.entry(url.removeprefix("recall://lab/"))
        target = push_target(lab.stores, "mirror:nas")
        assert push(lab.stores, lab.store, entry, target).reason == ""
    # The other computer has the same inputs, and no more in common.
    raw = (lab.root / "raw.h5").read_bytes()
    lab.store.catalog.close()
    lab.root.rename(lab.base / "first")
    create_store(lab.root, "lab", vault=lab.base / "second-vault")
    lab.write_config(extra + "# another computer\n")
    lab.add("raw.h5", raw)
    return made


def record_of(lab: Lab) -> Path:
    """Return the file of the one derivation that the mirror knows."""
    (place,) = (lab.base / "mirror" / "derivations").rglob("*.json")
    return place


def executions(lab: Lab) -> int:
    return len((lab.base / "count").read_text().splitlines())


def counted(lab: Lab) -> dict[str, Any]:
    return {"count_file": str(lab.base / "count"), "seconds": 0}


@pytest.mark.parametrize("layout", ["sha256", "path"])
def test_result_is_found_by_its_key_alone(lab: Lab, layout: str) -> None:
    """Another computer gets the very bytes without running the recipe; where from is said."""
    made = elsewhere(lab, "counted", layout=layout, **counted(lab))
    first = sha256(lab.base / "first/out")
    found = run(lab, "counted", **counted(lab))
    assert (found.executed, found.source, found.warnings) == (False, "mirror:nas", ())
    assert found.key == made.key
    assert executions(lab) == 1
    assert sha256(lab.root / "out") == first
    record = records.load(lab.store, lab.entry("out").id)
    (derivation,) = record.derivations
    assert (derivation.key, derivation.recipe) == (made.key, "counted")
    assert lab.store.environment_path(derivation.environment_id).exists()
    assert not record.proofs
    assert not lab.staged
    # From now on it is this store's own.
    again = run(lab, "counted", **counted(lab))
    assert (again.executed, again.source) == (False, "")


def test_off_by_default_and_on_by_configuration(lab: Lab) -> None:
    """Without being asked for, nothing from elsewhere is taken; one line changes that."""
    elsewhere(lab, "counted", **counted(lab))
    made = ("run", "counted", "-o", "recall://lab/out", "-i", "raw=recall://lab/raw.h5")
    words = (*made, "-p", f"count_file={lab.base / 'count'}", "-p", "seconds=0")
    lab.environment["RECALLFS_RECIPES__REUSE"] = "true"
    refused = lab.cli_json(*words, "--no-reuse")
    assert (refused["executed"], executions(lab)) == (True, 2)
    lab.cli("forget", "recall://lab/out", "--yes")
    found = lab.cli_json(*words)
    assert (found["executed"], found["source"], executions(lab)) == (False, "mirror:nas", 2)
    lab.cli("forget", "recall://lab/out", "--yes")
    lab.environment.clear()
    assert lab.cli_json(*words)["executed"]
    lab.cli("forget", "recall://lab/out", "--yes")
    assert "taken from mirror:nas" in lab.cli(*words, "--reuse").stdout
    assert executions(lab) == 3


def test_all_outputs_come_together(lab: Lab) -> None:
    """Two outputs of one derivation are entries with one derivation here, too."""
    elsewhere(lab, "pair")
    assert run(lab, "pair").source == "mirror:nas"
    left, right = (records.load(lab.store, lab.entry(path).id).derivations for path in "lr")
    assert left == right
    assert (lab.root / "l").read_text() == "left" * 5000


def test_inputs_are_not_needed(lab: Lab) -> None:
    """A result is found by the digests of inputs that are not here."""
    elsewhere(lab, "counted", **counted(lab))
    (lab.root / "raw.h5").unlink()
    assert run(lab, "counted", **counted(lab)).source == "mirror:nas"


def test_other_parameters_are_another_derivation(lab: Lab) -> None:
    """What was not made elsewhere is made here, without a word."""
    elsewhere(lab, "text", words="one ")
    made = run(lab, "text", words="two ")
    assert (made.executed, made.source, made.warnings) == (True, "", ())


def _forged(lab: Lab, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record's body, and give it the right digest."""
    place = record_of(lab)
    document = json.loads(place.read_text())
    change(document["body"])
    document["digest"] = blake3(canonical_json(document["body"])).hexdigest()
    place.write_text(json.dumps(document))


def _torn(lab: Lab) -> None:
    place = record_of(lab)
    place.write_bytes(place.read_bytes()[:-40])


def _altered(lab: Lab) -> None:
    place = record_of(lab)
    place.write_text(place.read_text().replace('"seconds": ', '"seconds": 1'))


def _of_another(lab: Lab) -> None:
    _forged(lab, lambda body: body.update(key="0" * 64))


def _renamed_output(lab: Lab) -> None:
    _forged(lab, lambda body: body.update(outputs={"other": body["outputs"]["output"]}))


def _climbing(lab: Lab) -> None:
    _forged(lab, lambda body: body["outputs"]["output"].update(path="../../etc/passwd"))


def _other_digest(lab: Lab) -> None:
    _forged(lab, lambda body: body["outputs"]["output"].update(sha256="0" * 64))


def _lying_sha1(lab: Lab) -> None:
    _forged(lab, lambda body: body["outputs"]["output"].update(sha1="0" * 40))


def _lying_size(lab: Lab) -> None:
    _forged(lab, lambda body: body["outputs"]["output"].update(size_bytes=3))


def _newer(lab: Lab) -> None:
    place = record_of(lab)
    place.write_text(place.read_text().replace('"rdk1"', '"rdk2"'))


def _without_output(lab: Lab) -> None:
    (place,) = (p for p in (lab.base / "mirror/sha256").rglob("*") if p.is_file())
    place.unlink()


def _corrupt_output(lab: Lab) -> None:
    (place,) = (p for p in (lab.base / "mirror/sha256").rglob("*") if p.is_file())
    place.write_bytes(b"X" + place.read_bytes()[1:])


def _html(lab: Lab) -> None:
    record_of(lab).write_text("<html>please log in</html>")


def _huge(lab: Lab) -> None:
    with record_of(lab).open("r+b") as file:
        file.truncate(20_000_000)


@pytest.mark.parametrize(
    "lie",
    [
        _torn, _altered, _of_another, _renamed_output, _climbing, _other_digest, _lying_sha1,
        _lying_size, _newer, _without_output, _corrupt_output, _html, _huge,
    ],
)  # fmt: skip
def test_what_lies_falls_through_to_a_run(lab: Lab, lie: Callable[[Lab], None]) -> None:
    """Whatever is wrong with a record or its files, the recipe runs, and a warning says why."""
    elsewhere(lab, "counted", **counted(lab))
    lie(lab)
    made = run(lab, "counted", **counted(lab))
    assert (made.executed, made.source) == (True, "")
    assert executions(lab) == 2
    (warning,) = made.warnings
    assert warning.startswith("mirror:nas did not give an earlier result: ")
    assert not lab.staged
    assert not lab.store.catalog.intents()


def test_mirror_out_of_reach_falls_through(lab: Lab) -> None:
    """A mirror that never answers costs its deadline, then the recipe runs."""
    lab.write_raw()
    with Files(lab.base) as hole:
        hole.fail(Fault(stall=True))
        lab.write_config(mirror_table(hole.url) + 'answer_timeout = "0.3s"\n')
        made = run(lab, "double")
    assert made.executed
    assert len(made.warnings) == 1


def test_result_is_found_over_http(lab: Lab) -> None:
    """What was pushed to a folder is found where the folder is served."""
    elsewhere(lab, "counted", **counted(lab))
    with Files(lab.base / "mirror") as served:
        lab.write_config(mirror_table(served.url))
        assert run(lab, "counted", **counted(lab)).source == "mirror:nas"
    assert executions(lab) == 1


def test_path_that_is_taken_is_a_conflict(lab: Lab) -> None:
    """Nothing at an output's path is replaced by what comes from elsewhere."""
    elsewhere(lab, "text")
    (lab.root / "out").write_text("somebody's")
    with pytest.raises(ConflictError):
        run(lab, "text")
    assert (lab.root / "out").read_text() == "somebody's"


def test_two_results_of_one_derivation(lab: Lab) -> None:
    """A second, different result does not replace the first one's record, and that is said."""
    made = elsewhere(lab, "counted", **counted(lab))
    before = record_of(lab).read_bytes()
    assert run(lab, "counted", reuse=False, **counted(lab)).key == made.key
    target = push_target(lab.stores, "mirror:nas")
    again = push(lab.stores, lab.store, lab.entry("out"), target)
    assert "keeps another result of the same derivation" in again.reason
    assert record_of(lab).read_bytes() == before


def test_seeded_result_keeps_its_seed(lab: Lab) -> None:
    """What a seeded run needs to give the same bytes again comes with the result."""
    elsewhere(lab, "text")
    run(lab, "text")
    (here,) = records.load(lab.store, lab.entry("out").id).derivations
    found = decode(record_of(lab).read_bytes())
    assert here.seed is not None
    assert (here.seed, here.started_at, here.threads) == (
        found.seed,
        found.started_at,
        found.threads,
    )


def test_old_record_is_read() -> None:
    """The golden record of the first version is read, field by field, and written the same."""
    content = GOLDEN.read_bytes()
    result = decode(content)
    assert result.key == "ab" * 32
    assert result.outputs["left"].path == "sub-1/größe.nwb"
    assert result.outputs["right"].size_bytes == 0
    assert result.seed == 0x1234
    assert encode(result) == content


def test_records_that_are_none() -> None:
    """Damage and newer formats are told apart; nothing else than an error comes of either."""
    content = GOLDEN.read_bytes()
    for wrong in (b"", b"[]", b"{}", content[:100], content.replace(b"0.5", b"0.6"), b"\xff"):
        with pytest.raises(IntegrityError):
            decode(wrong)
    with pytest.raises(CatalogError):
        decode(content.replace(b"rdk1", b"rdk2"))
    body = json.loads(content)["body"]
    for key, value in (("seed", 3), ("threads", "2"), ("environment", []), ("started_at", "x"),
                       ("outputs", {}), ("outputs", []), ("key", "AB" * 32), ("seconds", -1),
                       ("extra", 1), ("threads", 0)):  # fmt: skip
        changed = {**body, key: value}
        digest = blake3(canonical_json(changed)).hexdigest()
        document = {"format": "rdk1", "digest": digest, "body": changed}
        with pytest.raises(IntegrityError):
            decode(json.dumps(document).encode())
    assert isinstance(decode(content), Result)
