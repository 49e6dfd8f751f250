"""A flipped bit is found wherever it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import Lab, sha256
from recallfs.catalog import records
from recallfs.catalog.vaulted import vault_place


def flip(path: Path) -> None:
    """Flip one bit, and leave no other trace of it than the ctime."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def place_of(lab: Lab, part: str) -> Path:
    """Give the file that a bit is flipped in."""
    store = lab.store
    gone, trashed = lab.entry("gone.h5"), lab.entry("trashed.h5")
    reference = records.load(store, gone.id).skeleton if part != "sidecar" else None
    skeleton = store.skeleton_path(reference.digest if reference else "")
    (environment, *_) = (store.control / "environments").iterdir()
    return {
        "file": lab.root / "derived.h5",
        "sidecar": store.sidecar_path(gone.id),
        "vault sidecar": vault_place(store, store.sidecar_path(gone.id)),
        "skeleton": skeleton,
        "vault skeleton": vault_place(store, skeleton),
        "environment": environment,
        "vault environment": vault_place(store, environment),
        "trash": store.trash_path(trashed.id),
    }[part]


@pytest.fixture
def stocked(lab: Lab) -> Lab:
    """Give a store with a resident, a purged and a trashed file."""
    lab.derive()
    for number, (name, hold) in enumerate((("gone.h5", "0s"), ("trashed.h5", "7d")), start=3):
        lab.derive(name, factor=float(number))
        lab.prove(name)
        lab.release(name, hold=hold)
    return lab


PARTS = {
    "file": "file",
    "sidecar": "sidecar",
    "vault sidecar": "vault",
    "skeleton": "skeleton",
    "vault skeleton": "vault",
    "environment": "environment",
    "vault environment": "vault",
    "trash": "trash",
}


def test_flipped_bit_is_found_anywhere(stocked: Lab) -> None:
    """One bit in each sort of file that is kept, one after the other; all else is as recorded."""
    clean = stocked.cli_json("verify", "--deep")
    assert clean["mismatches"] == []
    assert clean["read_bytes"] > 0
    for part, named in PARTS.items():
        place = place_of(stocked, part)
        before = sha256(place)
        flip(place)
        document = stocked.cli_json("verify", "--deep", "recall://lab", check=False)
        assert {item["part"] for item in document["mismatches"]} == {named}, part
        assert {item["place"] for item in document["mismatches"]} == {str(place)}
        if part == "file":
            (item,) = document["mismatches"]
            assert item["expected"] == f"sha256 {before}"
            assert item["actual"] == f"sha256 {sha256(place)}"
        flip(place)
        assert sha256(place) == before
    done = stocked.cli("verify", "--deep", "--jobs", "1")
    assert "all as recorded" in done.stdout


@pytest.mark.parametrize("part", ["file", "sidecar", "vault sidecar"])
def test_quick_way_finds_what_identities_and_digests_tell(stocked: Lab, part: str) -> None:
    """A write that restores the modification time still shows in the ctime."""
    assert stocked.cli("verify").returncode == 0
    flip(place_of(stocked, part))
    done = stocked.cli("verify", check=False)
    assert done.returncode == 1
    assert "1 mismatch" in done.stdout


def test_missing_things_are_mismatches(stocked: Lab) -> None:
    """A file, a trashed file or a skeleton that is gone is told, deep or not."""
    (stocked.root / "derived.h5").unlink()
    place_of(stocked, "trash").unlink()
    quick = stocked.cli_json("verify", check=False)["mismatches"]
    assert sorted(item["part"] for item in quick) == ["file", "trash"]
    place_of(stocked, "skeleton").unlink()
    deep = stocked.cli_json("verify", "--deep", check=False)["mismatches"]
    assert sorted(item["part"] for item in deep) == ["file", "skeleton", "trash"]


def test_verification_changes_nothing(stocked: Lab) -> None:
    """Neither files nor records are written to, whatever is wrong."""
    flip(stocked.root / "derived.h5")
    flip(place_of(stocked, "sidecar"))

    def contents() -> dict[str, str]:
        folders = (stocked.root, stocked.base / "vault")
        return {
            str(path): sha256(path)
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith("catalog.sqlite")
        }

    before = contents()
    assert stocked.cli("verify", "--deep", check=False).returncode == 1
    assert contents() == before
