"""Programs that know nothing of recallfs read released files through a mount."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

import h5py
import pytest

from conftest import sha256
from integrations.mount.conftest import WAYS, Mount, run
from mirrored import released_file, released_hdf5
from recallfs.cli.app import main

pytestmark = pytest.mark.services

_MAPPING = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
int main(int count, char **words) {
    struct stat status;
    int file = open(words[1], O_RDONLY);
    if (file < 0 || fstat(file, &status)) return 1;
    unsigned char *bytes = mmap(0, status.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (bytes == MAP_FAILED) return 2;
    unsigned long sum = 0;
    for (long i = 0; i < status.st_size; i++) sum += bytes[i];
    printf("%lu\n", sum);
    return 0;
}
"""


def test_released_files_are_listed_as_recorded(mount: Mount) -> None:
    """Size, time, mode and digest are told without a recall; recallfs' own folder is not shown."""
    lab = mount.lab
    digest = released_file(lab, "sub/a.bin")
    native = lab.root / "sub" / "a.bin"
    assert main(["get", "recall://lab/sub/a.bin"]) == 0
    native.chmod(0o640)  # not what it was when it was catalogued
    before = native.stat()
    lab.release("sub/a.bin")
    (lab.root / "plain").write_bytes(b"plain")
    mount.start()
    shown = mount.place / "sub" / "a.bin"
    assert sorted(p.name for p in mount.place.iterdir()) == ["plain", "sub"]
    assert not (mount.place / ".recall").exists()
    now = shown.stat()
    assert (now.st_size, now.st_mtime_ns, now.st_mode) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_mode,
    )
    assert os.getxattr(shown, "user.recall.state") == b"released"
    assert os.getxattr(shown, "user.recall.sha256").decode() == digest
    assert set(os.listxattr(shown)) == {"user.recall.state", "user.recall.sha256"}
    assert os.listxattr(mount.place / "plain") == []
    assert os.statvfs(shown).f_blocks == os.statvfs(lab.root).f_blocks
    assert not native.exists()
    with pytest.raises(FileNotFoundError):
        (mount.place / "nothing.h5").stat()


@pytest.mark.parametrize("way", WAYS)
def test_ordinary_programs_open_released_files(mount: Mount, tmp_path: Path, way: str) -> None:
    """h5dump, h5diff, cp, sha256sum, a C program with mmap and h5py each get the very bytes."""
    lab = mount.lab
    digest = released_hdf5(lab, "a.h5")
    mount.start_as(way)
    shown, native = mount.place / "a.h5", lab.root / "a.h5"
    kept = tmp_path / "kept.h5"
    run("cp", "-p", shown, kept)
    assert sha256(kept) == digest
    assert kept.stat().st_mtime_ns == native.stat().st_mtime_ns
    source, program = tmp_path / "mapping.c", tmp_path / "mapping"
    source.write_text(_MAPPING)
    run("gcc", "-O1", "-o", program, source)

    def released() -> Path:
        lab.release("a.h5", hold="1h")
        assert os.getxattr(shown, "user.recall.state") == b"released"
        return shown

    assert "5000" in run("h5dump", "-H", released())
    assert run("h5diff", kept, released()) == ""
    assert digest in run("sha256sum", released())
    assert run(program, released()) == f"{sum(kept.read_bytes())}\n"
    with h5py.File(released(), "r") as file:
        assert file["group/data"].shape == (5000,)
    with h5py.File(released(), "r+") as file:  # locks it, and writes
        file.attrs["touched"] = 1
    with h5py.File(native, "r", locking=False) as file:  # it is let go of a moment later
        assert file.attrs["touched"] == 1
    assert os.getxattr(shown, "user.recall.state") in (b"dirty", b"unknown")


def test_64_readers_share_one_recall(mount: Mount, tmp_path: Path) -> None:
    """All of them get the right bytes from one run of the recipe, and other files stay readable."""
    lab, count = mount.lab, tmp_path / "count"
    digest = sha256(lab.derive(recipe="counted", count_file=str(count), seconds=0.5))
    lab.prove()
    lab.release()
    count.unlink()
    mount.start()
    shown = mount.place / "derived.h5"
    readers = [
        subprocess.Popen(["sha256sum", shown], stdout=subprocess.PIPE, text=True) for _ in range(64)
    ]
    while not count.exists():
        time.sleep(0.01)
    assert sha256(mount.place / "raw.h5") == sha256(lab.root / "raw.h5")
    for reader in readers:
        assert reader.communicate()[0].split()[0] == digest
        assert reader.returncode == 0
    assert len(count.read_text().splitlines()) == 1


def test_who_gets_nothing_back(mount: Mount, tmp_path: Path) -> None:
    """Neither a backup nor a read that fails is told 'no such file'; the log says what failed."""
    lab = mount.lab
    released_file(lab, "a.bin")
    released_file(lab, "b.bin", b"other bytes")
    (lab.root / "plain").write_bytes(b"plain")
    mount.start()
    program = Path(shutil.copy("/bin/cat", tmp_path / "restic"))
    shown = mount.place / "a.bin"
    done = subprocess.run([program, shown], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert os.strerror(errno.EACCES) in done.stderr
    assert os.getxattr(shown, "user.recall.state") == b"released"
    (lab.base / "mirror").rename(lab.base / "gone")
    with pytest.raises(OSError, match=r"b[.]bin") as caught:
        (mount.place / "b.bin").read_bytes()
    assert caught.value.errno == errno.EIO
    assert 'operation="open" path="/b.bin" kind="' in mount.log
    assert (mount.place / "plain").read_bytes() == b"plain"


def test_other_users_have_their_own_rights(mount: Mount) -> None:
    """Root's mount gives nobody a file that its recorded mode keeps from them."""
    lab = mount.lab
    for folder in [lab.base, *lab.base.parents]:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    digest = released_file(lab, "a.bin")
    mount.start()
    native, shown = lab.root / "a.bin", mount.place / "a.bin"
    shown.chmod(0o600)

    def as_other(*command: str | Path) -> subprocess.CompletedProcess[str]:
        become = ["setpriv", "--reuid=64321", "--regid=64321", "--clear-groups"]
        return subprocess.run([*become, *command], capture_output=True, text=True, check=False)

    assert os.strerror(errno.EACCES) in as_other("cat", shown).stderr
    assert not native.exists()
    assert digest in run("sha256sum", shown)
    assert os.strerror(errno.EACCES) in as_other("cat", shown).stderr
    native.chmod(0o604)
    done = as_other("sha256sum", shown)
    assert digest in done.stdout, done.stderr
    lab.root.chmod(0o1777)
    assert as_other("touch", mount.place / "theirs").returncode == 0
    assert (lab.root / "theirs").stat().st_uid == 64321
    assert as_other("rm", "-f", shown).returncode == 1
    assert native.exists()
