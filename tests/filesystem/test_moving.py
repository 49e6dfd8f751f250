"""Moving, copying and removing: within a store, into it and out of it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from fsspec.callbacks import Callback

from conftest import Lab, sha256
from mirrored import CONTENT, released_file
from recallfs.errors import ConflictError, InvalidInputError
from recallfs.filesystem import RecallFileSystem


class Counting(Callback):  # type: ignore[misc] # fsspec is untyped
    """Counts what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = 0

    def relative_update(self, inc: int = 1) -> None:
        """Add what was done since the last call."""
        self.counted += inc


def test_move_keeps_a_released_file_recallable(lab: Lab, fs: RecallFileSystem) -> None:
    """A released file moves without being brought back, and comes back under its new name."""
    digest = released_file(lab, "far.bin")
    fs.mv("lab/far.bin", "lab/sub/near.bin")
    assert not fs.exists("lab/far.bin")
    assert fs.info("lab/sub/near.bin")["state"] == "released"
    assert fs.cat("lab/sub/near.bin") == CONTENT
    assert sha256(lab.root / "sub/near.bin") == digest


def test_folder_moves_without_recalling(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder moves with its released, resident and plain files; nothing is brought back."""
    released_file(lab, "old/deep/far.bin")
    fs.pipe("lab/old/here", b"1")
    (lab.root / "old/plain").write_bytes(b"2")
    identifier = lab.entry("old/deep/far.bin").id
    fs.mv("lab/old", "lab/new", recursive=True)
    assert fs.find("lab") == ["lab/new/deep/far.bin", "lab/new/here", "lab/new/plain"]
    assert fs.info("lab/new/deep/far.bin")["state"] == "released"
    assert lab.entry("new/deep/far.bin").id == identifier
    assert not (lab.root / "old").exists()
    assert fs.cat("lab/new/deep/far.bin") == CONTENT


def test_move_into_a_folder_and_over_a_file(lab: Lab, fs: RecallFileSystem) -> None:
    """Moving goes into a folder that is there, and over a file that is there, as `mv` does."""
    fs.pipe("lab/a", b"a")
    fs.mkdir("lab/folder")
    fs.mv("lab/a", "lab/folder")
    assert fs.cat("lab/folder/a") == b"a"
    fs.pipe("lab/b", b"b")
    fs.mv("lab/b", "lab/folder/a")
    assert fs.find("lab") == ["lab/folder/a"]
    assert fs.cat("lab/folder/a") == b"b"
    fs.mv("lab/folder/a", "lab/folder/a")
    assert fs.cat("lab/folder/a") == b"b"


def test_moving_nothing_onto_a_file_loses_nothing(lab: Lab, fs: RecallFileSystem) -> None:
    """A source that does not exist is an error before the target is touched."""
    fs.pipe("lab/keep", b"1")
    with pytest.raises(FileNotFoundError):
        fs.mv("lab/nothing", "lab/keep")
    assert fs.cat("lab/keep") == b"1"


def test_copy_of_a_released_file(lab: Lab, fs: RecallFileSystem) -> None:
    """A copy is a file of its own with the same bytes."""
    digest = released_file(lab, "far.bin")
    fs.cp("lab/far.bin", "lab/copy.bin")
    assert sha256(lab.root / "copy.bin") == digest
    assert lab.entry("copy.bin").id != lab.entry("far.bin").id


def test_put_and_get_of_whole_folders(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder goes in and comes out again whole, released files included."""
    source = lab.base / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_bytes(b"a")
    (source / "sub/b").write_bytes(CONTENT)
    fs.put(str(source), "lab/", recursive=True)
    assert fs.find("lab") == ["lab/source/a", "lab/source/sub/b"]
    released_file(lab, "source/sub/b")
    fs.get("lab/source", str(lab.base / "out"), recursive=True)
    assert (lab.base / "out/a").read_bytes() == b"a"
    assert (lab.base / "out/sub/b").read_bytes() == CONTENT


def test_callbacks_count_every_byte(lab: Lab, fs: RecallFileSystem) -> None:
    """Copying in and out tells the size and each byte once."""
    source = lab.base / "in.bin"
    source.write_bytes(CONTENT)
    copies: list[tuple[Any, str, str]] = [
        (fs.put_file, str(source), "lab/x"),
        (fs.get_file, "lab/x", str(lab.base / "out")),
    ]
    for copy, old, new in copies:
        callback = Counting()
        copy(old, new, callback=callback)
        assert (callback.size, callback.counted) == (len(CONTENT), len(CONTENT))
    buffer = io.BytesIO()
    fs.get_file("lab/x", buffer)
    assert buffer.getvalue() == CONTENT


def test_remove_forgets_for_good(lab: Lab, fs: RecallFileSystem) -> None:
    """Removed files are gone from tree and catalog, released ones and whole folders too."""
    released_file(lab, "old/far.bin", hold="7d")
    fs.pipe("lab/old/here", b"1")
    (lab.root / "plain").write_bytes(b"2")
    fs.rm("lab/plain")
    fs.rm("lab/old", recursive=True)
    assert fs.ls("lab") == []
    assert not list((lab.store.control / "trash").iterdir())
    with pytest.raises(FileNotFoundError):
        fs.rm("lab/old/here")


def test_remove_of_a_folder_that_is_on_record_only(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder that holds released files and is not on the disk can be removed."""
    released_file(lab, "old/far.bin")
    (lab.root / "old").rmdir()
    fs.rm("lab/old", recursive=True)
    assert not fs.exists("lab/old")


def test_full_folder_and_root_are_not_removed(fs: RecallFileSystem) -> None:
    """`rmdir` removes empty folders only, and never a store's root."""
    fs.pipe("lab/a/b", b"1")
    with pytest.raises(ConflictError):
        fs.rmdir("lab/a")
    with pytest.raises(InvalidInputError):
        fs.rmdir("lab")
    assert fs.cat("lab/a/b") == b"1"
