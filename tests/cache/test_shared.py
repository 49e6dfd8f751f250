"""A cache that the users of a computer share: who is served from it, and who is believed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import cache_actors
import reader_actors
from conftest import Lab, sha256
from other_users import ANA, BEN, as_user
from recallfs.cache.cache import Cache
from recallfs.cache.shelf import Shelf
from recallfs.catalog.store import create_store
from recallfs.config import CacheSettings
from recallfs.resolve.access import is_public

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]

OWNER = 64323
URL = "recall://lab/derived.h5"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Give a lab that everybody can read, with a shared cache that everybody can write to."""
    base = Path(tempfile.mkdtemp(prefix="recallfs-host-", dir="/tmp"))
    base.chmod(0o755)
    lab = Lab(base)
    monkeypatch.setenv("RECALLFS_CONFIG", str(lab.config))
    monkeypatch.setenv("RECALLFS_RECALL__BUDGET_FOLDER", str(base / "budget"))
    for name in ("budget", "shared"):
        (base / name).mkdir()
        (base / name).chmod(0o1777)
    configure(lab)
    create_store(lab.root, "lab", vault=base / "vault")
    try:
        yield lab
    finally:
        lab.store.catalog.close()
        shutil.rmtree(base)


def configure(lab: Lab, more: str = "") -> None:
    """Write the configuration with the shared cache."""
    lab.write_config(f'[cache]\nshared_folder = "{lab.base / "shared"}"\n{more}')
    lab.config.chmod(0o644)


def released(lab: Lab) -> str:
    """Release a derived file, and let everybody read all of the store; return its sha256."""
    place = lab.derive()
    place.chmod(0o644)
    digest = sha256(place)
    lab.prove()
    lab.release()
    for folder, folders, names in os.walk(lab.root):
        for name in (*folders, *names):
            path = Path(folder) / name
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
    return digest


def shared_place(lab: Lab, user: int) -> Path:
    """Return where a user's copy in the shared cache is."""
    return Shelf(lab.base / "shared" / str(user), is_open=True).path_of(
        lab.entry("derived.h5").sha256, "derived.h5"
    )


def test_one_brings_it_the_other_copies_it(host: Lab) -> None:
    """A file that all may read is brought once; a user who is not trusted is not believed."""
    before = released(host)
    hers = as_user(host, ANA, reader_actors.recall_it, URL)
    assert (hers["source"], hers["sha256"], hers["mode"]) == ("recompute", before, 0o444)
    assert hers["path"] == str(shared_place(host, ANA))
    again, third = as_user(host, ANA, cache_actors.recall_twice, URL)
    assert (again["source"], again["path"]) == ("cache", hers["path"])
    assert third == again
    his, later = as_user(host, BEN, cache_actors.recall_twice, URL)
    assert (his["source"], his["sha256"]) == ("cache", before)
    assert later["path"] == his["path"]
    assert his["path"].startswith(str(host.base / f"home-{BEN}"))


def test_files_of_root_and_of_the_store_s_owner_are_read_in_place(host: Lab) -> None:
    """Who could change the store's own files is believed, after one look at the bytes."""
    before = released(host)
    for user in (0, OWNER):
        shutil.rmtree(host.base / "shared" / "0", ignore_errors=True)
        place = shared_place(host, user)
        place.parent.mkdir(parents=True)
        host.cli("get", URL)
        shutil.copyfile(host.root / "derived.h5", place)
        host.release()
        place.chmod(0o444)
        for folder in (place, *place.parents[:4]):
            os.chown(folder, user, user)
        os.chown(host.root, user, user)
        for reader in (ANA, BEN):
            found = as_user(host, reader, reader_actors.recall_it, URL)
            assert (found["source"], found["path"]) == ("cache", str(place))
            assert found["sha256"] == before
    os.chown(host.root, 0, 0)


def test_file_that_not_all_may_read_stays_private(host: Lab) -> None:
    """Neither a file that is closed to some, nor one in a folder that is, gets into the folder."""
    before = released(host)
    entry = host.entry("derived.h5")
    assert is_public(host.store, entry)
    host.root.chmod(0o750)
    assert not is_public(host.store, entry)
    os.chown(host.root, 0, ANA)
    found = as_user(host, ANA, reader_actors.recall_it, URL)
    assert (found["sha256"], found["mode"]) == (before, 0o400)
    assert found["path"].startswith(str(host.base / f"home-{ANA}"))
    assert not list((host.base / "shared").rglob("derived.h5"))
    configure(host, "share_all = true\n")
    shutil.rmtree(host.base / f"home-{ANA}")
    found = as_user(host, ANA, reader_actors.recall_it, URL)
    assert found["path"] == str(shared_place(host, ANA))


