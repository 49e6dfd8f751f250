"""The reader's cache by itself: what is kept, what goes, what is not believed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from actors import wait_for
from cache_actors import hold_open, keep_killed, keep_many
from conftest import Lab, sha256
from processes import start
from recallfs.cache.cache import Cache
from recallfs.cache.shelf import Kept, Usage
from recallfs.cache.trust import is_beyond_others
from recallfs.config import CacheSettings
from recallfs.resolve.commit import add_existing
from recallfs.skeleton.neighbours import needed_neighbour
from recallfs.values import Entry


def kept(lab: Lab, cache: Cache, name: str, size: int, *, age_s: float) -> tuple[Entry, Path]:
    """Put a file into the cache, as if it had been used some time ago."""
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


def test_file_that_another_process_has_open_stays(lab: Lab, cache: Cache) -> None:
    """The kernel tells of readers anywhere on the computer, not only in this process."""
    roomy = Cache(CacheSettings(cache.folder))
    _, opened = kept(lab, roomy, "opened", 90_000, age_s=9000)
    _, other = kept(lab, roomy, "other", 90_000, age_s=900)
    reader = start(hold_open, str(opened), str(lab.base / "ready"))
    try:
        wait_for(lab.base / "ready", reader)
        cache.trim()
        assert (opened.exists(), other.exists()) == (True, False)
    finally:
        reader.kill()
        reader.join()
    kept(lab, roomy, "more", 90_000, age_s=900)
    cache.trim()
    assert not opened.exists()


def test_file_larger_than_the_limit_is_kept_while_it_is_needed(lab: Lab, cache: Cache) -> None:
    """It is brought all the same, nothing else makes way for it, and it goes first."""
    _, small = kept(lab, cache, "small", 40_000, age_s=9000)
    with cache.staging(300_000):
        assert small.exists()
    _, large = kept(lab, cache, "large", 300_000, age_s=100)
    cache.trim()
    assert (small.exists(), large.exists()) == (True, False)


def test_room_is_made_before_the_bytes_come(lab: Lab, cache: Cache) -> None:
    """Space is promised once: what two bring at a time counts for both before either is there."""
    _, first = kept(lab, cache, "first", 30_000, age_s=9000)
    _, second = kept(lab, cache, "second", 30_000, age_s=900)
    with cache.staging(30_000) as one:
        assert one.is_dir()
        assert first.exists()
        with cache.staging(30_000):
            assert (first.exists(), second.exists()) == (False, True)
    assert not list((cache.folder / "staging").iterdir())


@pytest.mark.parametrize("moment", ["staged", "kept"])
def test_killed_amid_keeping(lab: Lab, cache: Cache, moment: str) -> None:
    """What a killed process left is either not there or found right; its promise of space ends."""
    (lab.root / "a").write_bytes(b"content")
    (entry,) = add_existing(lab.store, ["a"])
    process = start(keep_killed, str(cache.folder), entry, b"content", moment)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert len(list((cache.folder / "staging").iterdir())) == 1
    found = cache.find(entry, {entry.sha256})
    if moment == "staged":
        assert found is None
    else:
        assert found is not None
        assert found.read_bytes() == b"content"
    with cache.staging(1):
        assert len(list((cache.folder / "staging").iterdir())) == 1
    assert cache.own.count() == cache.own_usage()


def test_sum_holds_when_several_add_at_once(lab: Lab, cache: Cache) -> None:
    """What processes add up together is what is there; it is counted again if its file is gone."""
    names = [f"f{number}" for number in range(24)]
    for name in names:
        (lab.root / name).write_text(name)
    entries = add_existing(lab.store, names)
    workers = [
        start(keep_many, str(cache.folder), entries[number::3], b"12345") for number in range(3)
    ]
    for worker in workers:
        worker.join(60)
    assert cache.own_usage() == Usage(24, 24 * 5)
    (cache.folder / "usage").unlink()
    assert cache.own_usage() == Usage(24, 24 * 5)
    assert cache.clear() == Usage(0, 0)
    for note in (cache.folder / "verified").glob("*/*"):
        os.utime(note, (1, 1))
    assert cache.clear(unused_s=3600) == Usage(24, 24 * 5)
    assert cache.own_usage() == Usage(0, 0)
    assert not list((cache.folder / "verified").glob("*/*"))


def test_same_bytes_are_kept_once_whatever_they_are_called(lab: Lab, cache: Cache) -> None:
    """Another entry with the same digest finds the file, by its own name."""
    entry, path = kept(lab, cache, "one.h5", 1000, age_s=0)
    (lab.root / "deep").mkdir()
    (lab.root / "deep/two.nwb").write_bytes(path.read_bytes())
    (other,) = add_existing(lab.store, ["deep/two.nwb"])
    found = cache.find(other, {other.sha256})
    assert found is not None
    assert (found.name, found.resolve()) == ("two.nwb", path)
    assert cache.find(other, {other.sha256}) == found
    assert cache.find(entry, {entry.sha256}) == path
    assert cache.own_usage() == Usage(1, 1000)
    path.unlink()
    assert cache.find(other, {other.sha256}) is None


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_planted_things_are_neither_read_nor_waited_for(lab: Lab, cache: Cache, kind: str) -> None:
    """What is no regular file is no file of ours."""
    entry, path = kept(lab, cache, "a", 1000, age_s=0)
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(lab.root / "a")
    else:
        path.mkdir()
    assert cache.find(entry, {entry.sha256}) is None
    cache.trim()
    cache.clear()
    assert (lab.root / "a").exists()


def test_who_could_change_a_file_is_known() -> None:
    """Others' write rights on the file or on a folder above it, and second names, are noticed."""
    base = Path(tempfile.mkdtemp())  # not below pytest's, which others may be able to write to
    try:
        path = base / "file"
        path.write_bytes(b"x")
        path.chmod(0o444)
        trusted = {0, os.geteuid()}
        assert is_beyond_others(path, trusted)
        assert not is_beyond_others(path, {os.geteuid() + 1})
        path.chmod(0o464)
        assert not is_beyond_others(path, trusted)
        path.chmod(0o444)
        base.chmod(0o775)
        assert not is_beyond_others(path, trusted)
        base.chmod(0o1777)
        assert is_beyond_others(path, trusted)
        (base / "second").hardlink_to(path)
        assert not is_beyond_others(path, trusted)
        (base / "second").unlink()
        (base / "link").symlink_to(path)
        assert not is_beyond_others(base / "link", trusted)
    finally:
        shutil.rmtree(base)


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


def test_what_is_found_while_others_are_removed_stays(lab: Lab, cache: Cache) -> None:
    """A file that somebody uses after the files were listed is not removed any more."""
    roomy = Cache(CacheSettings(cache.folder))
    kept(lab, roomy, "first", 1000, age_s=9000)
    entry, second = kept(lab, roomy, "second", 1000, age_s=900)
    asked = []

    def used(item: Kept) -> float:
        moment = cache.notes.used(cache.own.path_of(item.sha256, item.name))
        asked.append(item)
        if len(asked) == 2:
            assert cache.find(entry, {entry.sha256}) == second
        return moment

    def used_now(item: Kept) -> float:
        return cache.notes.used(cache.own.path_of(item.sha256, item.name))

    gone = cache.own.trim(-1, used, used_now=used_now, large_bytes=10**6)
    assert [item.name for item in gone] == ["first"]
