"""What others did to the tree: strangers, changed, touched and plain files."""

from __future__ import annotations

import hashlib
import os

import pytest

from conftest import Lab
from mirrored import CONTENT, released_file
from recallfs.errors import ConflictError
from recallfs.filesystem import RecallFileSystem
from recallfs.resolve.commit import add_existing
from recallfs.resolve.tree import needs_adding
from recallfs.values import State


def test_stranger_at_a_released_path(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that somebody made at a released path is kept, and so is the way to the original."""
    digest = released_file(lab, "far.bin")
    (lab.root / "far.bin").write_bytes(b"somebody's")
    with pytest.raises(ConflictError) as caught:
        fs.open("lab/far.bin")
    assert caught.value.kind == "conflict"
    assert "sha256" not in fs.info("lab/far.bin")
    with pytest.raises(ConflictError):
        needs_adding(lab.store, "far.bin")
    assert (lab.root / "far.bin").read_bytes() == b"somebody's"
    (lab.root / "far.bin").rename(lab.root / "theirs.bin")
    assert hashlib.sha256(fs.cat("lab/far.bin")).hexdigest() == digest
    assert fs.cat("lab/theirs.bin") == b"somebody's"


def test_original_put_back_by_hand(lab: Lab, fs: RecallFileSystem) -> None:
    """The recorded bytes at a released path, wherever they came from, end the release."""
    released_file(lab, "far.bin")
    (lab.root / "far.bin").write_bytes(CONTENT)
    assert fs.cat("lab/far.bin") == CONTENT
    assert lab.entry("far.bin").state is State.RESIDENT


def test_changed_file_is_dirty_until_added(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that was changed behind our back is refused until it is accepted as it is."""
    fs.pipe("lab/x", b"recorded")
    (lab.root / "x").write_bytes(b"changed!")
    with pytest.raises(ConflictError, match="recall add") as caught:
        fs.open("lab/x")
    assert caught.value.kind == "dirty"
    assert (lab.root / "x").read_bytes() == b"changed!"
    assert needs_adding(lab.store, "x")
    add_existing(lab.store, ["x"])
    assert fs.cat("lab/x") == b"changed!"
    assert fs.info("lab/x")["sha256"] == hashlib.sha256(b"changed!").hexdigest()


def test_changed_file_has_no_known_state(lab: Lab, fs: RecallFileSystem) -> None:
    """After a file was written behind our back its state is unknown until it is looked at."""
    fs.pipe("lab/x", b"recorded")
    before = fs.ukey("lab/x"), fs.checksum("lab/x")
    (lab.root / "x").write_bytes(b"changed")
    info = fs.info("lab/x")
    assert (info["state"], info["size"]) == ("unknown", 7)
    assert "sha256" not in info
    assert fs.ls("lab")[0]["state"] == "unknown"
    assert before[0] != fs.ukey("lab/x")
    assert before[1] != fs.checksum("lab/x")
    (lab.root / "x").write_bytes(b"recorded")
    assert fs.cat("lab/x") == b"recorded"
    assert fs.info("lab/x")["state"] == "resident"
    released_file(lab, "far.bin")
    (lab.root / "far.bin").write_bytes(b"somebody's")
    assert fs.info("lab/far.bin")["state"] == "unknown"
    (lab.root / "far.bin").unlink()
    (lab.root / "x").unlink()
    assert {item["name"]: item["state"] for item in fs.ls("lab")} == {
        "lab/far.bin": "released",
        "lab/x": "missing",
    }


def test_touched_file_is_not_dirty(lab: Lab, fs: RecallFileSystem) -> None:
    """A file whose time was changed but not its bytes is read as before."""
    fs.pipe("lab/x", b"recorded")
    os.utime(lab.root / "x", (1, 1))
    assert fs.cat("lab/x") == b"recorded"
    assert not needs_adding(lab.store, "x")


def test_plain_files_are_read_and_replaced(lab: Lab, fs: RecallFileSystem) -> None:
    """Files of the tree that are in no catalog behave as files do."""
    (lab.root / "plain").write_bytes(b"1")
    assert fs.cat("lab/plain") == b"1"
    assert "sha256" not in fs.info("lab/plain")
    assert fs.created("lab/plain").tzinfo is not None
    fs.pipe("lab/plain", b"22")
    assert fs.info("lab/plain")["size"] == 2
    assert fs.modified("lab/plain").timestamp() == pytest.approx(
        (lab.root / "plain").stat().st_mtime, abs=1e-3
    )
