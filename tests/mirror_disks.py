"""Mirrors on real mounts, in a mount namespace of its own (see release/test_push_disks.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recallfs.catalog import records
from recallfs.catalog.store import create_store
from recallfs.config import Config, MirrorSettings, ReleaseSettings, StoreSettings
from recallfs.doctor.mirrors import check_places
from recallfs.errors import AccessError, InvalidInputError, NotRecallableError, SourceError
from recallfs.release.copies import verified_copies
from recallfs.release.push import push, push_target
from recallfs.resolve.commit import add_existing
from recallfs.resolve.recall import recall
from recallfs.resolve.stores import Stores

CONTENT = os.urandom(3_000_000)


def mount(*words: object) -> None:
    """Mount something."""
    subprocess.run(["mount", *map(str, words)], check=True)


def stores_with(base: Path, folder: Path, domain: str | None = None) -> Stores:
    """Give the store one mirror."""
    mirror = MirrorSettings(
        name="m", url=f"file://{folder}", layout="sha256", failure_domain=domain
    )
    return Stores(
        Config(
            stores={"lab": StoreSettings(root=base / "lab")},
            mirrors=(mirror,),
            release=ReleaseSettings(copies=1),
        )
    )


def left(folder: Path) -> list[Path]:
    """Return the files in a mirror."""
    return [place for place in folder.rglob("*") if place.is_file()]


def tell(base: Path) -> None:
    """Go through it step by step; any surprise is an AssertionError."""
    os.environ["XDG_CACHE_HOME"] = str(base / "caches")
    store = create_store(base / "lab", "lab", vault=base / "vault")
    (store.root / "sub").mkdir()
    (store.root / "a.bin").write_bytes(CONTENT)
    add_existing(store, ["a.bin"])
    entry = store.catalog.entry_at("a.bin")
    assert entry is not None

    # The store by another name: nothing that stat says tells.
    bound = base / "bound"
    for part in (store.root, store.root / "sub", store.control, store.vault):
        part.mkdir(exist_ok=True)
        bound.mkdir(exist_ok=True)
        mount("--bind", part, bound)
        stores = stores_with(base, bound, "elsewhere")
        here = stores.by_name("lab")
        target = push_target(stores, "mirror:m")
        with pytest.raises(InvalidInputError, match="inside the"):
            push(stores, here, entry, target)
        with pytest.raises(NotRecallableError, match="no copy of its own"):
            target.look_up(here, records.load(here, entry.id))
        assert [item.id for item in check_places(stores.config, [here])] == ["mirror-in-store"]
        assert verified_copies(stores, here, records.load(here, entry.id)) == ()
        subprocess.run(["umount", str(bound)], check=True)
    # Another folder of the same disk is no part of the store, and yet fails with it.
    stores = stores_with(base, bound)
    here = stores.by_name("lab")
    push(stores, here, entry, push_target(stores, "mirror:m"))
    assert verified_copies(stores, here, records.load(here, entry.id)) == ()

    # A disk that is full, then not; read-only, then not.
    disk = base / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", disk)
    stores = stores_with(base, disk)
    here = stores.by_name("lab")
    target = push_target(stores, "mirror:m")
    with pytest.raises(SourceError, match="no space left") as caught:
        push(stores, here, entry, target)
    assert caught.value.kind == "no-space"
    assert left(disk) == []
    mount("-o", "remount,size=40m,ro", disk)
    with pytest.raises(AccessError, match="cannot be written to"):
        push(stores, here, entry, target)
    mount("-o", "remount,rw", disk)
    assert push(stores, here, entry, target).status == "copied"
    assert verified_copies(stores, here, records.load(here, entry.id)) == ("mirror:m",)
    (store.root / "a.bin").unlink()
    assert recall(stores, here, "a.bin").source == "mirror:m"
    assert (store.root / "a.bin").read_bytes() == CONTENT


if __name__ == "__main__":
    tell(Path(sys.argv[1]))
