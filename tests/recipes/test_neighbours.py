"""Beside libraries that the test tools cannot be installed with: NeuroConv and hdmf-zarr."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import TESTS


@pytest.fixture(scope="module")
def neighbours() -> Path:
    """Return the interpreter of an environment that has these libraries."""
    script = TESTS.parent / "scripts" / "neighbours"
    made = subprocess.run([script], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip())


def told(python: Path, script: str, folder: Path) -> Any:
    """Run a script of tests/neighbours in a folder and return the JSON it prints last."""
    done = subprocess.run(
        [python, "-W", "ignore", TESTS / "neighbours" / script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.services
@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_neuroconv_and_zarr(neighbours: Path, tmp_path: Path, kind: str) -> None:
    """What NeuroConv configures is written alike by it and by us, as are our own settings."""
    found = told(neighbours, "backends.py", tmp_path)[kind]
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
