"""What fsspec puts on top of a filesystem: caches, mappings, folders, many files by one pattern."""

from __future__ import annotations

from typing import Any

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem

from conftest import Lab, sha256
from mirrored import CONTENT, released_file
from recallfs.errors import RecallError
from recallfs.filesystem import RecallFileSystem


def test_many_files_by_one_pattern(fs: RecallFileSystem) -> None:
    """`fsspec.open_files` numbers what it writes and finds it again."""
    with fsspec.open_files("recall://lab/part-*.csv", "w", num=3) as files:
        for number, file in enumerate(files):
            file.write(str(number))
    with fsspec.open_files("recall://lab/part-*.csv", "r") as files:
        assert [file.read() for file in files] == ["0", "1", "2"]


def test_mapper(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder is a mapping of names to bytes."""
    mapper = fsspec.get_mapper("recall://lab/map", create=True)
    mapper.setitems({"a/b": b"1", "c": b"2"})
    released_file(lab, "map/far")
    assert sorted(mapper) == ["a/b", "c", "far"]
    assert mapper["far"] == CONTENT
    assert "none" not in mapper
    with pytest.raises(KeyError):
        mapper["none"]
    del mapper["c"]
    assert sorted(mapper) == ["a/b", "far"]
    mapper.clear()
    assert fs.find("lab/map") == []


def test_folder_as_a_filesystem(lab: Lab, fs: RecallFileSystem) -> None:
    """`DirFileSystem` shows a folder of a store as a whole filesystem."""
    released_file(lab, "sub/far.bin")
    below = DirFileSystem("lab/sub", fs)
    below.pipe("new/x", b"1")
    assert below.find("") == ["far.bin", "new/x"]
    assert below.cat("far.bin") == CONTENT
    with fsspec.open("dir://new/x::recall://lab/sub") as file:
        assert file.read() == b"1"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("protocol", ["simplecache", "filecache", "blockcache"])
def test_caches_on_top(lab: Lab, fs: RecallFileSystem, protocol: str) -> None:
    """Fsspec's caches bring a file back; those that check see a change, `simplecache` does not."""
    released_file(lab, "far.bin")
    options: dict[str, Any] = {"cache_storage": str(lab.base / "cache")}
    if protocol != "simplecache":
        options["check_files"] = True

    def read() -> bytes:
        with fsspec.open(f"{protocol}::recall://lab/far.bin", **{protocol: options}) as file:
            return bytes(file.read())

    assert [read(), read()] == [CONTENT, CONTENT]
    assert (lab.root / "far.bin").exists()
    fs.pipe("lab/far.bin", b"new")
    assert read() == (CONTENT if protocol == "simplecache" else b"new")


# Older versions of `filecache` ask for the key of a file before it is written.
@pytest.mark.parametrize("protocol", ["simplecache", "blockcache"])
def test_caches_write_through(lab: Lab, fs: RecallFileSystem, protocol: str) -> None:
    """What is written through a cache is in the store, and on record."""
    options = {"cache_storage": str(lab.base / "cache")}
    with fsspec.open(f"{protocol}::recall://lab/x", "wb", **{protocol: options}) as file:
        file.write(b"through")
    assert fs.cat("lab/x") == b"through"
    assert fs.info("lab/x")["sha256"] == sha256(lab.root / "x")


def test_cache_never_keeps_what_failed(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that could not be brought back is not in a cache, and is read once it can be."""
    released_file(lab, "far.bin")
    config = lab.config.read_text()
    lab.write_config('[[sources.mirror]]\nname = "copies"\nurl = "nosuch://x"\nlayout = "sha256"\n')
    options = {"cache_storage": str(lab.base / "cache")}
    url = "simplecache::recall://lab/far.bin"
    with pytest.raises(RecallError), fsspec.open(url, simplecache=options) as file:
        file.read()
    lab.config.write_text(config)
    with fsspec.open(url, simplecache=options) as file:
        assert file.read() == CONTENT
