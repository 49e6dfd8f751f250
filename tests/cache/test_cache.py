"""The reader's cache by itself: what is kept, what goes, what is not believed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import Lab, sha256
from recallfs.cache.cache import Cache
from recallfs.config import CacheSettings
from recallfs.skeleton.neighbours import needed_neighbour
from recallfs.values import Entry


def kept(lab: Lab, cache: Cache, name: str, size: int, *, age_s: float) -> tuple[Entry, Path]:
    """Put a file into the cache, as if it had been used some time ago."""
    from recallfs.resolve.commit import add_existing

    (lab.root / name).write_bytes(os.urandom(size))
    (entry,) = add_existing(lab.store, [name])
    with cache.lock(entry), cache.staging(size) as scratch:
        staged = scratch / "data"
        staged.write_bytes((lab.root / name).read_bytes())
        path = cache.keep(entry, staged, entry.sha256)
    note = cache.notes.of(path)
    os.utime(note, (time.time() - age_s, time.time() - age_s))
    return entry, path


@pytest.fixture
def cache(lab: Lab) -> Cache:
    """Give a cache of 100 kB."""
    return Cache(CacheSettings(lab.base / "cache", 100_000))


def test_what_was_not_used_for_the_longest_goes_first(lab: Lab, cache: Cache) -> None:
    """Above its limit the cache drops by last use, down to the limit and hardly further."""
    roomy = Cache(CacheSettings(cache.folder))
    _, old = kept(lab, roomy, "old", 40_000, age_s=900)
    entry, used = kept(lab, roomy, "used", 40_000, age_s=9000)
    _, newer = kept(lab, roomy, "newer", 40_000, age_s=500)
    assert cache.find(entry, {entry.sha256}) == used
    cache.trim()
    assert (old.exists(), used.exists(), newer.exists()) == (False, True, True)


def test_young_and_open_files_stay(lab: Lab, cache: Cache) -> None:
    """What was just brought, or is open in this process, outlives the limit."""
    roomy = Cache(CacheSettings(cache.folder))
    _, opened = kept(lab, roomy, "opened", 90_000, age_s=900)
    _, young = kept(lab, roomy, "young", 90_000, age_s=1)
    with opened.open("rb"):
        cache.trim()
        assert opened.exists()
    cache.trim()
    assert not opened.exists()
    assert young.exists()


def test_copy_is_hashed_again_when_in_doubt(lab: Lab, cache: Cache) -> None:
    """A file with another identity is served only if its bytes are right."""
    entry, path = kept(lab, cache, "a", 1000, age_s=0)
    os.utime(path)
    assert cache.find(entry, {entry.sha256}) == path
    path.chmod(0o600)
    path.write_bytes(b"x" * 1000)
    assert cache.find(entry, {entry.sha256}) is None
    assert not path.exists()


def test_cache_is_private(lab: Lab, cache: Cache) -> None:
    """Nobody else may look into it, even if its folder was made too open."""
    cache.folder.mkdir(mode=0o755)
    _, path = kept(lab, cache, "a.h5", 1000, age_s=0)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o400
    assert path.name == "a.h5"
    assert path.parent.name == sha256(path)


def _external_link(file: h5py.File) -> None:
    file.create_group("deep")["there"] = h5py.ExternalLink("other.h5", "/data")


def _external_storage(file: h5py.File) -> None:
    file.create_dataset("raw", shape=(4,), dtype="f8", external=[("raw.bin", 0, 32)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource("raw.h5", "data", shape=(4,))
    file.create_virtual_dataset("view", layout)


def _absolute(file: h5py.File) -> None:
    file["there"] = h5py.ExternalLink("/data/other.h5", "/data")
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource(".", "data", shape=(4,))
    file["data"] = np.arange(4.0)
    file["soft"] = h5py.SoftLink("/nowhere")
    file["loop"] = file["/"]
    file.create_virtual_dataset("own", layout)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (_external_link, "/deep/there is a link to other.h5"),
        (_external_storage, "/raw has its values in raw.bin"),
        (_virtual, "/view is a view of raw.h5"),
        (_absolute, None),
    ],
)
def test_files_that_need_a_neighbour_are_known(
    tmp_path: Path, write: object, expected: str | None
) -> None:
    """Links, views and values in files named relative to this one are found; others do no harm."""
    assert callable(write)
    with h5py.File(tmp_path / "file.h5", "w") as file:
        write(file)
    assert needed_neighbour(tmp_path / "file.h5") == expected
    (tmp_path / "text").write_text("no HDF5")
    assert needed_neighbour(tmp_path / "text") is None
