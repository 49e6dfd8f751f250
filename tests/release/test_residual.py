"""Residuals: values that differ in a few bits are exact again, or nothing is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import Lab, sha256
from recallfs.catalog import records
from recallfs.catalog.sidecar import Record
from recallfs.errors import IntegrityError, RecallError
from recallfs.release.assessment import assess
from recallfs.release.policy import Wanted
from recallfs.release.proof import Proved, prove
from recallfs.skeleton.residual import Residual


def noisy(lab: Lab, path: str = "noisy.h5", **parameters: Any) -> Path:
    """Make a file on one CPU, and go on to another."""
    cpu = lab.base / "cpu"
    cpu.write_text("old")
    place = lab.derive(path, recipe="noisy", cpu_file=str(cpu), **parameters)
    cpu.write_text("newer")
    return place


def proved(lab: Lab, path: str = "noisy.h5", **options: Any) -> Proved:
    """Prove a file."""
    return prove(lab.stores, lab.store, lab.entry(path), hiding="auto", **options)


def record_of(lab: Lab, path: str = "noisy.h5") -> Record:
    """Return what is on record."""
    return records.load(lab.store, lab.entry(path).id)


@pytest.mark.parametrize("how", ["chunked", "contiguous"])
def test_noise_in_the_last_bits_is_exact_through_the_command_line(lab: Lab, how: str) -> None:
    """Float64 values off by 1e-13 on another CPU: proved, released, recalled to the very bytes."""
    place = noisy(lab, how=how)
    before, size = sha256(place), place.stat().st_size
    (made,) = lab.cli_json("prove", str(place), "--hide", "auto")["proved"]
    assert (made["level"], made["method"]) == ("exact", "residual")
    assert 0 < made["residual_bytes"] < 0.2 * size
    assert made["residual_bytes"] < made["kept_bytes"]
    assert made["frees_bytes"] == size - made["kept_bytes"]
    asked = ("release", str(place), "--hold", "0s", "--yes")
    (planned,) = lab.cli_json(*asked, "--dry-run")["decisions"]
    assert planned["frees_bytes"] == made["frees_bytes"]
    assert made["kept_bytes"] > 0.05 * size  # the limit of a skeleton is not that of a residual
    (page,) = lab.cli_json("status")["stores"]
    assert page["releasable"] == {"files": 1, "size_bytes": size}
    lab.cli(*asked)
    assert not place.exists()
    assert "residual" in lab.cli("show", str(place)).stdout
    lab.cli("get", str(place))
    assert sha256(place) == before


def test_the_second_run_is_what_was_proved(lab: Lab) -> None:
    """A proof by residual rests on two runs that agreed; a later proof takes the one on record."""
    place = noisy(lab)
    assert proved(lab).proof.method == "residual"
    reference = record_of(lab).residual
    assert reference is not None
    again = proved(lab)
    assert (again.proof.method, again.residual_bytes) == ("residual", reference.stored_bytes)
    assert record_of(lab).residual == reference
    assert sha256(place) == again.proof.sha256


def test_a_recipe_that_is_never_the_same_gets_no_residual(lab: Lab) -> None:
    """Two runs that disagree are told as such, with dataset and place; nothing is kept."""
    noisy(lab)
    (lab.base / "cpu").write_text("another each time")
    with pytest.raises(IntegrityError, match="gave other values in two runs") as caught:
        proved(lab)
    assert caught.value.kind == "not-repeatable"
    (difference,) = caught.value.details["objects"]
    assert difference["path"] == "/lfp/data"
    assert difference["values"]["count"] > 60_000
    assert "; by at most " in str(caught.value)
    assert Path(caught.value.details["kept"]).exists()
    record = record_of(lab)
    assert (record.residual, record.proofs) == (None, ())
    assert not list(lab.store.control.glob("residuals/*/*"))


def test_a_residual_above_the_limit_is_refused(lab: Lab) -> None:
    """Noise of 1e-5 takes half of the data: refused with its size, kept when asked for."""
    place = noisy(lab, noise=1e-5)
    before = sha256(place)
    with pytest.raises(IntegrityError, match=r"A residual would take .*above 20%") as caught:
        proved(lab)
    assert caught.value.kind == "residual-too-large"
    assert record_of(lab).residual is None
    lab.write_config("[release]\nmax_residual = 0.9\n")
    assert proved(lab).residual_bytes > 0.4 * place.stat().st_size
    lab.release("noisy.h5")
    lab.cli("get", str(place))
    assert sha256(place) == before


def test_none_is_made_where_none_is_wanted(lab: Lab) -> None:
    """With a limit of 0 the recipe is not even run a second time."""
    noisy(lab)
    lab.write_config("[release]\nmax_residual = 0\n")
    with pytest.raises(IntegrityError, match="differs from the original") as caught:
        proved(lab)
    assert caught.value.kind == "digest-mismatch"


def test_another_environment_is_never_served(lab: Lab) -> None:
    """A recompute that is off in another way is refused, though a residual is there."""
    place = noisy(lab)
    before = sha256(place)
    proved(lab)
    lab.release("noisy.h5")
    (lab.base / "cpu").write_text("yet another")
    failed = lab.cli("get", str(place), check=False)
    assert failed.returncode == 50
    assert "/lfp/data (8 of 8 chunks" in failed.stderr
    assert not place.exists()
    (lab.base / "cpu").write_text("newer")
    lab.cli("get", str(place))
    assert sha256(place) == before


def test_one_flipped_bit_is_mended_from_the_vault_or_refused(lab: Lab) -> None:
    """A residual that is not whole is read from the vault; without it nothing is served."""
    place = noisy(lab)
    before = sha256(place)
    proved(lab)
    lab.release("noisy.h5")
    reference = record_of(lab).residual
    assert reference is not None
    local = lab.store.residual_path(reference.digest)
    copy = lab.store.vault / lab.store.id / local.relative_to(lab.store.control)
    assert copy.read_bytes() == local.read_bytes()
    content = bytearray(local.read_bytes())
    content[len(content) // 2] ^= 1
    local.write_bytes(content)
    findings = lab.cli_json("doctor", check=False)["findings"]
    assert [f["id"] for f in findings if f["place"] == str(local)] == ["evidence-damaged"]
    mismatches = lab.cli_json("verify", "--deep", check=False)["mismatches"]
    assert [found["part"] for found in mismatches] == ["residual"]
    lab.cli("get", str(place))
    assert sha256(place) == before
    lab.release("noisy.h5")  # which mends the one in the store
    assert local.read_bytes() == copy.read_bytes()
    for path in (local, copy):
        path.write_bytes(content)
    failed = lab.cli("get", str(place), check=False)
    assert failed.returncode == 51
    assert "whole neither in the store nor in the vault" in failed.stderr
    assert not place.exists()


def test_a_residual_of_another_file_is_refused(lab: Lab) -> None:
    """Put in another's place, under another's name and digest, it is not applied."""
    from dataclasses import replace

    from recallfs.catalog import changes

    place, other = noisy(lab), noisy(lab, "other.h5", rows=4800)
    proved(lab)
    proved(lab, "other.h5")
    stranger = record_of(lab, "other.h5").residual
    with changes.edit(lab.store, lab.entry("noisy.h5").id, "prove") as draft:
        draft.record = replace(draft.record, residual=stranger)
    lab.release("noisy.h5")
    failed = lab.cli("get", str(place), check=False)
    assert failed.returncode == 51
    assert "made for another file" in failed.stderr
    assert not place.exists()
    assert other.exists()


def test_a_new_residual_ends_the_proofs_that_rest_on_the_old_one(lab: Lab) -> None:
    """One residual is kept an entry: what was proved with an earlier one counts no more."""
    place = noisy(lab)
    before = sha256(place)
    first = proved(lab)
    (lab.base / "cpu").write_text("the newest of all")
    second = proved(lab)
    record = record_of(lab)
    assert [one.proof_id for one in record.revocations] == [first.proof.id]
    decision = assess(lab.stores, lab.store, lab.entry("noisy.h5"), Wanted(max_skeleton=1.0))
    assert decision.evidence == f"proof:{second.proof.id}"
    lab.release("noisy.h5")
    lab.cli("get", str(place))
    assert sha256(place) == before


def test_an_unwritable_place_leaves_nothing_half_done(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the residual cannot be written the proof fails, and the record is as before."""
    noisy(lab)
    (lab.store.control / "residuals").rmdir()
    (lab.store.control / "residuals").write_text("in the way")
    with pytest.raises((RecallError, OSError)):
        proved(lab)
    record = record_of(lab)
    assert (record.residual, record.proofs) == (None, ())


def test_the_kept_residual_holds_no_values(lab: Lab) -> None:
    """It is the difference that is kept: without the recipe it gives nothing back."""
    place = noisy(lab)
    proved(lab)
    reference = record_of(lab).residual
    assert reference is not None
    residual = Residual.open(lab.store.residual_path(reference.digest))
    assert residual.sha256 == sha256(place)
    assert len(residual.pieces) == 8
