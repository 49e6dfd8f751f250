"""What files get: from their folder, from the umask, from the record."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Lab
from recallfs.atomic import make_shared_file, make_shared_folder, write_record
from recallfs.ownership import metadata_of, restore, usual_metadata
from recallfs.permissions import Acl
from recallfs.values import Metadata


def mode_of(path: Path) -> int:
    """Return the permission bits of a path."""
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Work with this umask."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("mode", [0o700, 0o2750, 0o2770, 0o2775, 0o1777])
def test_what_is_kept_takes_its_bits_from_the_folder(tmp_path: Path, mode: int, umask: int) -> None:
    """Folders, records and locks have the folder's bits; no umask is asked."""
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(mode)
    make_shared_folder(root / "a" / "b")
    write_record(root / "a" / "b" / "record", b"")
    make_shared_file(root / "a" / "b" / "lock")
    bits = mode & 0o777
    for folder in (root / "a", root / "a" / "b"):
        assert mode_of(folder) == bits | (0o2000 if mode & 0o2020 else 0)
    for name in ("record", "lock"):
        assert mode_of(root / "a" / "b" / name) == bits & 0o666
    assert sorted(path.name for path in (root / "a" / "b").iterdir()) == ["lock", "record"]


def test_a_new_file_is_as_open_makes_it(tmp_path: Path, umask: int) -> None:
    """What is committed has the mode and group that a plain open gives beside it."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o2770)
    expected = usual_metadata(folder / "new", 5)
    (folder / "plain").touch()
    found = metadata_of(folder / "plain")
    assert (expected.mode, expected.uid, expected.gid) == (found.mode, found.uid, found.gid)
    assert usual_metadata(folder / "deep" / "er" / "new", 5) == expected


def test_a_file_that_is_written_over_keeps_its_mode(lab: Lab) -> None:
    """Writing through the filesystem does not open a private file to others."""
    from recallfs.filesystem import RecallFileSystem

    files = RecallFileSystem()
    files.pipe("lab/a.txt", b"old")
    (lab.root / "a.txt").chmod(0o600)
    files.pipe("lab/a.txt", b"new")
    assert (lab.root / "a.txt").read_bytes() == b"new"
    assert mode_of(lab.root / "a.txt") == 0o600
    assert lab.entry("a.txt").metadata.mode == 0o600


def test_a_mode_that_was_changed_since_comes_back(lab: Lab) -> None:
    """What counts is the mode when the file is released, not when it was made."""
    place = lab.derive()
    lab.prove()
    place.chmod(0o600)
    lab.release()
    lab.cli("get", "recall://lab/derived.h5")
    assert mode_of(place) == 0o600
    skeletons = [*lab.store.control.glob("skeletons/*/*"), *lab.store.vault.rglob("*.rsk1")]
    assert [mode_of(path) for path in skeletons] == [0o600, 0o600]


def test_restoring_does_not_follow_a_link(tmp_path: Path) -> None:
    """A link in the place of a file is an error, and its target is left alone."""
    target = tmp_path / "target"
    target.touch()
    target.chmod(0o600)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        restore(tmp_path / "link", Metadata(0o666, os.getuid(), os.getgid(), 0))
    assert mode_of(target) == 0o600


def test_what_tells_of_a_file_is_never_executable(tmp_path: Path) -> None:
    """A skeleton follows its file's readers, not its other bits."""
    wanted = Metadata(0o4755, os.getuid(), os.getgid(), 7)
    write_record(tmp_path / "skeleton", b"x", like=wanted)
    assert mode_of(tmp_path / "skeleton") == 0o644


@pytest.mark.services
def test_a_default_acl_counts_and_no_umask(tmp_path: Path, umask: int) -> None:
    """Under a default ACL, what is kept and what is committed are as the system makes them."""
    default = Acl.from_text("user::rwx,user:61002:rwx,group::r-x,mask::rwx,other::---")
    os.setxattr(tmp_path, "system.posix_acl_default", bytes(default))
    write_record(tmp_path / "kept" / "record", b"")
    (tmp_path / "plain").touch()
    plain = metadata_of(tmp_path / "plain")
    assert "user:61002:rw" in plain.acl
    assert metadata_of(tmp_path / "kept" / "record").acl == plain.acl
    assert usual_metadata(tmp_path / "new", 0).acl == plain.acl
    (tmp_path / "staged").touch(mode=0o600)
    assert restore(tmp_path / "staged", usual_metadata(tmp_path / "new", 0)) == ()
    assert metadata_of(tmp_path / "staged").acl == plain.acl
    # And where there is none, what was inherited in staging goes.
    bare = Metadata(0o640, os.getuid(), os.getgid(), 0)
    assert restore(tmp_path / "staged", bare) == ()
    assert metadata_of(tmp_path / "staged") == bare
