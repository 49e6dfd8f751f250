"""`UPath("recall://…")`, and the entry points by which others find us."""

from __future__ import annotations

from importlib.metadata import entry_points

import fsspec
from upath import UPath
from upath.registry import get_upath_class

from conftest import Lab
from mirrored import CONTENT, released_file
from recallfs.filesystem import RecallFileSystem
from recallfs.upath import RecallPath


def test_entry_points_resolve() -> None:
    """The installed package tells fsspec and universal_pathlib where our classes are."""
    (spec,) = entry_points(group="fsspec.specs", name="recall")
    assert spec.load() is RecallFileSystem
    assert fsspec.get_filesystem_class("recall") is RecallFileSystem
    (path,) = entry_points(group="universal_pathlib.implementations", name="recall")
    assert path.load() is RecallPath
    assert get_upath_class("recall") is RecallPath


def test_paths_read_write_and_list(lab: Lab) -> None:
    """A path joins, writes, reads, lists, renames and unlinks, with released files among all."""
    released_file(lab, "sub/far é.bin")
    folder = UPath("recall://lab/sub")
    assert isinstance(folder, RecallPath)
    (folder / "new.txt").write_text("hello")
    assert sorted(item.name for item in folder.iterdir()) == ["far é.bin", "new.txt"]
    far = folder / "far é.bin"
    assert far.exists()
    assert far.is_file()
    assert not far.is_dir()
    assert folder.is_dir()
    assert far.stat().st_size == len(CONTENT)
    assert not (lab.root / "sub/far é.bin").exists()
    assert far.read_bytes() == CONTENT
    with (folder / "new.txt").open("r") as file:
        assert file.read() == "hello"
    (folder / "new.txt").unlink()
    assert not (folder / "new.txt").exists()
    assert far.parent.name == "sub"
    assert UPath(str(far)).read_bytes() == CONTENT
    assert [item.suffix for item in folder.glob("*.bin")] == [".bin"]
    assert not UPath("recall://lab/nothing").exists()
