"""Beside libraries that the test tools cannot be installed with: NeuroConv, SpikeInterface."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from conftest import Lab, sha256
from recallfs.catalog import records
from recallfs.cli.demo.recording import write_recording
from recallfs.values import Level
from venvs import neighbours, recall, told_by_neighbours


@pytest.fixture(scope="module", name="neighbours")
def _neighbours() -> Path:
    return neighbours()


@pytest.mark.services
@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_neuroconv_and_zarr(tmp_path: Path, kind: str) -> None:
    """What NeuroConv configures is written alike by it and by us, as are our own settings."""
    found = json.loads(told_by_neighbours("backends", folder=tmp_path))[kind]
    assert set(found["by_us"]) >= {
        "processing/ecephys/LFP/lfp/data",
        "acquisition/t/timestamps",
        "units/spike_times",
        "units/spike_times_index",
    }
    assert found["by_us"] == found["by_neuroconv"]
    assert found["own"] == (
        ["gzip", 4, True] if kind == "hdf5" else ["gzip", 4, [{"id": "shuffle", "elementsize": 4}]]
    )
    assert found["values"] == "equal"


@pytest.mark.services
def test_recipes_for_recordings(tmp_path: Path) -> None:
    """Values are those of SciPy and NumPy, whatever the buffers; bad input is refused."""
    found = json.loads(told_by_neighbours("filters", folder=tmp_path))
    assert found["told"] == {
        "rate": 30_000.0,
        "filtering": "band-pass 300 to 6000 Hz",
        "conversion": 1.95e-7,
        "electrodes": 64,
        "y_of_last": 1260.0,
        "group": "shank0",
        "session": "2026-01-01 00:00:00+00:00",
    }
    assert found["rate_low"] == 1000.0
    assert found["bandpass"] < 1e-4  # of the signal's deviation, at the borders of blocks
    assert found["reference"] == 0
    assert found["decimate"] < 1e-3
    assert found["zeros"] is found["line"] is True
    assert found["steps_in_line"] < 30
    assert all(found["same_in_small_buffers"].values()), found["same_in_small_buffers"]
    assert found["refused"] == [
        "7000 Hz does not divide the recording's 30000 Hz; 7500 Hz would.",
        "1 of 1 times lie outside the recording, which lasts 2 s; times are in seconds after its "
        "first sample.",
        "there is no ElectricalSeries 'lfp'; there is ElectricalSeries.",
    ]
    assert not found["left_behind"]


@pytest.mark.services
def test_a_recording_comes_back_without_spikeinterface(neighbours: Path, lab: Lab) -> None:
    """Made and proved exact where SpikeInterface is, asked for where it is not: the same bytes."""
    write_recording(lab.root / "raw.nwb", 1)

    def run(*arguments: str) -> str:
        done = recall(neighbours, *arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    url = "recall://lab/low.nwb"
    run("add", "recall://lab/raw.nwb")
    run("run", "ephys.decimate", "-i", "raw=recall://lab/raw.nwb", "-o", url)
    before = sha256(lab.root / "low.nwb")
    run("prove", url, "--hide", "auto")
    (proof,) = records.load(lab.store, lab.entry("low.nwb").id).proofs
    assert (proof.level, proof.method) == (Level.EXACT, "direct")
    run("release", url, "--yes", "--hold", "0s", "--max-skeleton", "1.0")
    assert not (lab.root / "low.nwb").exists()
    assert importlib.util.find_spec("spikeinterface") is None
    lab.cli("get", url)
    assert sha256(lab.root / "low.nwb") == before


@pytest.mark.services
def test_demonstration_by_spikeinterface(neighbours: Path) -> None:
    """Where SpikeInterface is, the demonstration's LFP is made by it, and comes back exactly."""
    done = recall(neighbours, "demo", "--seconds", "2")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "recall run ephys.decimate: to 2.5 kHz by SpikeInterface" in done.stdout + done.stderr
    assert "the original, byte for byte" in done.stdout + done.stderr
