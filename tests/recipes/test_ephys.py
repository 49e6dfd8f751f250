"""The recipes for recordings, where SpikeInterface is not installed; elsewhere: test_neighbours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recallfs.errors import EnvironmentMismatchError
from recallfs.recipes import ephys
from recallfs.recipes.model import recipe_of, validate_parameters
from recallfs.recipes.registry import find_recipe


def test_the_recipes_are_registered() -> None:
    """They are found by name, with parameters of their own and a backend each."""
    for name in ("bandpass", "reference", "decimate", "artifacts"):
        recipe = find_recipe(f"ephys.{name}")
        assert recipe is recipe_of(getattr(ephys, name))
        given = {"times_s": [1]} if name == "artifacts" else {}
        parameters = validate_parameters(recipe, given)
        assert parameters["backend"]["options"] == {"level": 4}
    assert parameters["times_s"] == [1.0]


def test_listing_loads_no_library() -> None:
    """Neither SpikeInterface nor what reads files is imported with the recipes."""
    code = (
        "import sys, recallfs.recipes.ephys\n"
        "heavy = {'spikeinterface', 'pynwb', 'hdmf', 'h5py', 'scipy', 'numpy', 'zarr'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_spikeinterface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run says what is missing, where, and how to get it; nothing is written."""
    monkeypatch.setitem(sys.modules, "spikeinterface", None)
    with pytest.raises(EnvironmentMismatchError, match=r"pip install 'recallfs\[ephys\]'"):
        ephys.bandpass({"raw": tmp_path / "raw.nwb"}, tmp_path / "out.nwb")
    assert not list(tmp_path.iterdir())
