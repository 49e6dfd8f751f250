"""Listing: what is on record is shown as what is on the disk, with states and times."""

from __future__ import annotations

import os
import uuid

import pytest

from conftest import Lab
from mirrored import CONTENT, released_file
from recallfs.filesystem import RecallFileSystem
from recallfs.values import Metadata


def test_released_file_is_listed_with_size_and_state(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that is not here looks as if it were, and says that it is released."""
    digest = released_file(lab, "sub/far.bin")
    (listed,) = fs.ls("lab/sub")
    for info in (listed, fs.info("recall://lab/sub/far.bin")):
        assert (info["name"], info["size"], info["type"]) == (
            "lab/sub/far.bin",
            len(CONTENT),
            "file",
        )
        assert (info["state"], info["sha256"]) == ("released", digest)
    assert fs.exists("lab/sub/far.bin")
    assert fs.isfile("lab/sub/far.bin")
    assert fs.du("lab/sub") == len(CONTENT)
    assert not (lab.root / "sub/far.bin").exists()


def test_released_file_is_listed_where_its_folder_is_gone(lab: Lab, fs: RecallFileSystem) -> None:
    """Folders that exist on record only are listed, walked and globbed, and recalled into."""
    released_file(lab, "deep/er/far.bin")
    (lab.root / "deep/er").rmdir()
    (lab.root / "deep").rmdir()
    assert fs.isdir("lab/deep")
    assert fs.glob("lab/**/*.bin") == ["lab/deep/er/far.bin"]
    assert fs.cat("lab/deep/er/far.bin") == CONTENT


def test_control_folder_is_not_listed(fs: RecallFileSystem) -> None:
    """What recallfs writes for itself is no part of the store."""
    fs.pipe("lab/a", b"1")
    assert fs.ls("lab", detail=False) == ["lab/a"]
    assert fs.find("lab", withdirs=True) == ["lab", "lab/a"]


def test_times(lab: Lab, fs: RecallFileSystem) -> None:
    """`created` and `modified` are those of the record; a recall changes neither."""
    released_file(lab, "far.bin")
    before = fs.created("lab/far.bin"), fs.modified("lab/far.bin")
    fs.cat("lab/far.bin")
    assert (fs.created("lab/far.bin"), fs.modified("lab/far.bin")) == before
    place = lab.root / "far.bin"
    for mtime_ns in range(1_700_000_000_000_000_001, 1_700_000_001_000_000_000, 99_999_989):
        os.utime(place, ns=(mtime_ns, mtime_ns))
        assert Metadata.from_stat(place.stat()).mtime == place.stat().st_mtime
    with pytest.raises(FileNotFoundError):
        fs.modified("lab/nothing")


def test_checksum_follows_the_bytes(fs: RecallFileSystem) -> None:
    """`checksum` and `ukey` are equal for equal bytes and differ for others."""
    name = uuid.uuid4().hex
    fs.pipe({f"lab/{name}": b"1", "lab/b": b"1", "lab/c": b"2"})
    assert fs.checksum(f"lab/{name}") == fs.checksum("lab/b") != fs.checksum("lab/c")


@pytest.fixture
def tree(lab: Lab, fs: RecallFileSystem) -> RecallFileSystem:
    """Files of all sorts: resident, plain, released, and released in a folder on record only."""
    fs.pipe({"lab/a/1.bin": b"1", "lab/a/deep/2.txt": b"22"})
    (lab.root / "a/plain.bin").write_bytes(b"333")
    released_file(lab, "a/far.bin", b"far away")
    released_file(lab, "gone/far.bin", b"far away")
    (lab.root / "gone").rmdir()
    return fs


def test_find(tree: RecallFileSystem) -> None:
    """`find` gives files that are not here too; with depth, folders and details."""
    names = ["lab/a/1.bin", "lab/a/deep/2.txt", "lab/a/far.bin", "lab/a/plain.bin"]
    assert tree.find("lab/a") == names
    assert tree.find("lab") == [*names, "lab/gone/far.bin"]
    assert tree.find("lab", maxdepth=2) == [*names[:1], *names[2:], "lab/gone/far.bin"]
    assert tree.find("lab", maxdepth=1, withdirs=True) == ["lab", "lab/a", "lab/gone"]
    assert tree.find("lab/a/far.bin") == ["lab/a/far.bin"]
    detail = tree.find("lab", detail=True)
    assert detail["lab/gone/far.bin"]["size"] == 8
    assert detail["lab/gone/far.bin"]["state"] == "released"


def test_du(tree: RecallFileSystem) -> None:
    """`du` counts released files with the size that they have when they are back."""
    assert tree.du("lab") == 1 + 2 + 3 + 8 + 8
    assert tree.du("lab/gone", total=False) == {"lab/gone/far.bin": 8}
    assert tree.du("lab", maxdepth=2) == 1 + 3 + 8 + 8


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("lab/*/*.bin", ["lab/a/1.bin", "lab/a/far.bin", "lab/a/plain.bin", "lab/gone/far.bin"]),
        ("lab/**/*.txt", ["lab/a/deep/2.txt"]),
        ("lab/a/[0-9].bin", ["lab/a/1.bin"]),
        ("lab/a/[!0-9]*.bin", ["lab/a/far.bin", "lab/a/plain.bin"]),
        ("lab/?one/far.*", ["lab/gone/far.bin"]),
        ("lab/g*", ["lab/gone"]),
        ("lab/none*", []),
    ],
)
def test_glob(tree: RecallFileSystem, pattern: str, found: list[str]) -> None:
    """Patterns find what is on record as what is on the disk."""
    assert tree.glob(pattern) == found


def test_walk(tree: RecallFileSystem) -> None:
    """`walk` goes down or up, stops at a depth, and leaves out what the caller takes out."""
    down = list(tree.walk("lab"))
    assert [folder for folder, _, _ in down] == ["lab", "lab/a", "lab/a/deep", "lab/gone"]
    assert down[1][1:] == (["deep"], ["1.bin", "far.bin", "plain.bin"])
    assert [folder for folder, _, _ in tree.walk("lab", topdown=False)] == [
        "lab/a/deep",
        "lab/a",
        "lab/gone",
        "lab",
    ]
    assert [folder for folder, _, _ in tree.walk("lab", maxdepth=1)] == ["lab"]
    for detail in (False, True):
        walk = tree.walk("lab", detail=detail)
        _, folders, _ = next(walk)
        del folders["a" if detail else 0]
        assert [folder for folder, _, _ in walk] == ["lab/gone"]


def test_walk_says_what_it_cannot_see(fs: RecallFileSystem) -> None:
    """A missing folder is left out, raised or told, as asked; a refused one is never left out."""
    assert list(fs.walk("lab/none")) == []
    with pytest.raises(FileNotFoundError):
        list(fs.walk("lab/none", on_error="raise"))
    told: list[OSError] = []
    assert list(fs.walk("lab/none", on_error=told.append)) == []
    assert isinstance(told[0], FileNotFoundError)
    with pytest.raises(ValueError, match="maxdepth"):
        list(fs.walk("lab", maxdepth=0))
