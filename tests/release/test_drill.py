"""Drills and revocations: what shows that released files still come back, and what says no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Lab
from mirrored import released_file
from recallfs.catalog import records
from recallfs.catalog.sidecar import decode
from recallfs.catalog.vaulted import vault_place
from recallfs.release.drill import wilson
from recallfs.values import State, now_utc


def test_drill_brings_back_and_throws_away(lab: Lab) -> None:
    """Files come back from their recipe to be compared; the store is as it was."""
    lab.released("one.h5")
    lab.derive("here.h5", factor=3.0)
    document = lab.cli_json("drill", "--from", "recompute")
    (file,) = document["files"]
    assert (file["url"], file["source"], file["level"]) == (
        "recall://lab/one.h5",
        "recompute",
        "exact",
    )
    assert document["shares"] == [
        {"recipe": "double", "drilled": 1, "came_back": 1, "low": pytest.approx(0.2065, abs=1e-3),
         "high": 1.0}
    ]  # fmt: skip
    assert lab.entry("one.h5").state is State.RELEASED
    assert not (lab.root / "one.h5").exists()
    assert not list((lab.store.control / "staging").glob("*/*"))
    assert lab.cli("drill", "--quiet").stdout == ""


def test_failed_drill_revokes(lab: Lab, tmp_path: Path) -> None:
    """A recipe that gives something else by now loses its proof; cron hears of it."""
    layout = tmp_path / "cpu"
    layout.write_text("one")
    lab.derive("noisy.h5", "noisy", cpu_file=str(layout), rows=400)
    lab.prove("noisy.h5")
    lab.release("noisy.h5")
    lab.released("other.h5")
    layout.write_text("another")
    done = lab.cli("drill", "--quiet", check=False)
    assert done.returncode == 1
    assert "DID NOT COME BACK" in done.stdout
    assert "/lfp/data" in done.stderr
    record = records.load(lab.store, lab.entry("noisy.h5").id)
    assert not record.valid_proofs(now_utc())
    assert "a drill failed" in record.revocations[-1].reason
    copy = vault_place(lab.store, lab.store.sidecar_path(record.entry.id)).read_bytes()
    assert decode(copy).revocations == record.revocations, "the vault knows"
    assert records.load(lab.store, lab.entry("other.h5").id).valid_proofs(now_utc())
    (warning,) = [
        line
        for line in lab.cli_json("status")["stores"][0]["warnings"]
        if "neither a proof" in line
    ]
    assert warning.startswith("1 released files")


def test_drill_does_not_believe_the_trash(lab: Lab) -> None:
    """A file that only the trash can give does not come back in a drill."""
    place = lab.derive("one.h5")
    lab.prove("one.h5")
    lab.release("one.h5", hold="30d")
    (lab.root / "raw.h5").unlink()
    assert not place.exists()
    document = lab.cli_json("drill", check=False)
    assert document["files"][0]["error"] is not None
    assert document["files"][0]["revoked"] == []
    assert document["shares"][0]["came_back"] == 0
    assert lab.cli("drill", "--from", "trash", check=False).returncode != 0
    lab.cli("undo", "recall://lab/one.h5")
    assert place.exists()


def test_nothing_to_drill(lab: Lab) -> None:
    """A store where nothing is released says so."""
    lab.derive()
    assert "nothing to drill" in lab.cli("drill").stdout


@pytest.mark.parametrize(("good", "total"), [(0, 1), (20, 20), (19, 20), (0, 0), (3, 1000)])
def test_interval(good: int, total: int) -> None:
    """The interval holds the share itself and stays between 0 and 1."""
    low, high = wilson(good, total)
    assert 0 <= low <= (good / total if total else 0.5) <= high <= 1
    assert high - low < (1.01 if total < 20 else 0.25)


def test_revocation_by_recipe(lab: Lab) -> None:
    """Proofs of one recipe made before a moment count no more; a newer proof does again."""
    lab.released("one.h5")
    lab.derive("two.h5", factor=3.0)
    lab.prove("two.h5")
    lab.derive("words.txt", "text")
    lab.prove("words.txt")
    tried = lab.cli_json("revoke", "--recipe", "double", "--why", "edge", "--dry-run")
    assert len(tried["revoked"]) == 2
    none = lab.cli_json("revoke", "--recipe", "double", "--before", "2020-01-01", "--why", "edge")
    assert none["revoked"] == []
    for scheme, count in {"sha256": 3, "rsk1": 2, "rsd1": 0, "h5c1": 0}.items():
        tried = lab.cli_json("revoke", "--scheme", scheme, "--why", "edge", "--dry-run")
        assert len(tried["revoked"]) == count, scheme
    done = lab.cli_json("revoke", "--recipe", "double", "--why", "wrong filter edge")
    assert {item["url"]: item["state"] for item in done["revoked"]} == {
        "recall://lab/one.h5": "released",
        "recall://lab/two.h5": "resident",
    }
    refused = lab.cli("release", "recall://lab/two.h5", check=False)
    assert "no valid proof" in refused.stdout + refused.stderr
    assert lab.cli_json("revoke", "--recipe", "double", "--why", "again")["revoked"] == []
    # What is released may still come back, and what is here can be proved anew.
    lab.cli("get", "recall://lab/one.h5")
    lab.prove("two.h5")
    assert records.load(lab.store, lab.entry("two.h5").id).valid_proofs(now_utc())
    assert records.load(lab.store, lab.entry("words.txt").id).valid_proofs(now_utc())


def test_revocations_survive_a_lost_catalog(lab: Lab) -> None:
    """The sidecars know of them."""
    lab.released("one.h5")
    lab.cli("revoke", "recall://lab/one.h5", "--why", "it is said so")
    for file in lab.store.control.glob("catalog.sqlite*"):
        file.unlink()
    lab.cli("catalog", "rebuild", "lab")
    (warning,) = [w for w in lab.cli_json("status")["stores"][0]["warnings"] if "neither" in w]
    assert warning


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--why", "x"), "say which proofs"),
        (("--recipe", "double", "--why", " "), "--why is empty"),
        (("--recipe", "double", "--why", "x", "--before", "yesterday"), "is no date"),
        (("recall://lab/none.h5", "--why", "x"), "names no entry"),
    ],
)
def test_revocation_needs_its_words(lab: Lab, arguments: tuple[str, ...], said: str) -> None:
    """What is not clear is refused with one sentence."""
    lab.derive()
    done = lab.cli("revoke", *arguments, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_only_what_a_recipe_makes_is_drilled_by_recompute(lab: Lab) -> None:
    """A file that is released for its copies is no failure of a recipe."""
    released_file(lab, "copied.bin")
    lab.released("one.h5")
    (file,) = lab.cli_json("drill", "--from", "recompute", "--sample", "2")["files"]
    assert file["url"] == "recall://lab/one.h5"
    assert len(lab.cli_json("drill", "--sample", "2")["files"]) == 2


def test_a_damaged_record_fails_alone(lab: Lab) -> None:
    """A file of which the evidence cannot be read did not come back; the others are drilled."""
    lab.released("one.h5")
    lab.derive("two.h5", factor=3.0)
    lab.prove("two.h5")
    lab.release("two.h5")
    lab.store.sidecar_path(lab.entry("one.h5").id).write_bytes(b"spoilt")
    document = lab.cli_json("drill", "--from", "recompute", check=False)
    errors = {file["url"]: file["error"] for file in document["files"]}
    assert errors["recall://lab/two.h5"] is None
    assert errors["recall://lab/one.h5"]["kind"] == "damaged-record"
