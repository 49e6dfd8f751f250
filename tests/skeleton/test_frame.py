"""Writing what a skeleton retains."""

from __future__ import annotations

import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from recallfs.errors import ConflictError
from recallfs.skeleton.frame import materialise, new_file


def test_a_frame_shows_everything_but_the_bulk(
    tmp_path: Path,
    writing: Callable[..., AbstractContextManager[h5py.File]],
    release: Callable[..., Any],
) -> None:
    """Attributes, names, small and variable-length data are there; the bulk is a hole."""
    with writing("a.h5") as file:
        file["group/bulk"] = np.arange(300_000, dtype="f8")
        file["group/bulk"].attrs["unit"] = "volt"
        file["group/text"] = ["one", "two"]
    materialise(release(tmp_path / "a.h5").skeleton, tmp_path / "frame.h5")
    with h5py.File(tmp_path / "frame.h5") as file:
        assert file["group/bulk"].attrs["unit"] == "volt"
        assert file["group/text"].asstr()[1] == "two"
        assert file["group/bulk"].shape == (300_000,)
        assert not file["group/bulk"][()].any()
    status = (tmp_path / "frame.h5").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_blocks * 512 < 100_000 < status.st_size


def test_a_new_file_never_replaces_another(tmp_path: Path) -> None:
    """What exists, even a dangling link, is left as it is."""
    (tmp_path / "a").write_text("mine")
    (tmp_path / "b").symlink_to("nowhere")
    for name in "ab":
        with pytest.raises(ConflictError), new_file(tmp_path / name):
            pass
    assert (tmp_path / "a").read_text() == "mine"
    assert (tmp_path / "b").is_symlink()


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    """Whatever goes wrong in the block, an interrupt too, the new file goes."""
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "a"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
