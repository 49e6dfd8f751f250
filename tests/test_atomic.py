"""Writing whole or not at all: records, folders, and names that are never taken from others."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recallfs.atomic import (
    is_full,
    make_folder,
    new_name,
    no_space,
    place,
    rename_without_replacing,
    set_fault_hook,
    sync_file,
    sync_folder,
    write_record,
)
from recallfs.errors import CatalogError, ConflictError, SourceError


class Killed(BaseException):
    """What a test raises at a fault point in place of a death."""


@pytest.fixture
def die_at() -> Iterator[Callable[[str], None]]:
    """Give a function that makes a fault point raise."""

    def arm(point: str) -> None:
        def hook(name: str) -> None:
            if name == point:
                raise Killed(name)

        set_fault_hook(hook)

    yield arm
    set_fault_hook(None)


@pytest.fixture(params=["link", "rename"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with hard links, and as on a file system that has none."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param == "rename":
        monkeypatch.setattr(os, "link", refuse)
    return str(request.param)


def test_a_record_is_written_and_replaced(tmp_path: Path) -> None:
    """The folder is made, the content is exact, and nothing else is left beside it."""
    path = tmp_path / "a" / "b" / "record"
    write_record(path, b"old")
    write_record(path, b"new and longer")
    assert path.read_bytes() == b"new and longer"
    assert [item.name for item in path.parent.iterdir()] == ["record"]


def test_a_record_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    """Permission bits are as given, less the umask."""
    before = os.umask(0o027)
    try:
        write_record(tmp_path / "a", b"", mode=0o664)
        write_record(tmp_path / "b", b"", mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600


def test_a_write_that_dies_leaves_the_old_record(
    tmp_path: Path, die_at: Callable[[str], None]
) -> None:
    """Until the rename, readers see the old content; the new file beside it is taken away."""
    path = tmp_path / "record"
    write_record(path, b"old")
    die_at("record.written")
    with pytest.raises(Killed):
        write_record(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_never_see_a_part(tmp_path: Path) -> None:
    """While a record is replaced again and again, each read gives one whole version."""
    path = tmp_path / "record"
    versions = {bytes([i]) * 100_000 for i in range(8)}
    write_record(path, next(iter(versions)))
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            for content in versions:
                write_record(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[bytes] = []
    try:
        while len(seen) < 200 or len(set(seen)) == 1:
            seen.append(path.read_bytes())
    finally:
        done.set()
        writer.join()
    assert set(seen) <= versions


def test_a_record_does_not_replace_a_folder(tmp_path: Path) -> None:
    """A folder in the record's place stays, and no half-written file is left."""
    (tmp_path / "record" / "inside").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_record(tmp_path / "record", b"new")
    assert (tmp_path / "record" / "inside").is_dir()
    assert len(list(tmp_path.iterdir())) == 1


def test_folders_are_made_once(tmp_path: Path) -> None:
    """Parents are made too; what is there already is fine, a symlink to a folder also."""
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    (tmp_path / "link").symlink_to("a")
    make_folder(tmp_path / "link" / "d")
    assert (tmp_path / "a" / "d").is_dir()


@pytest.mark.parametrize("below", ["", "x/y"])
@pytest.mark.parametrize("kind", ["file", "dangling"])
def test_a_file_in_a_folders_place(tmp_path: Path, kind: str, below: str) -> None:
    """A file or a dangling symlink where a folder is needed is a conflict, and stays."""
    occupied = tmp_path / "occupied"
    if kind == "file":
        occupied.write_text("mine")
    else:
        occupied.symlink_to("nowhere")
    with pytest.raises(ConflictError, match="occupied is a file"):
        make_folder(occupied / below)
    assert occupied.is_file() == (kind == "file")
    assert occupied.is_symlink() == (kind == "dangling")


def test_placing_moves_the_file(tmp_path: Path, way: str) -> None:
    """The very file gets its final name, in a folder made for it; the staging name is gone."""
    staged = tmp_path / "staged"
    staged.write_bytes(b"bytes")
    inode = staged.stat().st_ino
    place(staged, tmp_path / "new" / "final")
    status = (tmp_path / "new" / "final").stat()
    assert (status.st_ino, status.st_nlink) == (inode, 1)
    assert not staged.exists()


@pytest.mark.parametrize("occupant", ["file", "folder", "symlink", "dangling", "self"])
def test_placing_never_replaces(tmp_path: Path, way: str, occupant: str) -> None:
    """Whatever has the name keeps it, and the staged file is as it was."""
    staged, final = tmp_path / "staged", tmp_path / "final"
    staged.write_bytes(b"bytes")
    (tmp_path / "other").write_text("other")
    if occupant == "file":
        final.write_text("mine")
    elif occupant == "folder":
        final.mkdir()
    elif occupant == "self":
        final.hardlink_to(staged) if way == "link" else final.write_bytes(b"bytes")
    else:
        final.symlink_to("other" if occupant == "symlink" else "nowhere")
    before = final.lstat()
    with pytest.raises(ConflictError) as caught:
        place(staged, final)
    assert caught.value.details == {"path": str(final)}
    after = final.lstat()
    assert (after.st_ino, after.st_mode, after.st_size) == (
        before.st_ino,
        before.st_mode,
        before.st_size,
    )
    assert staged.read_bytes() == b"bytes"
    assert (tmp_path / "other").read_text() == "other"


