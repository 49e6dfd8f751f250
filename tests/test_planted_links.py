"""Symlinks that somebody put into the control folder: nothing outside is touched through them."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from conftest import Lab, sha256
from recallfs.catalog import records
from recallfs.catalog.recovery import end_strays
from recallfs.errors import IntegrityError, RecallError
from recallfs.release.release import purge
from recallfs.resolve.chain import Limits
from recallfs.resolve.recall import recall
from recallfs.resolve.wish import Wish

State = tuple[bytes, int, int, int]


def state_of(path: Path) -> State:
    """Return all of a file that somebody could have changed."""
    status = path.lstat()
    return path.read_bytes(), status.st_mode, status.st_ino, status.st_nlink


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Give a file outside of every store."""
    place = tmp_path / "outside"
    place.write_bytes(b"somebody's")
    place.chmod(0o600)
    os.utime(place, ns=(1, 1))
    return place


def test_trashed_bytes_that_became_a_link(lab: Lab, outside: Path) -> None:
    """Neither a recall nor a purge nor a recovery follows a link in the trash."""
    lab.derive()
    lab.prove()
    lab.release(hold="1d")
    entry = lab.entry("derived.h5")
    trashed = lab.store.trash_path(entry.id)
    shutil.copyfile(trashed, outside)  # even the very bytes are not taken from there
    trashed.unlink()
    trashed.symlink_to(outside)
    before = state_of(outside)
    with pytest.raises(RecallError):
        recall(lab.stores, lab.store, "derived.h5", Wish(limits=Limits(only="trash")))
    purge(lab.store, entry.id)
    end_strays(lab.store)
    assert not os.path.lexists(lab.root / "derived.h5")
    assert state_of(outside) == before
    lab.cli("get", "recall://lab/derived.h5")  # by its recipe
    assert sha256(lab.root / "derived.h5") == entry.sha256
    assert state_of(outside) == before


@pytest.mark.parametrize("folder", ["trash", "staging", "entries", "skeletons", "locks", "logs"])
def test_folders_that_became_links(lab: Lab, tmp_path: Path, folder: str) -> None:
    """A linked folder stops everything that would go through it; its target stays as it was."""
    lab.derive()
    lab.prove()
    target = tmp_path / "elsewhere"
    (lab.store.control / folder).rename(target)
    (lab.store.control / folder).symlink_to(target)
    before = {path: path.lstat().st_mtime_ns for path in (target, *target.rglob("*"))}
    if folder not in ("staging", "logs"):  # a release needs neither
        with pytest.raises(IntegrityError, match="not followed") as caught:
            lab.release()
        assert caught.value.kind == "damaged-record"
    with contextlib.suppress(IntegrityError):
        lab.prove()  # it uses no trash, and does without a log
    assert (lab.root / "derived.h5").exists()
    said = lab.cli("get", "recall://lab/derived.h5", check=False)
    assert said.returncode != 0
    assert "Traceback" not in said.stderr
    assert {path: path.lstat().st_mtime_ns for path in (target, *target.rglob("*"))} == before


@pytest.mark.parametrize("name", ["catalog.sqlite", "store.toml"])
def test_files_that_became_links(lab: Lab, outside: Path, name: str) -> None:
    """A linked catalog or store file is refused, whatever it leads to."""
    lab.derive()
    lab.store.catalog.close()
    place = lab.store.control / name
    place.unlink()
    place.symlink_to(outside)
    before = state_of(outside)
    said = lab.cli("status", "lab", check=False)
    assert said.returncode != 0
    assert "not followed" in said.stdout
    assert state_of(outside) == before


def test_locks_and_records_that_became_links(lab: Lab, outside: Path) -> None:
    """A lock is not opened, and a sidecar not read, through a link."""
    lab.derive()
    entry = lab.entry("derived.h5")
    sidecar = lab.store.sidecar_path(entry.id)
    shutil.copyfile(sidecar, outside)
    before = state_of(outside)
    sidecar.unlink()
    sidecar.symlink_to(outside)
    with pytest.raises(IntegrityError, match="not followed"):
        records.load(lab.store, entry.id)
    lock = lab.store.control / "locks" / "store"
    lock.unlink()
    lock.symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"), lab.store.lock(entry.id):
        pass
    assert state_of(outside) == before


def test_a_vault_folder_that_became_a_link(lab: Lab, tmp_path: Path) -> None:
    """Evidence is not written through a link in the vault, and nothing is released then."""
    lab.derive()
    lab.prove()
    target = tmp_path / "elsewhere"
    target.mkdir()
    (lab.store.vault / lab.store.id).symlink_to(target)
    with pytest.raises(IntegrityError, match="not followed"):
        lab.release()
    assert list(target.iterdir()) == []
    assert (lab.root / "derived.h5").exists()


def test_what_a_recipe_wrote_as_a_link_is_not_committed(lab: Lab, outside: Path) -> None:
    """A staged symlink is not given a name, and what it leads to keeps its mode."""
    from recallfs.digest.stream import digest_file
    from recallfs.resolve.commit import commit_new

    before = state_of(outside)
    with lab.store.staging() as scratch:
        staged = scratch / "data"
        staged.symlink_to(outside)
        with pytest.raises(IntegrityError):
            commit_new(lab.store, "new.bin", staged, digest_file(outside))
    assert not os.path.lexists(lab.root / "new.bin")
    assert state_of(outside) == before
