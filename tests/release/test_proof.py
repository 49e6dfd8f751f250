"""Proofs: made without sight of the original, and never when one value differs."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest

from actors import kill_while_aside, prove_aside, wait_for
from conftest import Lab, sha256
from processes import start
from recallfs.catalog import changes, records
from recallfs.errors import ConflictError, IntegrityError, RecallError
from recallfs.release.aside import set_aside
from recallfs.release.assessment import assess
from recallfs.release.policy import Wanted
from recallfs.release.proof import prove
from recallfs.resolve import tree
from recallfs.values import after, now_utc, parse_span


def test_unseeded_hdf5_file_is_proved_exact_by_graft(lab: Lab) -> None:
    """A file with fresh ids and dates is proved exact, though the recipe gave other bytes."""
    lab.derive()
    proved = prove(lab.stores, lab.store, lab.entry("derived.h5"), hiding="auto")
    assert proved.proof.method == "graft"
    assert proved.proof.sha256 == sha256(lab.root / "derived.h5")
    assert proved.kept_bytes < proved.size_bytes / 20


def test_seeded_file_is_proved_exact_directly(lab: Lab) -> None:
    """A file that is not HDF5 is proved if its recipe gives the very same bytes."""
    lab.derive("words.txt", recipe="text")
    proved = prove(lab.stores, lab.store, lab.entry("words.txt"), hiding="auto")
    assert proved.proof.method == "direct"
    assert proved.kept_bytes == 0


@pytest.mark.parametrize("hiding", ["aside", pytest.param("namespace", marks=pytest.mark.services)])
def test_recipe_cannot_copy_the_original(lab: Lab, hiding: str) -> None:
    """A recipe that would copy the original does not find it, so its proof fails."""
    original = lab.root / "derived.bin"
    lab.derive("derived.bin", recipe="copycat", original=str(original))
    before = sha256(original)
    identity = original.stat()
    with pytest.raises(IntegrityError, match="recomputed to other bytes"):
        prove(lab.stores, lab.store, lab.entry("derived.bin"), hiding=hiding)
    assert sha256(original) == before
    assert original.stat().st_ino == identity.st_ino
    assert not records.load(lab.store, lab.entry("derived.bin").id).proofs


def test_one_value_one_ulp_away_is_no_proof(lab: Lab) -> None:
    """Without a residual one unit in the last place is refused; dataset and index are named."""
    lab.derive("drift.h5", recipe="drifting", drift_file=str(lab.base / "drift"))
    message = r"/deep/data \(1 of 64,000 values differs, first at \(1234, 5\): 39493\.0 became "
    with pytest.raises(IntegrityError, match=message) as caught:
        prove(lab.stores, lab.store, lab.entry("drift.h5"), hiding="auto", max_residual=0)
    (difference,) = caught.value.details["objects"]
    assert difference["path"] == "/deep/data"
    assert list(difference["first"]) == [1234, 5]
    ulp = float(np.spacing(39493.0))
    assert (difference["values"]["count"], difference["values"]["largest_absolute"]) == (1, ulp)
    kept = Path(caught.value.details["kept"])
    with h5py.File(kept) as file:
        assert file["deep/data"].shape == (2000, 32)
    decision = assess(lab.stores, lab.store, lab.entry("drift.h5"), Wanted(max_skeleton=1.0))
    assert (decision.verdict, decision.kind) == ("refuse", "unproved")
    events = [event["action"] for event in lab.store.catalog.events(lab.entry("drift.h5").id)]
    assert events == ["prove-failed"]


def test_file_without_recipe_cannot_be_proved(lab: Lab) -> None:
    """A file that no recipe made is refused, and the error says why."""
    lab.write_raw()
    with pytest.raises(ConflictError, match="no recipe is on record"):
        prove(lab.stores, lab.store, lab.entry("raw.h5"))


def test_dirty_original_cannot_be_proved(lab: Lab) -> None:
    """A proof is not made against bytes that were changed since they were recorded."""
    place = lab.derive()
    with h5py.File(place, "r+") as file:
        file["data"][0, 0] = 1e9
    with pytest.raises(ConflictError, match="dirty"):
        lab.prove()


def test_changed_input_is_named(lab: Lab) -> None:
    """An input whose bytes changed is named before anything runs."""
    lab.derive(recipe="counted", count_file=str(lab.base / "count"), seconds=0.0)
    with h5py.File(lab.root / "raw.h5", "r+") as file:
        file["data"][0, 0] = 1e9
    with pytest.raises(IntegrityError, match=r"input raw=recall://lab/raw\.h5") as caught:
        lab.prove()
    assert caught.value.kind == "input-changed"
    assert len((lab.base / "count").read_text().splitlines()) == 1


def test_proof_expires(lab: Lab) -> None:
    """A proof counts for as long as the configuration says, and not after."""
    lab.write_config('[release]\nproof_validity = "1h"\n')
    lab.derive()
    lab.prove()
    record = records.load(lab.store, lab.entry("derived.h5").id)
    assert record.valid_proofs(now_utc())
    assert not record.valid_proofs(after(now_utc(), parse_span("2h")))


def test_skeleton_holds_no_bulk_data(lab: Lab) -> None:
    """What is kept of a file does not hold its data, so a proof is not made from a copy."""
    place = lab.derive()
    with h5py.File(place) as file:
        raw = file["data"].id.read_direct_chunk((0, 0))[1]
    lab.prove()
    reference = records.load(lab.store, lab.entry("derived.h5").id).skeleton
    assert reference is not None
    from recallfs.skeleton.vault import load_skeleton

    skeleton = load_skeleton(lab.store, records.load(lab.store, lab.entry("derived.h5").id))
    assert skeleton is not None
    assert skeleton.retained_bytes < place.stat().st_size / 4
    content = lab.store.skeleton_path(reference.digest).read_bytes()
    assert raw[:64] not in content


def test_originals_set_aside_come_back_after_a_kill(lab: Lab) -> None:
    """A proof that is killed while the original is set aside loses nothing."""
    gate = lab.base / "gate"
    gate.touch()
    place = lab.derive(recipe="waits", gate=str(gate))
    before = sha256(place)
    gate.unlink()
    Path(f"{gate}.started").unlink()
    process = start(prove_aside, "derived.h5")
    wait_for(Path(f"{gate}.started"), process)
    assert not place.exists()
    process.kill()
    process.join()
    assert not place.exists()
    lab.cli("status")
    assert sha256(place) == before


def test_nobody_takes_the_path_of_an_original_set_aside(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the original is away, its entry is not moved, forgotten or written over."""
    place = lab.derive()
    before = sha256(place)
    monkeypatch.setattr(changes, "PATIENCE_S", 0.1)
    with set_aside(lab.store, lab.entry("derived.h5")):
        assert not place.exists()
        for attempt in (
            lambda: tree.move(lab.store, "derived.h5", "elsewhere.h5"),
            lambda: tree.forget(lab.store, "derived.h5"),
            lambda: fsspec.filesystem("recall").pipe_file("recall://lab/derived.h5", b"other"),
        ):
            with pytest.raises(ConflictError) as caught:
                attempt()
            assert caught.value.kind == "in-use"
    assert sha256(place) == before
    assert not lab.store.catalog.intents()
    tree.move(lab.store, "derived.h5", "elsewhere.h5")


