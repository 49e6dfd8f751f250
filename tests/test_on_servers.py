"""A whole store with its catalog on PostgreSQL or MariaDB: nothing else is different."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

import test_kill
import test_storm
from conftest import Lab, sha256
from database_servers import Server
from recallfs.catalog.store import create_store
from recallfs.config import load_config
from recallfs.values import State

pytestmark = pytest.mark.services

CATALOG = "RECALLFS_STORES__LAB__CATALOG"


def new_lab(base: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Configure a store that is not made yet."""
    lab = Lab(base)
    lab.write_config()
    monkeypatch.setenv("RECALLFS_CONFIG", str(lab.config))
    return lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server_url: str) -> Iterator[Lab]:
    """Give a store called ``lab`` whose catalog is on each of the two servers."""
    lab = new_lab(tmp_path, monkeypatch)
    monkeypatch.setenv(CATALOG, server_url)
    settings = load_config().store_settings("lab")
    assert settings.catalog == server_url
    create_store(lab.root, "lab", vault=tmp_path / "vault", settings=settings)
    yield lab
    assert not (lab.root / ".recall" / "catalog.sqlite").exists()
    lab.store.catalog.close()


def listing(lab: Lab) -> list[tuple[str, str, State]]:
    """Return what the catalog holds."""
    return [(entry.id, entry.path, entry.state) for entry in lab.store.catalog.entries_below("")]


def test_a_store_from_its_first_file_to_its_last(lab: Lab) -> None:
    """Add, run, prove, release, read, move, pin, release again, undo and forget."""
    before = lab.released()
    assert lab.entry("derived.h5").state is State.RELEASED
    with fsspec.open("recall://lab/derived.h5", "rb") as file:
        assert len(file.read()) == lab.entry("derived.h5").size_bytes
    assert sha256(lab.root / "derived.h5") == before
    files = fsspec.filesystem("recall")
    files.mv("recall://lab/derived.h5", "recall://lab/day 1/é moved.h5")
    assert files.ls("recall://lab/day 1", detail=False) == ["lab/day 1/é moved.h5"]
    lab.cli("pin", "recall://lab/day 1/é moved.h5", "--why", "used by the poster")
    release = ("release", "recall://lab/day 1/é moved.h5", "--yes", "--max-skeleton", "1")
    lab.cli(*release, check=False)
    assert (lab.root / "day 1/é moved.h5").exists(), "a pinned file stays"
    lab.cli("unpin", "recall://lab/day 1/é moved.h5")
    lab.cli(*release)
    assert not (lab.root / "day 1/é moved.h5").exists()
    lab.cli("undo", "recall://lab/day 1/é moved.h5")
    assert sha256(lab.root / "day 1/é moved.h5") == before
    lab.cli("forget", "recall://lab/day 1/é moved.h5", "--yes")
    assert not (lab.root / "day 1/é moved.h5").exists()
    assert [entry.path for entry in lab.store.catalog.entries_below("")] == ["raw.h5"]
    test_kill.check_agreement(lab)


@pytest.mark.parametrize("point", ["record.renamed", "catalog.recorded", "place.linked"])
def test_a_killed_recall(lab: Lab, point: str) -> None:
    """A recall killed half-way leaves no part of a file, and the next one succeeds."""
    test_kill.test_killed_recall_leaves_absent_or_complete(lab, point)


@pytest.mark.parametrize("point", ["record.renamed", "catalog.recorded"])
def test_a_killed_release(lab: Lab, point: str) -> None:
    """A release killed half-way leaves the file resident or recallable to the same bytes."""
    test_kill.test_killed_release_loses_nothing(lab, point)


@pytest.mark.parametrize("point", ["record.renamed", "catalog.recorded"])
def test_a_killed_run(lab: Lab, point: str) -> None:
    """A first run killed half-way can simply be started again."""
    test_kill.test_killed_run_makes_all_or_nothing(lab, point)


def test_sixteen_processes(lab: Lab) -> None:
    """Sixteen processes that open one released file share one run of its recipe."""
    test_storm.test_sixteen_processes_cause_one_execution(lab)


def test_a_holder_that_died(lab: Lab) -> None:
    """When the process that recomputes is killed, a waiting one takes over and finishes."""
    test_storm.test_dead_holder_is_taken_over_at_once(lab)


def test_a_catalog_is_made_again_in_an_empty_database(
    lab: Lab, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that was lost is made again from the sidecars, by one command."""
    before = lab.released()
    listed = listing(lab)
    with server.database() as name:
        monkeypatch.setenv(CATALOG, server.url(name).render_as_string(hide_password=False))
        said = lab.cli_json("catalog", "rebuild", "lab")
        assert said["lab"]["entries"] == 2
        catalog = lab.store.catalog
        assert [
            (entry.id, entry.path, entry.state) for entry in catalog.entries_below("")
        ] == listed
        lab.cli("get", "recall://lab/derived.h5")
        assert sha256(lab.root / "derived.h5") == before
        catalog.close()


def test_a_store_moves_from_sqlite_to_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server_url: str
) -> None:
    """With the address set and the catalog rebuilt, a store goes on as it was."""
    lab = new_lab(tmp_path, monkeypatch)
    create_store(lab.root, "lab", vault=tmp_path / "vault").catalog.close()
    before = lab.released()
    listed = listing(lab)
    lab.store.catalog.close()
    monkeypatch.setenv(CATALOG, server_url)
    lab.cli("catalog", "rebuild", "lab")
    (lab.root / ".recall" / "catalog.sqlite").unlink()
    catalog = lab.store.catalog
    assert listing(lab) == listed
    lab.cli("get", "recall://lab/derived.h5")
    assert sha256(lab.root / "derived.h5") == before
    assert not (lab.root / ".recall" / "catalog.sqlite").exists()
    catalog.close()


def test_init_uses_the_configured_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server_url: str
) -> None:
    """`recall init` of a store whose catalog is configured already makes no other one."""
    lab = new_lab(tmp_path, monkeypatch)
    monkeypatch.setenv(CATALOG, server_url)
    lab.cli("init", str(lab.root), "--name", "lab", "--vault", str(tmp_path / "vault"))
    assert not (lab.root / ".recall" / "catalog.sqlite").exists()
    (lab.root / "notes.txt").write_text("kept")
    lab.cli("add", str(lab.root / "notes.txt"))
    assert [entry.path for entry in lab.store.catalog.entries_below("")] == ["notes.txt"]
    lab.store.catalog.close()


def test_a_file_is_read_while_the_server_is_away(lab: Lab, server: Server) -> None:
    """While the server is down, `recall get` says so with a code of its own, without a password."""
    lab.released()
    server.kill()
    try:
        done = lab.cli("get", "recall://lab/derived.h5", check=False)
        assert done.returncode == 84, done
        assert "does not answer" in done.stderr
        assert "Traceback" not in done.stderr
        assert os.environ[CATALOG].split("@")[0] not in done.stderr
        assert not (lab.root / "derived.h5").exists()
    finally:
        server.start()
    lab.cli("get", "recall://lab/derived.h5")
