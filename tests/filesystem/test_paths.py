"""Paths: odd names, names like patterns, ways out of the store, and what is in the way."""

from __future__ import annotations

import pytest

from conftest import Lab, sha256
from mirrored import CONTENT, released_file
from recallfs.errors import ConflictError, InvalidInputError
from recallfs.filesystem import RecallFileSystem
from recallfs.values import State


@pytest.mark.parametrize(
    "name",
    ["ünï/cödé 📈.bin", "a b/c  d", "100%/x%20y", "#a?b&c=[d]*", "'q\"uote\\s", "-rf", "日本"],
)
def test_odd_names_survive(lab: Lab, fs: RecallFileSystem, name: str) -> None:
    """Names with spaces, signs and other scripts are kept as they are, released ones too."""
    digest = released_file(lab, name)
    assert fs.info(f"recall://lab/{name}")["sha256"] == digest
    with fs.open(f"recall://lab/{name}") as file:
        assert file.read() == CONTENT
    assert sha256(lab.root / name) == digest


@pytest.mark.parametrize("name", ["a[1].bin", "a*.bin", "a?.bin", "[a]/b*.bin"])
def test_a_name_that_exists_is_no_pattern(lab: Lab, fs: RecallFileSystem, name: str) -> None:
    """Files whose names look like patterns are read, moved and removed, and no others with them."""
    others = ["lab/a1.bin", "lab/ab.bin", "lab/a/bb.bin"]
    fs.pipe(dict.fromkeys(others, b"other"))
    fs.pipe({f"lab/{name}": b"this"})
    assert fs.cat(f"lab/{name}") == b"this"
    assert fs.expand_path(f"lab/{name}") == [f"lab/{name}"]
    fs.get_file(f"lab/{name}", str(lab.base / "out.bin"))
    assert (lab.base / "out.bin").read_bytes() == b"this"
    fs.mv(f"lab/{name}", f"lab/moved/{name}")
    fs.rm(f"lab/moved/{name}")
    assert sorted(fs.find("lab")) == sorted(others)


def test_folders_with_odd_names_are_removed_whole(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder whose name looks like a pattern is found, expanded and removed as any other."""
    fs.pipe({"lab/d[1]/sub/x": b"1", "lab/d1/x": b"2"})
    assert fs.expand_path("lab/d[1]", recursive=True) == [
        "lab/d[1]",
        "lab/d[1]/sub",
        "lab/d[1]/sub/x",
    ]
    assert fs.expand_path(["lab/d[1]", "lab/d?"]) == ["lab/d1", "lab/d[1]"]
    fs.rm("lab/d[1]", recursive=True)
    assert fs.find("lab") == ["lab/d1/x"]


@pytest.mark.parametrize(
    "path", ["lab/../x", "lab/a/../../x", "lab/.recall/store.toml", "lab/a\0b"]
)
def test_paths_out_of_the_store_are_refused(fs: RecallFileSystem, path: str) -> None:
    """Paths that climb out, or into our own records, are neither read nor written."""
    assert not fs.exists(path)
    for mode in ("rb", "wb"):
        with pytest.raises(InvalidInputError) as caught:
            fs.open(path, mode)
        assert caught.value.kind == "invalid-path"


def test_symlinks_out_of_the_store_are_not_followed(lab: Lab, fs: RecallFileSystem) -> None:
    """What a symlink shows of the outside is neither listed nor read nor written."""
    outside = lab.base / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (lab.root / "out").symlink_to(outside)
    (lab.root / "file").symlink_to(outside / "secret")
    (lab.root / "dangling").symlink_to(outside / "nothing")
    fs.pipe("lab/mine", b"1")
    assert fs.find("lab") == ["lab/mine"]
    for path in ("lab/out/secret", "lab/file", "lab/out/new"):
        with pytest.raises(InvalidInputError):
            fs.open(path, "rb")
        with pytest.raises(InvalidInputError):
            fs.open(path, "wb")
    assert [item.name for item in outside.iterdir()] == ["secret"]


def test_folder_where_a_file_should_be(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder at a released path is a conflict, and stays."""
    released_file(lab, "far.bin")
    (lab.root / "far.bin").mkdir()
    (lab.root / "far.bin" / "theirs").write_text("1")
    with pytest.raises(ConflictError):
        fs.open("lab/far.bin")
    with pytest.raises((ConflictError, IsADirectoryError)):
        fs.open("lab/far.bin", "wb")
    assert (lab.root / "far.bin" / "theirs").read_text() == "1"
    assert lab.entry("far.bin").state is State.RELEASED


def test_file_in_the_way_of_a_folder(fs: RecallFileSystem) -> None:
    """A path below a file does not exist, and cannot be made."""
    fs.pipe("lab/a", b"1")
    assert not fs.exists("lab/a/b")
    with pytest.raises(FileNotFoundError):
        fs.open("lab/a/b")
    with pytest.raises(OSError, match="a"):
        fs.pipe("lab/a/b", b"2")
    assert fs.cat("lab/a") == b"1"
    with pytest.raises(IsADirectoryError):
        fs.open("lab", "rb")
