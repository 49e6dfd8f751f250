"""What the doctor says of disks, mounts and rights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from actors import examine_without_rights
from conftest import Lab
from processes import run_with_own_mounts, start
from recallfs.doctor.computer import NETWORK, Mount, check_disk, mount_of

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /data rw - nfs4 server:/export rw,vers=4.2
31 30 8:2 / /data/with\\040blank rw - xfs /dev/sdb1 rw
32 22 0:50 / /home/ana/lab rw - fuse.sshfs ana@server: rw
33 22 0:51 / /twice rw - ext4 /dev/sdc1 rw
34 22 0:52 / /twice rw - cifs //server/share rw
broken line
"""


@pytest.mark.parametrize(
    ("place", "point", "kind"),
    [
        ("/etc", "/", "ext4"),
        ("/data", "/data", "nfs4"),
        ("/data/x/y", "/data", "nfs4"),
        ("/data/with blank/x", "/data/with blank", "xfs"),
        ("/database", "/", "ext4"),
        ("/home/ana/lab/x", "/home/ana/lab", "fuse.sshfs"),
        ("/twice", "/twice", "cifs"),
    ],
)
def test_mount_of_a_path(place: str, point: str, kind: str) -> None:
    """The innermost mount counts, and of two on one folder the later one."""
    assert mount_of(Path(place), TABLE) == Mount(Path(point), kind)


def test_mount_of_a_real_path_is_known(tmp_path: Path) -> None:
    """The kernel's own table is read, and a local disk is not taken for a network's."""
    if Path("/proc/self/mountinfo").exists():
        found = mount_of(tmp_path)
        assert found is not None
        assert os.path.ismount(found.point)
    assert mount_of(tmp_path, "") is None


def test_sqlite_on_a_network_is_advised_against(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind of the file system decides; a store with a server's catalog is left in peace."""
    here = mount_of(lab.root)
    if here is None:
        return  # a system without mountinfo says nothing
    monkeypatch.setattr("recallfs.doctor.computer.NETWORK", NETWORK | {here.kind})
    assert [f.id for f in check_disk(lab.store) if f.id == "wal-on-network"]
    lab.write_config()
    text = lab.config.read_text().replace(
        f'root = "{lab.root}"', f'root = "{lab.root}"\ncatalog = "sqlite:///{lab.base}/c.sqlite"'
    )
    lab.config.write_text(text)
    assert not [f for f in check_disk(lab.store) if f.id == "wal-on-network"]


SMALL_DISK = """
import json, os, subprocess, sys
from recallfs.cli.app import main
base = sys.argv[1]
os.mkdir(f"{base}/lab")
subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=24m,nr_inodes=800", "tmpfs", f"{base}/lab"], check=True
)
os.environ["RECALLFS_CONFIG"] = f"{base}/config.toml"
assert main(["init", f"{base}/lab", "--name", "lab", "--vault", f"{base}/vault", "--json"]) == 0
print("----")
main(["doctor", "--json"])
"""


@pytest.mark.services
def test_small_disk_is_told(tmp_path: Path) -> None:
    """A disk that is nearly full, in bytes or in files, is a warning; one apart is no fault."""
    script = tmp_path / "script.py"
    script.write_text(SMALL_DISK)
    said = run_with_own_mounts(script, tmp_path)
    report, _ = json.JSONDecoder().raw_decode(said.partition("----\n")[2])
    assert {item["id"] for item in report["findings"]} >= {"space-low", "inodes-low"}
    assert "vault-same-disk" not in {item["id"] for item in report["findings"]}
    assert report["healthy"]


def test_reader_without_rights_gets_a_report(lab: Lab) -> None:
    """Who may not write is told so, and nothing is tried that needs writing."""
    (lab.root / "a.bin").write_bytes(b"x" * 100)
    lab.cli("add", str(lab.root))
    lab.store.catalog.close()
    output = lab.base / "report"
    process = start(examine_without_rights, str(output))
    process.join(60)
    assert process.exitcode == 0
    assert "not-writable" in output.read_text().split()
