"""Levels below the exact one, end to end: proved, released, and brought back in another process."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import Lab, sha256
from recallfs.digest.hdf5 import content_digest
from recallfs.values import State, format_size


def made_elsewhere(lab: Lab) -> Path:
    """Adopt a file with a chunk by another compressor than its own properties say."""
    place = lab.derive("derived.h5")
    original = lab.root / "elsewhere.h5"
    shutil.copyfile(place, original)
    with h5py.File(original, "r+") as file:
        data = file["data"]
        file.attrs["object_id"] = "the original's own"
        first = np.ascontiguousarray(data[:500, :16])
        data.id.write_direct_chunk((0, 0), zlib.compress(first.tobytes(), 9))
    lab.cli(
        *("adopt", str(original), "--recipe", "double"),
        *("-i", "raw=recall://lab/raw.h5"),
    )
    return original


@pytest.mark.namespaces
def test_content_level(lab: Lab) -> None:
    """What cannot be compressed to the same bytes comes back with equal objects, ids included."""
    original = made_elsewhere(lab)
    before, content = sha256(original), content_digest(original)
    refused = lab.cli("prove", "recall://lab/elsewhere.h5", check=False)
    assert refused.returncode == 50
    assert "/data" in refused.stderr
    (proved,) = lab.cli_json("prove", "recall://lab/elsewhere.h5", "--level", "content")["proved"]
    assert (proved["level"], proved["method"]) == ("content", "anew")
    lab.release("elsewhere.h5")
    (back,) = lab.cli_json("get", "recall://lab/elsewhere.h5")["files"]
    assert (back["level"], back["method"]) == ("content", "anew")
    assert sha256(original) == back["sha256"] != before
    assert content_digest(original) == content
    with h5py.File(original) as file:
        assert file.attrs["object_id"] == "the original's own"
    # It is the entry's: resident, whole, and it can go and come again.
    assert lab.entry("elsewhere.h5").state is State.RESIDENT
    lab.cli("verify", "recall://lab/elsewhere.h5")
    assert (
        f"content, {format_size(back['size_bytes'])}"
        in lab.cli("show", "recall://lab/elsewhere.h5").stdout
    )
    lab.release("elsewhere.h5")
    (back,) = lab.cli_json("get", "recall://lab/elsewhere.h5")["files"]
    assert (back["level"], back["sha256"]) == ("content", sha256(original))


@pytest.mark.namespaces
def test_store_that_wants_exact_bytes(lab: Lab) -> None:
    """A store's own level limits what is released, and what is recalled."""
    made_elsewhere(lab)
    lab.cli("prove", "recall://lab/elsewhere.h5", "--level", "content")
    configured = lab.config.read_text()
    lab.config.write_text(configured.replace("[recipes]", 'level = "exact"\n\n[recipes]', 1))
    refused = lab.cli("release", "recall://lab/elsewhere.h5", check=False)
    assert "no valid proof" in refused.stdout + refused.stderr
    lab.config.write_text(configured)
    lab.release("elsewhere.h5")
    lab.config.write_text(configured.replace("[recipes]", 'level = "exact"\n\n[recipes]', 1))
    refused = lab.cli("get", "recall://lab/elsewhere.h5", check=False)
    assert refused.returncode == 50
    assert not (lab.root / "elsewhere.h5").exists()


def noisy(lab: Lab, tmp_path: Path) -> tuple[Path, Path]:
    """Make a file whose last bits depend on what a file says."""
    cpu = tmp_path / "cpu"
    cpu.write_text("one")
    place = lab.derive("noisy.h5", "noisy", cpu_file=str(cpu), rows=2000)
    return place, cpu


@pytest.mark.namespaces
def test_tolerance_level(lab: Lab, tmp_path: Path) -> None:
    """Numbers that are near enough come back as they were proved, and never otherwise."""
    place, cpu = noisy(lab, tmp_path)
    with h5py.File(place) as file:
        numbers, identifier = file["lfp/data"][:], file.attrs["object_id"]
    cpu.write_text("another")
    near = ("--level", "tolerance", "--atol", "1e-10", "--max-residual", "0")
    too_near = lab.cli(
        *("prove", "recall://lab/noisy.h5", "--level", "tolerance", "--atol", "1e-16"),
        *("--max-residual", "0"),
        check=False,
    )
    assert "is different too: /lfp/data" in too_near.stderr
    (proved,) = lab.cli_json("prove", "recall://lab/noisy.h5", *near)["proved"]
    assert (proved["level"], proved["method"]) == ("tolerance", "anew")
    lab.release("noisy.h5")
    # A third computer: near the original too, but not what was proved.
    cpu.write_text("the third one")
    refused = lab.cli("get", "recall://lab/noisy.h5", check=False)
    assert "not the content that was proved" in refused.stderr
    assert not place.exists()
    cpu.write_text("another")
    (back,) = lab.cli_json("get", "recall://lab/noisy.h5")["files"]
    assert back["level"] == "tolerance"
    with h5py.File(place) as file:
        assert file.attrs["object_id"] == identifier
        assert not np.array_equal(file["lfp/data"][:], numbers)
        np.testing.assert_allclose(file["lfp/data"][:], numbers, rtol=0, atol=1e-10)


@pytest.mark.namespaces
def test_recipe_that_drifts_within_the_tolerance(lab: Lab, tmp_path: Path) -> None:
    """Two runs that are both near enough, but not the same, prove nothing."""
    _, cpu = noisy(lab, tmp_path)
    cpu.write_text("another each time")
    refused = lab.cli(
        *("prove", "recall://lab/noisy.h5", "--level", "tolerance", "--atol", "1e-10"),
        *("--max-residual", "0"),
        check=False,
    )
    assert refused.returncode == 54
    assert "in two runs in one environment" in refused.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--level", "near"), "near"),
        (("--atol", "1e-9"), "--level tolerance"),
        (("--level", "tolerance", "--rtol", "nan"), "write numbers"),
        (("--level", "tolerance", "--atol", "-1"), "write numbers"),
    ],
)
def test_bad_input(lab: Lab, options: tuple[str, ...], said: str) -> None:
    """What makes no sense is refused with one sentence, and nothing is run."""
    lab.derive()
    done = lab.cli("prove", "recall://lab/derived.h5", *options, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
