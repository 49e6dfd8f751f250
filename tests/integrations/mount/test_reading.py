"""Programs that know nothing of recallfs read released files through a mount."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
import pytest

from conftest import sha256
from integrations.mount.conftest import Mount, run

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
    place = lab.derive("sub/derived.h5")
    place.chmod(0o640)
    before = place.stat()
    lab.prove("sub/derived.h5")
    digest = sha256(place)
    lab.release("sub/derived.h5")
    mount.start()
    shown = mount.place / "sub" / "derived.h5"
    assert sorted(p.name for p in mount.place.iterdir()) == ["raw.h5", "sub"]
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
    assert os.statvfs(shown).f_blocks == os.statvfs(lab.root).f_blocks
    assert not place.exists()
    with pytest.raises(FileNotFoundError):
        (mount.place / "nothing.h5").stat()


def test_ordinary_programs_open_released_files(mount: Mount, tmp_path: Path) -> None:
    """h5dump, h5diff, cp, sha256sum, a C program with mmap and h5py each get the very bytes."""
    lab = mount.lab
    native = lab.derive()
    digest, total = sha256(native), sum(native.read_bytes())
    kept = Path(shutil.copy2(native, tmp_path / "kept.h5"))
    lab.prove()
    mount.start()
    shown = mount.place / "derived.h5"
    source, program = tmp_path / "mapping.c", tmp_path / "mapping"
    source.write_text(_MAPPING)
    run("gcc", "-O1", "-o", program, source)

    def released() -> Path:
        lab.release(hold="1h")
        assert os.getxattr(shown, "user.recall.state") == b"released"
        return shown

    assert "2000, 32" in run("h5dump", "-H", released())
    assert run("h5diff", kept, released()) == ""
    run("cp", "-p", released(), tmp_path / "copy.h5")
    assert sha256(tmp_path / "copy.h5") == digest
    assert (tmp_path / "copy.h5").stat().st_mtime_ns == kept.stat().st_mtime_ns
    assert digest in run("sha256sum", released())
    assert run(program, released()) == f"{total}\n"
    with h5py.File(released(), "r") as file:
        assert file["data"].shape == (2000, 32)
    with h5py.File(released(), "r+") as file:  # locks it, and writes
        file.attrs["touched"] = 1
    assert os.getxattr(shown, "user.recall.state") in (b"dirty", b"unknown")


def test_64_readers_share_one_recall(mount: Mount, tmp_path: Path) -> None:
    """All of them get the right bytes from one run of the recipe, and other files stay readable."""
    lab, count = mount.lab, tmp_path / "count"
    digest = sha256(lab.derive(recipe="counted", count_file=str(count), seconds=1.0))
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
    assert not (lab.root / "derived.h5").exists()
    for reader in readers:
        assert reader.communicate()[0].split()[0] == digest
        assert reader.returncode == 0
    assert len(count.read_text().splitlines()) == 1


def test_backups_bring_nothing_back(mount: Mount, tmp_path: Path) -> None:
    """A program of the deny list sees the file and may not read it; an ordinary one may."""
    mount.lab.released()
    mount.start()
    program = Path(shutil.copy("/bin/cat", tmp_path / "restic"))
    shown = mount.place / "derived.h5"
    done = subprocess.run([program, shown], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert os.strerror(errno.EACCES) in done.stderr
    assert os.getxattr(shown, "user.recall.state") == b"released"


def test_what_cannot_come_back_is_an_input_output_error(mount: Mount) -> None:
    """Nothing recorded is ever 'no such file'; the log says why, and other files are served."""
    lab = mount.lab
    lab.released()
    lab.config.write_text(f'[stores.lab]\nroot = "{lab.root}"\n')  # the recipe is gone
    mount.start()
    with pytest.raises(OSError, match="derived") as caught:
        (mount.place / "derived.h5").read_bytes()
    assert caught.value.errno == errno.EIO
    assert 'operation="open" path="/derived.h5" kind="' in mount.log
    assert sha256(mount.place / "raw.h5") == sha256(lab.root / "raw.h5")


def test_a_reader_that_waits_can_be_interrupted(mount: Mount, tmp_path: Path) -> None:
    """Ctrl-C ends the wait at once; the recall goes on, and the next reader has its bytes."""
    lab, go = mount.lab, tmp_path / "go"
    go.touch()
    count = tmp_path / "count"
    digest = sha256(lab.derive(recipe="waiting", count_file=str(count), wait_for=str(go)))
    lab.prove()
    lab.release()
    go.unlink()
    count.unlink()
    mount.start()
    shown = mount.place / "derived.h5"
    reader = subprocess.Popen(["cat", shown], stdout=subprocess.DEVNULL)
    while not count.exists():
        time.sleep(0.01)
    reader.send_signal(signal.SIGINT)
    assert reader.wait(10) == -signal.SIGINT
    go.touch()
    assert hashlib.sha256(shown.read_bytes()).hexdigest() == digest
    assert len(count.read_text().splitlines()) == 1


def test_other_users_have_their_own_rights(mount: Mount) -> None:
    """Root's mount gives nobody a file that its recorded mode keeps from them."""
    lab = mount.lab
    lab.base.chmod(0o755)
    for folder in [lab.base, *lab.base.parents]:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    place = lab.derive()
    place.chmod(0o600)
    lab.prove()
    mount.start()
    shown = mount.place / "derived.h5"

    def as_other(*command: str | Path) -> subprocess.CompletedProcess[str]:
        become = ["setpriv", "--reuid=64321", "--regid=64321", "--clear-groups"]
        return subprocess.run([*become, *command], capture_output=True, text=True, check=False)

    lab.release(hold="1h")
    assert os.strerror(errno.EACCES) in as_other("cat", shown).stderr
    assert not place.exists()
    digest = run("sha256sum", shown).split()[0]
    assert os.strerror(errno.EACCES) in as_other("cat", shown).stderr
    place.chmod(0o604)
    done = as_other("sha256sum", shown)
    assert digest in done.stdout, done.stderr
    lab.root.chmod(0o1777)
    assert as_other("touch", mount.place / "theirs").returncode == 0
    assert (lab.root / "theirs").stat().st_uid == 64321
    assert as_other("rm", "-f", shown).returncode == 1
    assert place.exists()
