"""Snapshots that keep dropped bytes are told, as far as they can be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

import pytest

from recallfs.mounts import find, read_mounts
from recallfs.release.snapshots import _layers, told

MOUNTS = """\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:40 / /tank rw - zfs tank rw
3 1 0:41 / /data rw - btrfs /dev/sdb rw
4 1 0:42 / /nas rw - nfs4 filer:/vol1 rw
"""


def seen(folders: dict[str, Sequence[str]]) -> Callable[[Path], Sequence[str] | None]:
    """List folders as they were given, and no others."""
    return lambda folder: folders.get(str(folder))


@pytest.mark.parametrize(
    ("root", "folders", "said"),
    [
        ("/lab", {}, ""),
        ("/tank/lab", {"/tank/.zfs/snapshot": ["daily-1", "daily-2"]}, "keeps snapshots (2 in /t"),
        ("/tank/lab", {"/tank/.zfs/snapshot": []}, ""),
        ("/tank/lab", {}, "may keep snapshots"),
        ("/data/lab", {}, "may keep snapshots"),
        ("/data/lab", {"/data/.snapshots": ["1"]}, "keeps snapshots (1 in /data/.snapshots)"),
        ("/nas/lab", {"/nas/lab/.snapshot": ["hourly.0"]}, "(1 in /nas/lab/.snapshot)"),
        ("/nas/lab", {}, ""),
    ],
)
def test_snapshots_are_told(
    tmp_path: Path, root: str, folders: dict[str, Sequence[str]], said: str
) -> None:
    """What shows is counted, what cannot be seen is said to be possible, all else is silent."""
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    info = find(read_mounts(table), PurePath(root))
    sentence = told(info, Path(root), seen(folders))
    assert said in sentence if said else sentence == ""


def test_thin_volumes_are_told(tmp_path: Path) -> None:
    """The device mapper's own names show the pool below a volume."""
    block = tmp_path / "block"
    for place, name in (("253:3/dm", "LVM-abc"), ("253:3/slaves/dm-2/dm", "LVM-def-tpool")):
        (block / place).mkdir(parents=True)
        (block / place / "uuid").write_text(f"{name}\n")
    table = tmp_path / "mountinfo"
    table.write_text("1 0 253:3 / / rw - xfs /dev/mapper/vg-lab rw\n")
    info = find(read_mounts(table), PurePath("/lab"))
    layers = _layers(info.device, block)
    assert layers == ["LVM-abc", "LVM-def-tpool"]
    assert "fstrim" in told(info, Path("/lab"), seen({}), layers)
    assert not told(info, Path("/lab"), seen({}), layers[:1])
