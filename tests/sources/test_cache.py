"""The cache as a source: files kept for one store serve another, copied and verified."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from conftest import Lab, sha256
from recallfs.cache.cache import Cache
from recallfs.catalog import records
from recallfs.config import CacheSettings
from recallfs.errors import NotRecallableError, SourceError
from recallfs.resolve.chain import Limits, plan_for
from recallfs.resolve.commit import add_existing
from recallfs.resolve.recall import recall
from recallfs.resolve.wish import Wish
from recallfs.sources.base import Request
from recallfs.sources.cache import CacheSource
from recallfs.values import Entry


def cached_file(lab: Lab, path: str = "a.bin", size: int = 300_000) -> tuple[Entry, Path]:
    """Put a file of the store into the cache; its bytes in the store are gone."""
    (lab.root / path).write_bytes(os.urandom(size))
    (entry,) = add_existing(lab.store, [path])
    cache = Cache(lab.stores.config.cache)
    with cache.lock(entry), cache.staging(size) as scratch:
        (lab.root / path).rename(scratch / "data")
        return entry, cache.keep(entry, scratch / "data", entry.sha256)


def test_cached_file_comes_back_by_copy(lab: Lab) -> None:
    """The store gets bytes of its own: what is written there later does not change the cache."""
    entry, kept = cached_file(lab)
    plan = plan_for(lab.stores, lab.store, entry)
    assert [step.source for step in plan.steps] == ["cache"]
    done = recall(lab.stores, lab.store, "a.bin")
    assert (done.source, done.method, done.is_cached) == ("cache", "from your cache", False)
    assert sha256(done.path) == entry.sha256
    assert done.path.stat().st_ino != kept.stat().st_ino
    done.path.chmod(0o600)
    with done.path.open("r+b") as file:
        file.write(b"changed")
    assert sha256(kept) == entry.sha256


def test_nothing_cached_is_absent(lab: Lab) -> None:
    """Without such a file it offers nothing; asked all the same, it says that it has none."""
    lab.write_raw()
    entry = lab.entry("raw.h5")
    source, record = (
        CacheSource(CacheSettings(lab.base / "none")),
        records.load(lab.store, entry.id),
    )
    assert source.offer(lab.store, record) is None
    with pytest.raises(NotRecallableError):
        source.fetch(Request(lab.store, record, lab.base))
    assert not (lab.base / "none").exists()


def test_wrong_copy_is_removed_and_never_served(lab: Lab) -> None:
    """Bits that flipped in the cache are noticed in the copy; the next source is asked."""
    entry, kept = cached_file(lab)
    content = bytearray(kept.read_bytes())
    content[1000] ^= 1
    status = kept.stat()
    kept.chmod(0o600)
    kept.write_bytes(content)
    os.utime(kept, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(NotRecallableError):
        recall(lab.stores, lab.store, "a.bin", Wish(limits=Limits(only="cache")))
    assert not kept.exists()
    assert not (lab.root / entry.path).exists()
    assert Cache(lab.stores.config.cache).own_usage().files == 0


def test_cancelled_copy_ends(lab: Lab) -> None:
    """A copy that nobody waits for any more is given up."""
    entry, _ = cached_file(lab)
    cancelled = threading.Event()
    cancelled.set()
    request = Request(lab.store, records.load(lab.store, entry.id), lab.base, cancelled=cancelled)
    source = CacheSource(lab.stores.config.cache)
    try:
        fetched = source.fetch(request)
    except SourceError:
        return
    assert fetched.digests is not None  # the file system shared its blocks: there was no copy


def test_copy_in_the_cache_is_no_reason_to_release(lab: Lab) -> None:
    """A cache may be cleared at any time: what is in it does not count as a copy."""
    entry, _ = cached_file(lab)
    recall(lab.stores, lab.store, entry.path)
    done = lab.cli_json("release", "recall://lab/a.bin", "--dry-run", check=False)
    assert done["decisions"][0]["kind"] == "unproved"


def test_other_store_finds_it(lab: Lab) -> None:
    """What was brought for one store serves another that has the same bytes."""
    from recallfs.catalog.store import create_store
    from recallfs.config import StoreSettings
    from recallfs.resolve.stores import Stores

    entry, kept = cached_file(lab)
    root = lab.base / "second"
    second = create_store(root, "second", settings=StoreSettings(root=root))
    (root / "b.bin").write_bytes(kept.read_bytes())
    (other,) = add_existing(second, ["b.bin"])
    second.catalog.close()
    (root / "b.bin").unlink()
    stores = Stores(lab.stores.config, root=root)
    done = recall(stores, stores.by_name("second"), "b.bin")
    assert (done.source, sha256(done.path)) == ("cache", entry.sha256)
    assert other.sha256 == entry.sha256
    stores.by_name("second").catalog.close()