@pytest.mark.parametrize("what", ["other bytes", "fifo", "link", "folder"])
def test_planted_files_are_not_served(host: Lab, what: str) -> None:
    """What a user puts there by hand is verified by whoever finds it, and never waited for."""
    before = released(host)
    place = str(shared_place(host, BEN))
    if what == "other bytes":
        size = host.entry("derived.h5").size_bytes
        as_user(host, BEN, cache_actors.plant, place, "x" * size)
    else:
        as_user(host, BEN, cache_actors.plant_special, place, what)
    found = as_user(host, ANA, reader_actors.recall_it, URL)
    assert (found["sha256"], found["source"]) == (before, "recompute")
    assert os.path.lexists(place)


def test_file_changed_in_place_after_it_was_verified(host: Lab) -> None:
    """Its owner may write to it at any time; what others were given is their own copy."""
    before = released(host)
    hers = as_user(host, ANA, reader_actors.recall_it, URL)
    his = as_user(host, BEN, reader_actors.recall_it, URL)
    size = host.entry("derived.h5").size_bytes
    as_user(host, ANA, cache_actors.change_in_place, hers["path"], "y" * size)
    again = as_user(host, BEN, reader_actors.recall_it, URL)
    assert (again["path"], again["sha256"], again["source"]) == (his["path"], before, "cache")
    # She herself notices, and what is wrong of hers is replaced.
    mended = as_user(host, ANA, reader_actors.recall_it, URL)
    assert (mended["sha256"], mended["source"]) == (before, "recompute")
    assert sha256(Path(hers["path"])) == before


@pytest.mark.parametrize("how", ["read-only", "gone", "taken", "full"])
def test_without_a_usable_folder_the_own_cache_serves(host: Lab, how: str) -> None:
    """A folder that cannot be written to, or is full of others' files, changes nothing else."""
    before = released(host)
    folder = host.base / "shared"
    if how == "read-only":
        folder.chmod(0o755)
    elif how == "gone":
        folder.rmdir()
    elif how == "taken":
        as_user(host, BEN, cache_actors.make_folder, str(folder / str(ANA)), 0o777)
    else:
        configure(host, "shared_limit = 1000\n")
    found = as_user(host, ANA, reader_actors.recall_it, URL)
    assert found["sha256"] == before
    assert found["path"].startswith(str(host.base / f"home-{ANA}"))


def test_markers_led_elsewhere_are_not_followed(host: Lab) -> None:
    """A symlink in place of the folder of markers makes nobody write anywhere else."""
    before = released(host)
    elsewhere = host.base / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    (host.base / "shared/used").symlink_to(elsewhere)
    hers = as_user(host, ANA, reader_actors.recall_it, URL)
    his = as_user(host, BEN, reader_actors.recall_it, URL)
    assert (hers["sha256"], his["sha256"]) == (before, before)
    assert list(elsewhere.iterdir()) == []


def test_root_clears_and_users_do_not_clear_each_other(host: Lab) -> None:
    """Only the owner and root remove files; root is not led astray by a symlink on the way."""
    released(host)
    hers = Path(as_user(host, ANA, reader_actors.recall_it, URL)["path"])
    for marker in (host.base / "shared/used").iterdir():
        os.utime(marker, (1, 1))
    os.utime(hers, (1, 1))
    assert as_user(host, BEN, cache_actors.clear, 0.0) == 0
    assert hers.exists()
    # A user leads a folder of theirs elsewhere.
    precious = host.base / "precious" / hers.parent.name
    precious.mkdir(parents=True)
    (precious / "derived.h5").write_bytes(b"precious")
    os.utime(precious / "derived.h5", (1, 1))
    aside = hers.parents[1].with_name("aside")
    hers.parents[1].rename(aside)
    hers.parents[1].symlink_to(precious.parent)
    assert cache_actors.clear(0.0) == 0
    assert (precious / "derived.h5").exists()
    hers.parents[1].unlink()
    aside.rename(hers.parents[1])
    assert cache_actors.clear(0.0) == 1
    assert not hers.exists()
    assert list((host.base / "shared/used").iterdir()) == []
    usage = Cache(CacheSettings(shared_folder=host.base / "shared")).shared_usage()
    assert usage is not None
    assert usage.files == 0
