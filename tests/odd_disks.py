"""Stories of disks that are not as usual, told in mount namespaces (see test_odd_disks.py)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from recallfs.cli.app import main
from recallfs.errors import AccessError

CONTENT = bytes(range(256)) * 400


def read(url: str) -> bytes:
    """Read a file through fsspec, as any reader would."""
    with fsspec.open(url) as file:
        return bytes(file.read())


def tell_of_no_inodes(base: Path) -> None:
    """Go through a disk whose inodes are used up, with bytes left."""
    disk = base / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m,nr_inodes=200", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    root = disk / "lab"
    assert main(["init", str(root), "--name", "lab", "--vault", str(base / "vault")]) == 0
    for name in ("one.bin", "two.bin"):
        (root / name).write_bytes(CONTENT)
    assert main(["add", str(root)]) == 0
    fsspec.filesystem("recall").stores.by_name("lab").catalog.close()
    fillers = []
    with contextlib.suppress(OSError):
        for number in range(1000):
            filler = disk / f"filler-{number}"
            filler.touch()
            fillers.append(filler)
    assert os.statvfs(disk).f_favail == 0
    assert os.statvfs(disk).f_bavail > 0

    assert read("recall://lab/one.bin") == CONTENT
    assert main(["status", "lab"]) == 0
    with (root / "two.bin").open("ab") as file:
        file.write(b"changed")
    for command in (["add", str(root)], ["pin", "recall://lab/one.bin"]):
        assert main(command) == 33, command
    for filler in fillers:
        filler.unlink()
    assert main(["add", str(root)]) == 0
    assert main(["pin", "recall://lab/one.bin"]) == 0
    assert read("recall://lab/two.bin") == CONTENT + b"changed"
    assert main(["verify", "--deep"]) == 0


def tell_of_a_read_only_root(base: Path) -> None:
    """Go through a store whose disk is mounted read-only, with a file that is gone."""
    root, mirror, cache = base / "lab", base / "mirror", base / "cache"
    os.environ["RECALLFS_CACHE__FOLDER"] = str(cache)
    mirror.mkdir()
    (mirror / "gone.bin").write_bytes(CONTENT)
    assert main(["init", str(root), "--name", "lab", "--vault", str(base / "vault")]) == 0
    with Path(os.environ["RECALLFS_CONFIG"]).open("a") as config:
        config.write(f'\n[[sources.mirror]]\nname = "m"\nurl = "file://{mirror}"\n')
    for name in ("gone.bin", "here.bin"):
        (root / name).write_bytes(CONTENT)
    assert main(["add", str(root)]) == 0
    (root / "gone.bin").unlink()
    before = {path: path.lstat() for path in root.rglob("*")}
    subprocess.run(["mount", "--bind", str(root), str(root)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(root)], check=True)

    assert read("recall://lab/here.bin") == CONTENT
    assert read("recall://lab/gone.bin") == CONTENT
    (copy,) = cache.rglob("gone.bin")
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(CONTENT).digest()
    assert main(["get", "recall://lab/gone.bin"]) == 0
    for command in (
        ["pin", "recall://lab/here.bin"],
        ["forget", "--yes", "recall://lab/here.bin"],
        ["catalog", "rebuild", "lab"],
    ):
        assert main(command) == 40, command
    with pytest.raises(AccessError, match="Read-only"):
        fsspec.open("recall://lab/new.bin", "wb").open()
    assert main(["doctor", "lab"]) == 0
    assert {path: path.lstat() for path in root.rglob("*")}.keys() == before.keys()


if __name__ == "__main__":
    story, place = sys.argv[1:]
    os.environ["RECALLFS_CONFIG"] = str(Path(place) / "config.toml")
    {"no-inodes": tell_of_no_inodes, "read-only": tell_of_a_read_only_root}[story](Path(place))
