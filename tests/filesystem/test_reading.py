"""Reading: a released file comes back by it, whole, in parts and as text."""

from __future__ import annotations

import os

import fsspec
import pytest

from conftest import Lab, sha256
from mirrored import CONTENT, configure_mirror, released_file
from recallfs.filesystem import RecallFileSystem
from recallfs.resolve.commit import add_existing


@pytest.mark.parametrize("way", ["open", "cat", "url", "local", "get", "head"])
def test_opening_brings_the_original_back(lab: Lab, fs: RecallFileSystem, way: str) -> None:
    """Each way of reading a released file recalls it byte for byte to its path."""
    digest = released_file(lab, "far.bin")
    target = lab.base / "out.bin"
    if way == "open":
        with fs.open("lab/far.bin") as file:
            assert file.read() == CONTENT
    elif way == "cat":
        assert fs.cat_file("lab/far.bin", 12, -12) == CONTENT[12:-12]
    elif way == "url":
        with fsspec.open("recall://lab/far.bin", "rb") as file:
            assert file.read() == CONTENT
    elif way == "local":
        assert fsspec.open_local("recall://lab/far.bin") == str(lab.root / "far.bin")
    elif way == "get":
        fs.get("lab/far.bin", str(target))
        assert target.read_bytes() == CONTENT
    else:
        assert fs.head("lab/far.bin", 5) == CONTENT[:5]
    assert sha256(lab.root / "far.bin") == digest
    assert fs.info("lab/far.bin")["state"] == "resident"


def test_recall_restores_mode_and_time(lab: Lab, fs: RecallFileSystem) -> None:
    """A file comes back with the permission bits and the time that it had."""
    place = lab.root / "far.bin"
    place.write_bytes(CONTENT)
    place.chmod(0o640)
    os.utime(place, ns=(10**18, 10**18 + 7))
    add_existing(lab.store, ["far.bin"])
    identifier = lab.entry("far.bin").id
    copy = configure_mirror(lab) / "far.bin"
    copy.write_bytes(CONTENT)
    place.unlink()
    assert fs.cat("lab/far.bin") == CONTENT
    status = place.stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, 10**18 + 7)
    assert lab.entry("far.bin").id == identifier


@pytest.mark.parametrize(
    ("start", "end"), [(0, 5), (3, None), (-4, None), (None, -3), (5, 2), (90, 99), (-99, 4)]
)
def test_ranges_are_those_of_slices(
    fs: RecallFileSystem, start: int | None, end: int | None
) -> None:
    """`cat_file` takes a range as a Python slice does."""
    fs.pipe("lab/ten", b"0123456789")
    assert fs.cat_file("lab/ten", start, end) == b"0123456789"[start:end]


def test_parts_of_files(lab: Lab, fs: RecallFileSystem) -> None:
    """Heads, tails, blocks and ranges are those of the bytes, of a released file too."""
    released_file(lab, "far.bin", b"0123456789")
    assert fs.tail("lab/far.bin", 3) == b"789"
    assert fs.tail("lab/far.bin", 0) == b""
    assert fs.tail("lab/far.bin", 99) == b"0123456789"
    assert fs.head("lab/far.bin", 2) == b"01"
    assert fs.read_block("lab/far.bin", 2, 3) == b"234"
    assert fs.read_block("lab/far.bin", 8, None) == b"89"
    assert fs.cat_ranges(["lab/far.bin"] * 2, [0, -2], [1, None]) == [b"0", b"89"]
    fs.pipe("lab/lines", b"a\nb\nc\n")
    assert fs.read_block("lab/lines", 1, 2, delimiter=b"\n") == b"b\n"
    answers = fs.cat_ranges(["lab/lines", "lab/none"], 0, 2, on_error="return")
    assert answers[0] == b"a\n"
    assert isinstance(answers[1], FileNotFoundError)
    assert fs.cat(["lab/lines", "lab/none"], on_error="omit") == {"lab/lines": b"a\nb\nc\n"}
    with pytest.raises(FileNotFoundError):
        fs.cat(["lab/lines", "lab/none"])


def test_open_file_says_what_it_is(lab: Lab, fs: RecallFileSystem) -> None:
    """An open file is a native one, with a descriptor, and knows its size and path."""
    fs.pipe("lab/x", b"0123")
    with fs.open("lab/x") as file:
        assert (file.size, file.path, file.fs) == (4, "lab/x", fs)
        assert os.fstat(file.fileno()).st_ino == (lab.root / "x").stat().st_ino
        assert not file.closed
    assert file.closed


def test_text_is_read_line_by_line(fs: RecallFileSystem) -> None:
    """Text mode decodes and splits lines."""
    fs.pipe("lab/t", "é1\né2\n".encode())
    with fs.open("lab/t", "r", encoding="utf-8") as file:
        assert list(file) == ["é1\n", "é2\n"]


@pytest.mark.parametrize(
    ("encoding", "newline"), [("utf-8", None), ("utf-16-le", ""), ("latin-1", "\n")]
)
def test_text_keeps_its_encoding(fs: RecallFileSystem, encoding: str, newline: str | None) -> None:
    """Text is written and read in the encoding that is asked for."""
    with fs.open("lab/t", "w", encoding=encoding, newline=newline) as file:
        file.write("é\nü")
    assert fs.cat("lab/t").decode(encoding) == "é\nü"
    with fs.open("lab/t", "rt", encoding=encoding, newline=newline) as file:
        assert file.read() == "é\nü"


def test_signing_is_not_there(fs: RecallFileSystem) -> None:
    """There are no links that others could use, and that is said."""
    with pytest.raises(NotImplementedError, match="not implemented"):
        fs.sign("lab/x")
