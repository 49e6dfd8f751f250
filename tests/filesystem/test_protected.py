"""What no change of the tree may drop: released files, pinned ones, and inputs of released ones."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from conftest import Lab, sha256
from mirrored import released_file
from recallfs.errors import ConflictError
from recallfs.filesystem import RecallFileSystem
from recallfs.release.pins import set_pin


def test_exclusive_at_a_released_path_is_refused(lab: Lab, fs: RecallFileSystem) -> None:
    """A released file exists: nothing is made in its place."""
    released_file(lab, "far.bin")
    with pytest.raises(ConflictError):
        fs.open("lab/far.bin", "xb")


def test_writing_over_a_released_file_is_refused(lab: Lab, fs: RecallFileSystem) -> None:
    """What can come back is not given up by writing to its path; it still comes back."""
    before = released_file(lab, "far.bin", hold="7d")
    with pytest.raises(ConflictError, match="is released"):
        fs.pipe("lab/far.bin", b"new")
    assert list((lab.store.control / "trash").iterdir())
    assert hashlib.sha256(fs.cat("lab/far.bin")).hexdigest() == before


@pytest.mark.parametrize("change", ["rm", "wb", "ab", "mv", "cp", "pipe", "touch"])
def test_pinned_file_is_not_replaced(lab: Lab, fs: RecallFileSystem, change: str) -> None:
    """Nothing that would drop or replace a pinned file is done."""
    fs.pipe("lab/x", b"pinned")
    fs.pipe("lab/y", b"other")
    set_pin(lab.store, lab.entry("x"), True, "shown on a poster")
    changes: dict[str, tuple[Any, ...]] = {
        "wb": (fs.open, "lab/x", "wb"),
        "ab": (fs.open, "lab/x", "ab"),
        "pipe": (fs.pipe, "lab/x", b"new"),
        "rm": (fs.rm, "lab/x"),
        "touch": (fs.touch, "lab/x"),
        "mv": (fs.mv, "lab/y", "lab/x"),
        "cp": (fs.cp, "lab/y", "lab/x"),
    }
    action, *arguments = changes[change]
    with pytest.raises(ConflictError, match="shown on a poster") as caught:
        action(*arguments)
    assert caught.value.kind == "pinned"
    assert fs.cat(["lab/x", "lab/y"]) == {"lab/x": b"pinned", "lab/y": b"other"}
    assert not lab.staged


def test_pin_set_while_writing_counts(lab: Lab, fs: RecallFileSystem) -> None:
    """A pin that is set between opening and closing still protects the file."""
    fs.pipe("lab/x", b"pinned")
    file = fs.open("lab/x", "wb")
    file.write(b"new")
    set_pin(lab.store, lab.entry("x"), True, "")
    with pytest.raises(ConflictError):
        file.close()
    assert fs.cat("lab/x") == b"pinned"


def test_input_of_a_released_file_is_kept(lab: Lab, fs: RecallFileSystem) -> None:
    """What a released file is made from is neither removed nor replaced, and may be moved."""
    digest = lab.released()
    before = sha256(lab.root / "raw.h5")
    for change in (
        lambda: fs.rm("lab/raw.h5"),
        lambda: fs.pipe("lab/raw.h5", b"new"),
        lambda: fs.rm("lab", recursive=True),
    ):
        with pytest.raises(ConflictError) as caught:
            change()
        assert caught.value.kind == "relied-on"
    assert sha256(lab.root / "raw.h5") == before
    fs.mv("lab/raw.h5", "lab/raw/moved.h5")
    fs.mv("lab/derived.h5", "lab/moved.h5")
    with fs.open("lab/moved.h5") as file:
        assert hashlib.sha256(file.read()).hexdigest() == digest
