"""Programs that know nothing of recallfs change files through a mount."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from conftest import sha256
from integrations.mount.conftest import Mount, run
from mirrored import released_file
from recallfs.cli.app import main

pytestmark = pytest.mark.services


def test_plain_files_are_those_of_the_root(mount: Mount) -> None:
    """What is made, written, renamed, linked, cut and removed here is so in the root, and back."""
    root, shown = mount.lab.root, mount.place
    mount.start()
    before = os.umask(0o027)
    try:
        (shown / "folder").mkdir()
        (shown / "folder" / "a").write_bytes(b"12345678")
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "folder").stat().st_mode) == 0o750
    assert stat.S_IMODE((root / "folder" / "a").stat().st_mode) == 0o640
    with (shown / "folder" / "a").open("ab") as file:
        file.write(b"9")
        file.flush()
        os.fsync(file.fileno())
        os.ftruncate(file.fileno(), 8)
        assert os.fstat(file.fileno()).st_size == 8
    os.truncate(shown / "folder" / "a", 3)
    assert (root / "folder" / "a").read_bytes() == b"123"
    (shown / "folder" / "a").write_bytes(b"anew")
    (shown / "folder" / "a").rename(shown / "b")
    (shown / "b").chmod(0o600)
    os.utime(shown / "b", ns=(1, 2_000_000_003))
    os.setxattr(shown / "b", "user.colour", b"green")
    assert os.getxattr(root / "b", "user.colour") == b"green"
    with pytest.raises(PermissionError):
        os.setxattr(shown / "b", "user.recall.state", b"resident")
    (shown / "c").symlink_to("b")
    os.link(shown / "b", shown / "d")
    status = (root / "b").stat()
    assert (status.st_mtime_ns, stat.S_IMODE(status.st_mode)) == (2_000_000_003, 0o600)
    assert (shown / "d").stat().st_nlink == 2
    assert (shown / "c").read_bytes() == b"anew"
    assert (root / "c").readlink() == Path("b")
    (shown / "folder" / "x").touch()
    with pytest.raises(OSError, match="not empty"):
        (shown / "folder").rmdir()
    with (shown / "b").open("rb") as file:
        for name in ("b", "c", "d"):
            (shown / name).unlink()
        assert file.read() == b"anew"
        time.sleep(1.1)  # how long the kernel may hold what it was told
        assert os.fstat(file.fileno()).st_size == 4
        assert [p.name for p in shown.iterdir()] == ["folder"]
    end = time.monotonic() + 20
    while sorted(p.name for p in root.iterdir()) != [".recall", "folder"]:
        assert time.monotonic() < end  # the kernel tells of a close a moment later
    for name in (".recall", "folder/.recall"):
        with pytest.raises(FileNotFoundError):
            (shown / name / "store.toml").read_text()
    (root / "beside").write_bytes(b"from beside")
    assert (shown / "beside").read_bytes() == b"from beside"
    (root / "beside").write_bytes(b"something else")
    time.sleep(1.1)  # how long the kernel may hold what it was told
    assert (shown / "beside").read_bytes() == b"something else"


def test_git_works_in_a_mount(mount: Mount) -> None:
    """A program that locks, renames over and maps files finds all it expects."""
    mount.start()
    work = mount.place / "code"
    settings = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    run("git", "init", "-q", work)
    (work / "a.py").write_text("1\n")
    run("git", "-C", work, "add", ".")
    run("git", "-C", work, *settings, "commit", "-qm", "one")
    (work / "a.py").write_text("2\n")
    run("git", "-C", work, *settings, "commit", "-qam", "two")
    run("git", "-C", work, "fsck", "--strict")
    run("git", "clone", "-q", work, mount.place / "clone")
    assert (mount.lab.root / "clone" / "a.py").read_text() == "2\n"
    shutil.rmtree(mount.place / "code")
    assert not (mount.lab.root / "code").exists()


def test_released_files_can_be_renamed_and_removed(mount: Mount) -> None:
    """They move with all that is known of them, unread; what is removed does not come back."""
    lab, shown = mount.lab, mount.place
    digest = released_file(lab, "a/one.bin")
    mount.start()
    with pytest.raises(FileExistsError):  # it would take the place of what can come back
        (shown / "a" / "one.bin").write_bytes(b"over")
    (shown / "a" / "one.bin").chmod(0o600)
    os.utime(shown / "a" / "one.bin", ns=(5, 7_000_000_000))
    (shown / "a" / "one.bin").rename(shown / "a" / "other.bin")
    (shown / "a").rename(shown / "b")
    assert [p.name for p in (shown / "b").iterdir()] == ["other.bin"]
    assert not (shown / "a").exists()
    with pytest.raises(OSError, match="not empty"):
        (shown / "b").rmdir()
    moved = shown / "b" / "other.bin"
    assert os.getxattr(moved, "user.recall.state") == b"released"
    assert sha256(moved) == digest
    status = (lab.root / "b" / "other.bin").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o600, 7_000_000_000)
    lab.release("b/other.bin", hold="1h")
    moved.unlink()
    assert not moved.exists()
    assert lab.store.catalog.entry_at("b/other.bin") is None
    (shown / "b").rmdir()
    released_file(lab, "two.bin")
    with (shown / "two.bin").open("rb") as file:
        (shown / "two.bin").unlink()
        assert not (shown / "two.bin").exists()
        assert lab.store.catalog.entry_at("two.bin") is None
        assert len(file.read()) == 48000
    released_file(lab, "two.bin")
    (shown / "new").write_bytes(b"new")
    (shown / "new").replace(shown / "two.bin")
    assert (lab.root / "two.bin").read_bytes() == b"new"
    assert lab.store.catalog.entry_at("two.bin") is None
    lab.write_raw()
    assert main(["pin", "recall://lab/raw.h5"]) == 0
    with pytest.raises(OSError, match="raw") as caught:
        (shown / "raw.h5").unlink()
    assert caught.value.errno == errno.EBUSY
    assert main(["unpin", "recall://lab/raw.h5"]) == 0
    (shown / "raw.h5").unlink()
    assert lab.store.catalog.entry_at("raw.h5") is None


def test_locks_hold_inside_and_outside(mount: Mount) -> None:
    """A writer through the mount keeps out a reader in the root, and the other way round."""
    lab = mount.lab
    native = lab.write_raw()
    mount.start()
    shown = mount.place / "raw.h5"

    def opens(path: Path) -> bool:
        locking = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_SH | fcntl.LOCK_NB)"
        command = [sys.executable, "-c", locking, str(path)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    for one, other in ((shown, native), (native, shown)):
        with h5py.File(one, "r+", locking=True):
            assert not opens(other)
            waiting = subprocess.Popen(["flock", other, "true"])
        assert opens(other)
        assert waiting.wait(20) == 0


@pytest.mark.parametrize("way", ["passthrough", "served"])
def test_a_file_replaced_in_the_root_stays_whole_for_who_has_it_open(
    mount: Mount, way: str
) -> None:
    """The old reader goes on with its bytes, size and map; whoever opens the name gets the new."""
    root, shown = mount.lab.root / "sub" / "a b\n", mount.place / "sub" / "a b\n"
    root.parent.mkdir()
    old, new, newest = b"old " * 100_000, b"replaced " * 5, b"newest"
    root.write_bytes(old)
    mount.start_as(way)

    def replace(data: bytes) -> None:
        other = root.with_name("other")
        other.write_bytes(data)
        other.replace(root)

    with shown.open("rb", buffering=0) as first:
        assert first.read(4) == b"old "
        replace(new)
        with shown.open("rb") as second:  # at once: the kernel still believes in the old one
            assert second.read() == new
            replace(newest)
            assert shown.read_bytes() == newest
            assert shown.stat().st_size == len(newest)
            assert [p.name for p in shown.parent.iterdir()] == ["a b\n"]
            time.sleep(1.1)  # how long the kernel may hold what it was told
            assert os.fstat(second.fileno()).st_size == len(new)
        assert os.fstat(first.fileno()).st_size == len(old)
        assert first.read() == old[4:]
        with mmap.mmap(first.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == old
        replace(newest)
        assert shown.read_bytes() == newest
        replace(new)
        shown.unlink()
        assert not root.exists()
        assert not shown.exists()
        assert os.pread(first.fileno(), 4, 0) == b"old "
    root.write_bytes(old)
    with shown.open("rb", buffering=0) as first:
        root.unlink()
        assert os.fstat(first.fileno()).st_size == len(old)
        shown.write_bytes(new)
        assert root.read_bytes() == new
        assert first.read() == old
    with shown.open("r+b") as file:
        replace(newest)
        replace(new)
        file.write(b"into the old one")
        time.sleep(1.1)
        assert shown.read_bytes() == new
    assert root.read_bytes() == new
    assert [p.name for p in root.parent.iterdir()] == ["a b\n"]


def test_what_is_read_and_removed_at_once_leaves_nothing(mount: Mount) -> None:
    """The kernel tells of a close when the removal is under way: no hidden file stays for that."""
    mount.start()
    for number in range(150):
        place = mount.place / str(number)
        place.write_bytes(b"x")
        with place.open("rb") as file:
            file.read()
        place.unlink()
    end = time.monotonic() + 20
    while [p.name for p in mount.lab.root.iterdir()] != [".recall"]:
        assert time.monotonic() < end
        time.sleep(0.05)
