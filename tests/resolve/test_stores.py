"""Which stores are in reach, and which one an address belongs to."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from conftest import Lab
from recallfs.catalog.store import create_store
from recallfs.config import load_config
from recallfs.errors import InvalidInputError
from recallfs.resolve.stores import Stores, stores_in_reach


def test_plain_paths_find_their_store(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute, relative and symlinked paths lead to the same store path."""
    (lab.root / "sub").mkdir()
    (lab.base / "way").symlink_to(lab.root)
    monkeypatch.chdir(lab.root / "sub")
    for address in ("x", "./x", "../sub/x", str(lab.root / "sub/x"), str(lab.base / "way/sub/x")):
        store, path = lab.stores.resolve(address)
        assert (store.name, path) == ("lab", "sub/x")
    assert lab.stores.resolve(str(lab.root))[1] == ""
    assert lab.stores.resolve("recall://lab/")[1] == ""


def test_home_is_expanded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` is the home folder."""
    monkeypatch.setenv("HOME", str(lab.base))
    assert lab.stores.resolve("~/lab/x")[1] == "x"


def test_symlink_inside_keeps_its_own_name(lab: Lab) -> None:
    """A symlink within the store is addressed as itself, not as what it points to."""
    (lab.root / "target").write_text("1")
    (lab.root / "link").symlink_to(lab.root / "target")
    assert lab.stores.resolve(str(lab.root / "link"))[1] == "link"


def test_paths_of_no_store(lab: Lab) -> None:
    """A path outside is an error that says what to do; a sibling with a like name is outside."""
    for address in (str(lab.base / "x"), str(lab.base / "lab2/x"), "/"):
        with pytest.raises(InvalidInputError, match="recall init") as caught:
            lab.stores.resolve(address)
        assert caught.value.kind == "not-a-store"
    assert lab.stores.containing(lab.base / "lab2" / "x") is None


def test_unregistered_store_is_found_by_its_folder(lab: Lab) -> None:
    """A store that the configuration does not name is known by the name it was given."""
    create_store(lab.base / "folder", "given", vault=lab.base / "v2")
    store, path = lab.stores.resolve(str(lab.base / "folder/a/b"))
    assert (store.name, path) == ("given", "a/b")
    with pytest.raises(InvalidInputError):
        lab.stores.by_name("given")


def test_configuration_is_read_again_when_it_changes(lab: Lab) -> None:
    """A changed configuration or variable is seen by the next call; without one nothing is."""
    before = stores_in_reach()
    assert stores_in_reach() is before
    lab.write_config('[release]\nhold = "3d"\n')
    after = stores_in_reach()
    assert after is not before
    assert after.config.release.hold.days == 3
    os.environ["RECALLFS_RELEASE__HOLD"] = "5d"
    try:
        assert stores_in_reach().config.release.hold.days == 5
    finally:
        del os.environ["RECALLFS_RELEASE__HOLD"]


def test_own_root_is_made_a_store_once(tmp_path: Path) -> None:
    """A folder given as root becomes a store when it is first used; others stay out of reach."""
    root = tmp_path / "fresh"
    stores = Stores(load_config(tmp_path / "none.toml", {}), root=root)
    assert stores.names() == ["fresh"]
    assert not root.exists()
    first = stores.by_name("fresh")
    again = Stores(load_config(tmp_path / "none.toml", {}), root=root).by_name("fresh")
    assert (again.id, again.root) == (first.id, root)


def test_store_whose_folder_is_gone_says_so(lab: Lab) -> None:
    """A configured store that is not there, for example not mounted, is never made anew."""
    lab.write_config(f'[stores.gone]\nroot = "{lab.base}/gone"\n')
    with pytest.raises(InvalidInputError) as caught:
        lab.stores.by_name("gone")
    assert caught.value.kind == "not-a-store"
    assert not (lab.base / "gone").exists()


def test_downloads_that_nobody_went_on_with_go(lab: Lab) -> None:
    """What was interrupted is kept for a week, and is then removed when the store is opened."""
    folder = lab.store.partials()
    for name, age_s in (("old", 8 * 86400), ("new", 60)):
        (folder / name).mkdir()
        (folder / name / "lock").touch()
        (folder / name / "data").write_bytes(b"half")
        for place in (*(folder / name).iterdir(), folder / name):
            os.utime(place, (time.time() - age_s,) * 2)
    Stores(lab.stores.config).by_name("lab").catalog.close()
    assert [place.name for place in folder.iterdir()] == ["new"]
