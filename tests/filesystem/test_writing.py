"""Writing: a file appears whole and on record when it is closed, or not at all."""

from __future__ import annotations

import gc
import hashlib
import os
from typing import Any

import fsspec
import pytest

from conftest import Lab
from mirrored import CONTENT, released_file
from recallfs.errors import ConflictError, InvalidInputError
from recallfs.filesystem import RecallFileSystem


def test_written_bytes_are_recorded_with_true_digests(lab: Lab, fs: RecallFileSystem) -> None:
    """The digests on record are those that hashlib gives."""
    pieces = [os.urandom(n) for n in (1, 4 * 1024 * 1024 - 1, 70_000, 0, 13)]
    with fs.open("lab/sub/new.bin", "wb") as file:
        for piece in pieces:
            file.write(bytearray(piece))
        assert file.tell() == sum(map(len, pieces))
        assert not fs.exists("lab/sub/new.bin")
    content = b"".join(pieces)
    entry = lab.entry("sub/new.bin")
    assert (lab.root / "sub/new.bin").read_bytes() == content
    assert entry.sha256 == hashlib.sha256(content).hexdigest()
    assert entry.sha1 == hashlib.sha1(content, usedforsecurity=False).hexdigest()
    assert entry.size_bytes == len(content)
    assert fs.ukey("lab/sub/new.bin") == entry.sha256


def test_digests_are_of_what_was_written_not_of_what_the_buffer_became(
    lab: Lab, fs: RecallFileSystem
) -> None:
    """A caller that reuses its buffer does not change what was hashed."""
    buffer = bytearray(b"a" * 100_000)
    with fs.open("lab/x", "wb") as file:
        file.write(buffer)
        buffer[:] = b"b" * 100_000
        file.write(buffer)
    expected = b"a" * 100_000 + b"b" * 100_000
    assert (lab.root / "x").read_bytes() == expected
    assert lab.entry("x").sha256 == hashlib.sha256(expected).hexdigest()


def _write_with_filesystem(fs: RecallFileSystem, mode: str) -> None:
    with fs.open("lab/x", mode) as file:
        file.write("new" if mode == "w" else b"new")
        raise KeyError


def _write_with_url(fs: RecallFileSystem, mode: str) -> None:
    with fsspec.open("recall://lab/x", mode) as file:
        file.write("new" if mode == "w" else b"new")
        raise KeyError


def _write_compressed(fs: RecallFileSystem, mode: str) -> None:
    with fsspec.open("recall://lab/x", mode, compression="gzip") as file:
        file.write("new" if mode == "w" else b"new")
        raise KeyError


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("mode", ["wb", "w"])
@pytest.mark.parametrize(
    "write", [_write_with_filesystem, _write_with_url, _write_compressed], ids=lambda f: f.__name__
)
def test_error_inside_with_leaves_what_was(
    lab: Lab, fs: RecallFileSystem, before: bytes | None, mode: str, write: Any
) -> None:
    """A block that is left by an exception writes nothing, however the file was opened."""
    if before is not None:
        fs.pipe("lab/x", before)
    with pytest.raises(KeyError):
        write(fs, mode)
    assert (fs.cat("lab/x") if before else fs.exists("lab/x")) == (before or False)
    assert not lab.staged


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_abandoned_writer_leaves_nothing(lab: Lab, fs: RecallFileSystem, mode: str) -> None:
    """A writer that is dropped without being closed does not appear as a file."""
    file = fs.open("lab/x", mode)
    file.write("half" if mode == "w" else b"half")
    del file
    gc.collect()
    assert not fs.exists("lab/x")
    assert not lab.staged


