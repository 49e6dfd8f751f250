"""Which file system a path is on: the kernel's table, its escapes and what covers what."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recallfs.mounts import MountInfo, file_system, find, is_network, read_mounts

TABLE = b"""\
20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
21 20 0:5 / /proc rw shared:2 - proc proc rw
30 20 0:40 / /data rw,relatime shared:3 master:2 - nfs4 nas.lab:/export/data rw,vers=4.2
31 30 8:17 / /data/local\\040disk rw - xfs /dev/sdb1 rw
32 20 0:41 / /data2 rw - zfs tank/data2 rw
33 20 8:1 /srv/x /bound rw - ext4 /dev/sda1 rw
34 20 0:40 /ana /home/ana rw - nfs4 nas.lab:/export/data rw
35 20 0:42 / /net rw - autofs auto.net rw
36 35 0:43 / /net/nas rw - autofs auto.net rw
37 36 0:44 / /net/nas rw - nfs nas:/ rw
40 20 0:45 / /old/deep rw - nfs nas:/hidden rw
41 20 8:33 / /old rw - ext4 /dev/sdc1 rw
42 20 0:46 / /media/a\\134b\\011c\\012d\\043e rw - cifs //nas/share rw
43 20 0:47 / /ssh rw - fuse.sshfs ana@host:/ rw
44 20 8:49 / /usb rw - fuseblk /dev/sdd1 rw
45 20 0:48 / /odd rw - panasas realm://x rw
46 20 0:49 / /odd2 rw - newfs server:/share rw
47 20 0:50 / /gr\xf6\xdfe rw - tmpfs tmpfs rw
48 20 0:51 / /fuse rw - fuse rclone rw
49 20 0:52 / /over rw - overlay overlay rw,lowerdir=/a:/b
a broken line
50 20 0:53
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write a mount table to a file."""
    path = tmp_path / "mountinfo"
    path.write_bytes(TABLE)
    return path


@pytest.mark.parametrize(
    ("path", "kind", "mount_point", "remote"),
    [
        ("/", "ext4", "/", False),
        ("/dat", "ext4", "/", False),
        ("/data", "nfs4", "/data", True),
        ("/data/x/y", "nfs4", "/data", True),
        ("/data/local disk/x", "xfs", "/data/local disk", False),
        ("/data/local", "nfs4", "/data", True),
        ("/data2/x", "zfs", "/data2", False),
        ("/bound/x", "ext4", "/bound", False),
        ("/home/ana/x", "nfs4", "/home/ana", True),
        ("/home/anatol", "ext4", "/", False),
        ("/net/other", "autofs", "/net", True),
        ("/net/nas/x", "nfs", "/net/nas", True),
        ("/old/deep/x", "ext4", "/old", False),
        ("/media/a\\b\tc\nd#e/x", "cifs", "/media/a\\b\tc\nd#e", True),
        ("/ssh/x", "fuse.sshfs", "/ssh", True),
        ("/usb/x", "fuseblk", "/usb", False),
        ("/odd2/x", "newfs", "/odd2", True),
        (os.fsdecode(b"/gr\xf6\xdfe/x"), "tmpfs", os.fsdecode(b"/gr\xf6\xdfe"), False),
        ("/fuse/x", "fuse", "/fuse", True),
        ("/over/x", "overlay", "/over", False),
    ],
)
def test_the_mount_of_a_path_is_found(
    table: Path, path: str, kind: str, mount_point: str, remote: bool
) -> None:
    """Nested, bound, stacked, hidden and oddly named mounts are told apart as the kernel does."""
    found = find(read_mounts(table), Path(path))
    assert (found.kind, found.mount_point, found.is_network) == (kind, mount_point, remote)


def test_mounts_on_the_root_are_stacked(tmp_path: Path) -> None:
    """Where the root is mounted over, the topmost mount counts."""
    table = tmp_path / "mountinfo"
    table.write_text("1 1 0:1 / / rw - rootfs rootfs rw\n2 1 0:2 / / rw - nfs nas:/root rw\n")
    expected = MountInfo("nfs", "nas:/root", "/", True, "0:2", "/")
    assert find(read_mounts(table), Path("/x")) == expected


@pytest.mark.parametrize(
    "content", [b"", b"nonsense\n", b"7 6 0:1 / /mnt rw - ext4 /dev/sda1 rw\n"]
)
def test_an_unknown_table_is_no_error(tmp_path: Path, content: bytes) -> None:
    """Without a table, or in a root folder that it does not list, nothing is claimed."""
    table = tmp_path / "mountinfo"
    assert read_mounts(table) == []
    table.write_bytes(content)
    assert find(read_mounts(table), Path("/x")) == MountInfo("", "", "/", False)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no mount table to read")
def test_this_computer_agrees_with_stat(tmp_path: Path) -> None:
    """The mount found for real folders is the one that the kernel says."""
    (tmp_path / "link").symlink_to("/proc/self")
    assert file_system(tmp_path / "link").kind == "proc"
    assert file_system(tmp_path / "link").mount_point == "/proc"
    found = file_system(tmp_path / "not" / "there" / "yet")
    assert found == file_system(tmp_path)
    assert Path(found.mount_point).stat().st_dev == tmp_path.stat().st_dev


@pytest.mark.services
def test_real_mounts_that_cover_each_other(tmp_path: Path) -> None:
    """With real mounts below, on top of and beside each other, the answers are the kernel's."""
    script = """
        set -e
        mkdir -p "$1/a b/deep" "$1/bound"
        mount -t tmpfs inner "$1/a b/deep"
        mount --bind "$1/a b/deep" "$1/bound"
        mount -t tmpfs outer "$1/a b"
        mkdir "$1/a b/deep"
        exec "$2" -c "$3" "$1"
    """
    code = (
        "import sys, pathlib; from recallfs.mounts import file_system as f\n"
        "p = pathlib.Path(sys.argv[1])\n"
        "for q in ('a b/deep', 'bound', '.'):\n"
        "    m = f(p / q); print(m.source, m.mount_point.removeprefix(str(p)), m.is_network)"
    )
    prefix = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "-r", "--mount"]
    done = subprocess.run(
        [*prefix, "sh", "-c", script, "sh", tmp_path, sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["outer /a b False", "inner /bound False"]
    assert not is_network(tmp_path) or lines[2].endswith("True")
