"""What is not there, and what is only out of reach: an outage is never 'not found'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conftest import Lab
from mirrored import released_file
from recallfs.errors import CatalogError, InvalidInputError, NotRecallableError, SourceError
from recallfs.filesystem import RecallFileSystem

LOOKS: dict[str, Callable[[RecallFileSystem, str], Any]] = {
    "exists": RecallFileSystem.exists,
    "lexists": RecallFileSystem.lexists,
    "isfile": RecallFileSystem.isfile,
    "isdir": RecallFileSystem.isdir,
    "find": RecallFileSystem.find,
    "glob": lambda fs, path: fs.glob(f"{path}/*"),
}


@pytest.mark.parametrize("look", LOOKS)
def test_absent_is_no(fs: RecallFileSystem, look: str) -> None:
    """What is not there is answered by no, or by nothing."""
    for path in ("lab/nothing", "lab/no/where", "nostore/x", "lab/../x"):
        if look in ("find", "glob") and not path.startswith("lab/no"):
            continue
        assert not LOOKS[look](fs, path)


@pytest.mark.parametrize("look", LOOKS)
def test_unmounted_store_is_not_absent(lab: Lab, fs: RecallFileSystem, look: str) -> None:
    """A store whose disk is not mounted is an error: nobody can say what is on it."""
    lab.write_config(f'[stores.away]\nroot = "{lab.base}/not-mounted"\n')
    with pytest.raises(InvalidInputError) as caught:
        LOOKS[look](fs, "away/x")
    assert caught.value.kind == "not-a-store"


@pytest.mark.parametrize("look", LOOKS)
def test_damaged_catalog_is_not_absent(lab: Lab, fs: RecallFileSystem, look: str) -> None:
    """With a catalog that cannot be read, no question is answered by no."""
    fs.pipe("lab/x", b"1")
    lab.store.catalog.close()
    catalog = lab.store.control / "catalog.sqlite"
    for path in catalog.parent.glob("catalog.sqlite*"):
        path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(CatalogError):
        LOOKS[look](fs, "lab/x")


def test_outage_is_never_not_found(lab: Lab, fs: RecallFileSystem) -> None:
    """With its only mirror unreachable a file still exists, and reading it says 'unavailable'."""
    released_file(lab, "far.bin")
    lab.write_config(
        '[[sources.mirror]]\nname = "copies"\nurl = "nosuch://host/x"\nlayout = "sha256"\n'
    )
    assert fs.exists("lab/far.bin")
    with pytest.raises(SourceError) as caught:
        fs.cat("lab/far.bin")
    assert not isinstance(caught.value, FileNotFoundError)
    with pytest.raises(SourceError):
        fs.get("lab/far.bin", str(lab.base / "out"))
    assert not (lab.base / "out").exists()


def test_lost_file_exists_and_is_no_file_not_found(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that nothing brings back is on record: reading it is an error of another kind."""
    digest = released_file(lab, "far.bin")
    (lab.base / "mirror/sha256" / digest[:2] / digest[2:4] / digest).unlink()
    assert fs.exists("lab/far.bin")
    for read in (fs.cat, fs.open, fs.open_local, fs.head, fs.ukey):
        if read == fs.ukey:
            assert read("lab/far.bin") == digest
            continue
        with pytest.raises(NotRecallableError) as caught:
            read("lab/far.bin")
        assert not isinstance(caught.value, FileNotFoundError)
    (answer,) = fs.cat(["lab/far.bin"], on_error="return").values()
    assert isinstance(answer, NotRecallableError)
    (answer,) = fs.cat_ranges(["lab/far.bin"], 0, 4, on_error="return")
    assert isinstance(answer, NotRecallableError)