def test_an_original_that_a_dead_proof_set_aside_is_moved_with_its_entry(lab: Lab) -> None:
    """Who had the store open when a proof was killed puts the original back before a change."""
    place = lab.derive()
    before = sha256(place)
    store = lab.store
    process = start(kill_while_aside, "derived.h5")
    process.join()
    assert not place.exists()
    tree.move(store, "derived.h5", "moved.h5")
    assert sha256(lab.root / "moved.h5") == before
    assert not list((store.control / "aside").iterdir())


def test_proof_survives_the_loss_of_the_store_s_skeleton(lab: Lab) -> None:
    """A released file comes back though the store's own skeleton is gone: the vault has one."""
    before = lab.released()
    shutil.rmtree(lab.store.control / "skeletons")
    lab.cli("get", "recall://lab/derived.h5")
    assert sha256(lab.root / "derived.h5") == before


def test_nan_payloads_and_negative_zero_come_back(lab: Lab) -> None:
    """Bit patterns that compare equal, or not even to themselves, come back as they were."""
    place = lab.root / "raw.h5"
    lab.write_raw()
    with h5py.File(place, "r+") as file:
        file["data"][0, :3] = np.array([np.nan, -0.0, np.inf])
    from recallfs.resolve.commit import add_existing

    add_existing(lab.store, ["raw.h5"])
    before = sha256(lab.derive())
    lab.prove()
    lab.release()
    lab.cli("get", "recall://lab/derived.h5")
    assert sha256(lab.root / "derived.h5") == before


def test_failed_recipe_is_no_proof(lab: Lab) -> None:
    """A recipe that fails at proof time gives its error, and no proof."""
    lab.derive(recipe="counted", count_file=str(lab.base / "count"), seconds=0.0)
    (lab.base / "count").unlink()
    (lab.base / "count").mkdir()
    with pytest.raises(RecallError) as caught:
        lab.prove()
    assert caught.value.kind == "recipe-failed"
    assert "IsADirectoryError" in str(caught.value)