def test_only_one_of_many_gets_the_name(tmp_path: Path, way: str) -> None:
    """Of eight threads that place a file at one path, one succeeds and the others keep theirs."""
    final, outcomes = tmp_path / "final", []
    barrier = threading.Barrier(8)

    def work(i: int) -> None:
        staged = tmp_path / f"staged{i}"
        staged.write_text(str(i))
        barrier.wait()
        try:
            place(staged, final)
            outcomes.append(i)
        except ConflictError:
            assert staged.read_text() == str(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert final.read_text() == str(outcomes[0])
    assert len(list(tmp_path.glob("staged*"))) == 7


@pytest.mark.parametrize("point", ["place.linked", "place.unstaged"])
def test_placing_that_dies_has_placed(
    tmp_path: Path, way: str, point: str, die_at: Callable[[str], None]
) -> None:
    """Between the steps of placing, the final name holds the whole file already."""
    staged, final = tmp_path / "staged", tmp_path / "final"
    staged.write_bytes(b"bytes")
    die_at(point)
    with pytest.raises(Killed):
        place(staged, final)
    assert final.read_bytes() == b"bytes"


def test_a_missing_source_is_no_conflict(tmp_path: Path, way: str) -> None:
    """A source that is gone is told as such, and the target is not made."""
    with pytest.raises(FileNotFoundError):
        rename_without_replacing(tmp_path / "gone", tmp_path / "final")
    assert list(tmp_path.iterdir()) == []


def test_a_symlink_is_moved_as_such(tmp_path: Path, way: str) -> None:
    """The link itself gets the name, not what it points to."""
    (tmp_path / "link").symlink_to("target")
    rename_without_replacing(tmp_path / "link", tmp_path / "moved")
    assert (tmp_path / "moved").readlink() == Path("target")
    assert not (tmp_path / "link").is_symlink()


class _NoRename:
    """A C library whose renameat2 a file system does not serve."""

    def __init__(self, code: int | None) -> None:
        if code is not None:
            self.renameat2 = self._refuse
        self.code = code

    def _refuse(self, *_arguments: object) -> int:
        return -1


@pytest.mark.parametrize("code", [None, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_either_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    """With neither hard links nor RENAME_NOREPLACE nothing is moved, and the advice is given."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EPERM, "")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_a, **_o: _NoRename(code))
    monkeypatch.setattr(ctypes, "get_errno", lambda: code)
    (tmp_path / "staged").write_text("x")
    with pytest.raises(CatalogError, match="neither hard links nor RENAME_NOREPLACE"):
        place(tmp_path / "staged", tmp_path / "final")
    assert [item.name for item in tmp_path.iterdir()] == ["staged"]


def test_names_are_not_used_twice() -> None:
    """Each new name is another, and has the prefix that was asked for."""
    names = {new_name(".new-") for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(".new-") for name in names)


def test_syncing_needs_something_there(tmp_path: Path) -> None:
    """A file that is gone cannot be made durable, and a file is no folder."""
    (tmp_path / "file").write_text("x")
    sync_file(tmp_path / "file")
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_file(tmp_path / "gone")
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "file")


def test_full_disks_are_told_apart() -> None:
    """A full disk and an exhausted quota are 'no space'; other failures are not."""
    assert is_full(OSError(errno.ENOSPC, ""))
    assert is_full(OSError(errno.EDQUOT, ""))
    assert not is_full(OSError(errno.EIO, ""))
    error = no_space(OSError(errno.ENOSPC, ""), Path("/data"))
    assert isinstance(error, SourceError)
    assert (error.kind, error.details) == ("no-space", {"folder": "/data"})


FULL_DISK = """
    import os
    from pathlib import Path
    from recallfs.atomic import make_folder, write_record
    from recallfs.errors import SourceError

    disk = Path({disk!r})
    write_record(disk / "record", b"old")
    try:
        write_record(disk / "record", bytes(4_000_000))
    except SourceError as error:
        assert error.kind == "no-space", error.kind
        assert error.details == {{"folder": str(disk)}}, error.details
    else:
        raise AssertionError("4 MB went onto a disk of 1 MB")
    assert (disk / "record").read_bytes() == b"old"
    assert os.listdir(disk) == ["record"], os.listdir(disk)
    for i in range(100):  # the disk has room for 20 names
        try:
            make_folder(disk / str(i))
        except SourceError as error:
            assert error.kind == "no-space", error.kind
            break
    else:
        raise AssertionError("100 folders on a disk for 20")
    (disk / "0").rmdir()
    write_record(disk / "record", b"new")
    assert (disk / "record").read_bytes() == b"new"
    print("all held")
"""


@pytest.mark.services
def test_a_full_disk_keeps_the_old_record(tmp_path: Path) -> None:
    """On a disk that is really full, the old record stays, no litter is left, and we say so."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "script.py").write_text(
        textwrap.dedent(FULL_DISK).format(disk=str(tmp_path / "disk"))
    )
    done = subprocess.run(
        [
            "unshare",
            *(["-m"] if os.getuid() == 0 else ["-Urm"]),
            "sh",
            "-c",
            'mount -t tmpfs -o size=1m,nr_inodes=20 none "$1" && exec "$2" "$3"',
            "sh",
            str(tmp_path / "disk"),
            sys.executable,
            str(tmp_path / "script.py"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all held\n"), done.stderr
