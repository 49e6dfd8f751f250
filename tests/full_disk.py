"""The story of a full disk, told in a mount namespace of its own (see test_full_disk.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest

from conftest import TESTS, sha256
from recallfs.cli.app import main
from recallfs.errors import SourceError

MEGABYTE = 1024 * 1024


def fill(root: Path, leave: int) -> Path:
    """Fill the disk up to `leave` bytes."""
    filler = root / "filler"
    space = os.statvfs(root)
    with filler.open("wb") as file:
        file.write(b"\0" * max(0, space.f_bavail * space.f_frsize - leave))
    return filler


def _prove_on_a_small_scratch_disk(base: Path) -> None:
    """Prove where the scratch disk is too small: it stops, and leaves nothing there."""
    scratch = base / "scratch"
    scratch.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(scratch)], check=True)
    words = ["prove", "recall://lab", "--again", "--hide", "auto", "--scratch", str(scratch)]
    assert main(words) == 33
    assert list(scratch.iterdir()) == []


def tell(base: Path) -> None:
    """Go through it step by step; any surprise is an AssertionError."""
    root = base / "lab"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(root)], check=True)
    config = base / "config.toml"
    config.write_text(f'[recipes]\nmodules = ["lab_recipes"]\npaths = ["{TESTS}"]\n')
    os.environ["RECALLFS_CONFIG"] = str(config)
    assert main(["init", str(root), "--name", "lab", "--vault", str(base / "vault")]) == 0
    with h5py.File(root / "raw.h5", "w") as file:
        file["data"] = np.random.default_rng(0).normal(size=(20000, 16))
    assert main(["add", str(root / "raw.h5")]) == 0
    derived = root / "derived.h5"
    run = ["run", "double", "-i", "raw=recall://lab/raw.h5", "-p", "rows=20000", "-o"]
    assert main([*run, "recall://lab/derived.h5"]) == 0
    before = sha256(derived)
    assert main(["prove", "recall://lab/derived.h5", "--hide", "auto"]) == 0
    _prove_on_a_small_scratch_disk(base)
    assert main(["release", "recall://lab/derived.h5", "--yes", "--hold", "0s"]) == 0
    assert not derived.exists()

    for leave in (MEGABYTE, 3 * MEGABYTE):
        filler = fill(root, leave)
        assert main(["get", "recall://lab/derived.h5"]) == 33
        assert not derived.exists()
        assert list((root / ".recall" / "staging").iterdir()) == []
        if leave == MEGABYTE:
            assert main([*run, "recall://lab/other.h5", "-p", "factor=3.0"]) == 33
            assert not (root / "other.h5").exists()
        _write_through_the_filesystem(root)
        filler.unlink()

    assert main(["get", "recall://lab/derived.h5"]) == 0
    assert sha256(derived) == before


def _write_through_the_filesystem(root: Path) -> None:
    with pytest.raises(SourceError) as caught:
        _write_megabytes("recall://lab/written.bin", 8)
    assert caught.value.kind == "no-space"
    assert not (root / "written.bin").exists()
    assert list((root / ".recall" / "staging").iterdir()) == []


def _write_megabytes(url: str, count: int) -> None:
    with fsspec.open(url, "wb") as file:
        for _ in range(count):
            file.write(os.urandom(MEGABYTE))


if __name__ == "__main__":
    tell(Path(sys.argv[1]))