@pytest.mark.parametrize("compression", [None, "gzip", "bz2", "xz"])
@pytest.mark.parametrize("mode", ["w", "wb"])
def test_abandoned_url_leaves_nothing(
    lab: Lab, fs: RecallFileSystem, mode: str, compression: str | None
) -> None:
    """A writer that was opened by URL and dropped unclosed does not appear as a file."""
    file = fsspec.open("recall://lab/x", mode, compression=compression).open()
    file.write("half" if mode == "w" else b"half")
    del file
    gc.collect()
    assert not fs.exists("lab/x")
    assert not lab.staged


@pytest.mark.parametrize("opened", [fsspec.open, RecallFileSystem.open])
def test_text_that_cannot_be_encoded_leaves_nothing(
    lab: Lab, fs: RecallFileSystem, opened: Any
) -> None:
    """A character that the encoding does not have stops the file from appearing."""
    arguments = (fs, "lab/t") if opened is RecallFileSystem.open else ("recall://lab/t",)

    def write() -> None:
        with opened(*arguments, "w", encoding="ascii") as file:
            file.write("a")
            file.write("é")

    with pytest.raises(UnicodeEncodeError):
        write()
    assert not fs.exists("lab/t")
    assert not lab.staged


def test_writing_while_an_error_is_handled_is_no_error(fs: RecallFileSystem) -> None:
    """A file may be written in an ``except`` clause, and closed in one."""
    file = fs.open("lab/closed", "wb")
    try:
        raise StopIteration
    except StopIteration:
        with fsspec.open("recall://lab/inside", "w") as inside:
            inside.write("whole")
        file.write(b"whole")
        file.close()
    assert fs.cat(["lab/closed", "lab/inside"]) == {
        "lab/closed": b"whole",
        "lab/inside": b"whole",
    }


def test_direct_compression_is_refused_and_through_url_works(fs: RecallFileSystem) -> None:
    """A compressor that would leave its file open is refused before anything is lost."""
    with pytest.raises(InvalidInputError, match=r"fsspec\.open"):
        fs.open("lab/x.gz", "wb", compression="gzip")
    with fsspec.open("recall://lab/x.gz", "wb", compression="gzip") as file:
        file.write(b"text")
    with fsspec.open("recall://lab/x.gz", "rb", compression="infer") as file:
        assert file.read() == b"text"


def test_append_and_exclusive(lab: Lab, fs: RecallFileSystem) -> None:
    """``ab`` adds to what was, recalled if need be; ``xb`` takes only a free path."""
    released_file(lab, "far.bin")
    with fs.open("lab/far.bin", "ab") as file:
        file.write(b"more")
    assert (lab.root / "far.bin").read_bytes() == CONTENT + b"more"
    assert lab.entry("far.bin").sha256 == hashlib.sha256(CONTENT + b"more").hexdigest()
    with fs.open("lab/new", "ab") as file:
        file.write(b"1")
    with pytest.raises(FileExistsError):
        fs.open("lab/new", "xb")
    with fs.open("lab/x", "xb") as file:
        file.write(b"mine")
        (lab.root / "x").write_bytes(b"theirs")
        with pytest.raises(ConflictError):
            file.close()
    assert (lab.root / "x").read_bytes() == b"theirs"
    assert lab.store.catalog.entry_at("x") is None


@pytest.mark.parametrize("mode", ["r+b", "q"])
def test_other_modes_are_refused(fs: RecallFileSystem, mode: str) -> None:
    """Modes that would change a file in place are refused and change nothing."""
    fs.pipe("lab/x", b"1")
    with pytest.raises(InvalidInputError):
        fs.open("lab/x", mode)
    assert fs.cat("lab/x") == b"1"


@pytest.mark.parametrize("mode", ["r+b", "r+", "w+b", "w+", "a+", "rw"])
def test_modes_that_are_not_there_say_which_are(fs: RecallFileSystem, mode: str) -> None:
    """Reading and writing at once is refused by a sentence that names what works."""
    fs.pipe("lab/x", b"1")
    with pytest.raises(InvalidInputError, match="use rb, wb, xb or ab"):
        fs.open("lab/x", mode)
    assert fs.cat("lab/x") == b"1"
