"""HDF5's own h5repack lays files out anew: to recallfs they hold what they held."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hdf5_files import Layout, everything
from processes import run_cli
from recallfs.digest.difference import compare_files
from recallfs.digest.hdf5 import content_digest

pytestmark = pytest.mark.services

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "nwb"


def _everything(path: Path) -> None:
    content = everything()
    # h5repack 1.10 asks for chunks of no elements, and fails; asked for contiguous data it gives
    # an element to a dataset without any space, which is another content.
    left_out = {"n/empty", "n/null"}
    arrays = {name: value for name, value in content.arrays.items() if name not in left_out}
    content.changed(arrays=arrays).write(path, Layout(chunk=4, gzip=9, shuffle=True))


def _recording(path: Path) -> None:
    """Write what most of an NWB file is: long series, compressed."""
    rng = np.random.default_rng(3)
    with h5py.File(path, "w") as file:
        for name in ("a", "b/c"):
            values = np.cumsum(rng.integers(-9, 10, (3000, 8)), axis=0, dtype="i2")
            made = file.create_dataset(name, values.shape, "i2", chunks=(500, 8), compression=4)
            made[...] = values
        file["times"] = np.arange(3000) / 1250


GENERATED = {"everything": _everything, "recording": _recording}

FILES = [*GENERATED, *sorted(path.name for path in SAMPLES.glob("*.nwb"))]


def _chunked(path: Path) -> list[str]:
    """Ask for chunks of another shape for each dataset that can have them."""
    asked: list[str] = []

    def ask(name: str, found: object) -> None:
        if isinstance(found, h5py.Dataset) and found.shape and 0 not in found.shape:
            shape = "x".join(str(max(1, (n + 1) // 2)) for n in found.shape)
            asked.extend(("-l", f"/{name}:CHUNK={shape}"))

    with h5py.File(path) as file:
        file.visititems(ask)
    return asked


REPACKINGS: dict[str, Callable[[Path], list[str]]] = {
    "gzip": lambda _: ["-f", "GZIP=7"],
    "none": lambda _: ["-f", "NONE"],
    "contiguous": lambda _: ["-f", "NONE", "-l", "CONTI"],
    "other chunks": _chunked,
    "latest": lambda _: ["-L", "-f", "SHUF", "-f", "GZIP=1"],
}


def test_the_sample_files_are_there() -> None:
    """What is repacked below includes real files, not only generated ones."""
    if not SAMPLES.is_dir():
        pytest.skip(f"the folder {SAMPLES} is not there: NO REAL FILE IS REPACKED")
    assert len(FILES) > len(GENERATED)


@pytest.mark.parametrize("name", FILES)
def test_repacked_files_hold_the_same(tmp_path: Path, name: str) -> None:
    """Compressed, not compressed, chunked otherwise, contiguous, newest format: one digest each."""
    original = tmp_path / "original.h5"
    if name in GENERATED:
        GENERATED[name](original)
    else:
        shutil.copyfile(SAMPLES / name, original)
    digest = content_digest(original).digest
    for how, arguments in REPACKINGS.items():
        repacked = tmp_path / f"{how}.h5"
        done = subprocess.run(
            ["h5repack", *arguments(original), original, repacked],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (how, done.stderr)
        assert repacked.read_bytes() != original.read_bytes(), how
        assert content_digest(repacked).digest == digest, how
        assert compare_files(original, repacked).verdict == "same content, other layout", how


def test_the_command_says_so_too(tmp_path: Path) -> None:
    """`recall diff` calls it the same content in another layout, with exit code 0."""
    _recording(tmp_path / "a.h5")
    subprocess.run(["h5repack", "-f", "GZIP=9", tmp_path / "a.h5", tmp_path / "b.h5"], check=True)
    done = run_cli(("diff", str(tmp_path / "a.h5"), str(tmp_path / "b.h5"), "--json"), os.environ)
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["verdict"] == "same content, other layout"
