"""Users who may not write to a store: they read all of it, by way of caches of their own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import pytest

import reader_actors as actors
from archives import CONTENT, corrupted, dandi_of
from catalog_actors import open_to_all
from conftest import Lab, sha256
from other_users import ANA, BEN, as_user
from processes import start

pytestmark = pytest.mark.services

URL = "recall://lab/derived.h5"


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Describe everything below a folder."""
    found = {}
    for place, _, names in os.walk(folder):
        for path in [Path(place), *(Path(place) / name for name in names)]:
            status = path.lstat()
            found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def open_up(lab: Lab) -> None:
    """Let everybody read the lab, and only its owner write."""
    assert os.getuid() == 0, "only root can become two other users"
    open_to_all(lab.base)
    for place, folders, names in os.walk(lab.root):
        for name in (*folders, *names):
            path = Path(place) / name
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
    (lab.base / "budget").mkdir(exist_ok=True)
    (lab.base / "budget").chmod(0o1777)


@pytest.fixture
def open_lab(lab: Lab) -> Lab:
    """Give a lab that everybody may read."""
    open_up(lab)
    return lab


def test_everything_is_read_and_nothing_written(open_lab: Lab) -> None:
    """A reader lists, opens what is here and gets back what is not, into a cache of their own."""
    lab = open_lab
    before = lab.released()
    lab.store.catalog.close()
    raw = as_user(lab, ANA, actors.look, "recall://lab/raw.h5")
    assert (raw["state"], raw["local"]) == ("resident", str(lab.root / "raw.h5"))
    unchanged = listing(lab.root)
    plan = as_user(lab, ANA, actors.explain, URL)
    assert plan["action"] == "recall"
    assert plan["cache"].startswith(str(lab.base / f"home-{ANA}" / ".cache"))
    found = as_user(lab, ANA, actors.look, URL)
    assert set(found["names"]) == {"lab/raw.h5", "lab/derived.h5"}
    assert (found["state"], found["sha256"]) == ("released", before)
    assert found["local"] == plan["cache"]
    assert Path(found["local"]).name == "derived.h5"
    again = as_user(lab, ANA, actors.recall_it, URL)
    assert (again["source"], again["sha256"], again["mode"]) == ("cache", before, 0o400)
    assert as_user(lab, ANA, actors.explain, URL)["action"] == "open"
    assert listing(lab.root) == unchanged
    assert Path(found["local"]).stat().st_mtime_ns == lab.entry("derived.h5").metadata.mtime_ns


def test_caches_of_users_do_not_mix(open_lab: Lab) -> None:
    """Each user recalls for themselves, and cannot look into another's cache."""
    lab = open_lab
    lab.released()
    first = as_user(lab, ANA, actors.recall_it, URL)
    second = as_user(lab, BEN, actors.recall_it, URL)
    assert (first["source"], second["source"]) == ("recompute", "recompute")
    assert first["path"] != second["path"]
    # Her home is private; so is the cache, wherever it lies.
    shared = lab.base / "shared-caches"
    shared.mkdir(mode=0o777)
    shared.chmod(0o1777)
    lab.write_config(f'[cache]\nfolder = "{shared}/one"\n')
    hers = as_user(lab, ANA, actors.recall_it, URL)
    assert hers["source"] == "recompute"
    assert as_user(lab, BEN, actors.peek, hers["path"]) == "forbidden"
    assert (shared / "one").stat().st_mode & 0o7777 == 0o700
    refused = as_user(lab, BEN, actors.recall_it, URL)
    assert refused["kind"] == "access-denied"
    assert "cache.folder" in refused["message"]


def test_processes_of_one_user_share_a_recall(open_lab: Lab) -> None:
    """Eight processes of a user that open one file cause one run of its recipe."""
    lab = open_lab
    count = lab.base / "count"
    before = sha256(lab.derive(recipe="counted", count_file=str(count), seconds=0.5))
    lab.prove()
    lab.release()
    count.write_text("")
    count.chmod(0o666)
    home = lab.base / "home"
    home.mkdir(mode=0o700)
    os.chown(home, ANA, ANA)
    reports = [home / f"report-{number}" for number in range(8)]
    readers = [
        start(actors.as_user, ANA, str(home), str(report), actors.recall_it, URL)
        for report in reports
    ]
    for reader in readers:
        reader.join(60)
    told = [json.loads(report.read_text())["gave"] for report in reports]
    assert {item["sha256"] for item in told} == {before}
    assert len(count.read_text().splitlines()) == 1


def test_inputs_are_recalled_into_the_cache_too(open_lab: Lab) -> None:
    """What a file is made from comes into the cache first, if it is not in the store."""
    lab = open_lab
    lab.derive("middle.h5")
    before = sha256(lab.derive("end.h5", raw="middle.h5", factor=3.0))
    lab.prove("middle.h5")
    lab.prove("end.h5")
    lab.release("end.h5")
    (lab.root / "middle.h5").unlink()
    assert as_user(lab, ANA, actors.recall_it, "recall://lab/end.h5")["sha256"] == before
    middle = as_user(lab, ANA, actors.recall_it, "recall://lab/middle.h5")
    assert middle["source"] == "cache"
    assert not (lab.root / "end.h5").exists()
    assert not (lab.root / "middle.h5").exists()


@pytest.mark.parametrize("how", ["changed", "touched", "link", "gone"])
def test_spoilt_copy_is_noticed(open_lab: Lab, how: str) -> None:
    """A copy that is not the very file that was verified is hashed, and replaced if it differs."""
    lab = open_lab
    before = lab.released()
    found = as_user(lab, ANA, actors.spoil_and_recall, URL, how)
    assert found["sha256"] == before
    assert found["source"] == ("cache" if how == "touched" else "recompute")
    assert not Path(found["path"]).is_symlink()


def test_trash_and_mirror_serve_readers(open_lab: Lab) -> None:
    """The trash is copied, not linked; a mirror is asked as for anybody."""
    lab = open_lab
    place = lab.derive()
    before = sha256(place)
    mirror = lab.base / "mirror"
    mirror.mkdir()
    shutil.copyfile(place, mirror / "derived.h5")
    lab.prove()
    lab.release(hold="7d")
    (lab.store.control / "trash").chmod(0o755)
    trashed = lab.store.trash_path(lab.entry("derived.h5").id)
    found = as_user(lab, ANA, actors.recall_it, URL)
    assert (found["source"], found["sha256"]) == ("trash", before)
    assert trashed.stat().st_nlink == 1
    trashed.chmod(0o600)
    lab.write_config(f'[[sources.mirror]]\nname = "m"\nurl = "file://{mirror}"\n')
    found = as_user(lab, BEN, actors.recall_it, URL)
    assert (found["source"], found["sha256"]) == ("mirror:m", before)


def test_plain_h5py_reads_the_cached_copy(open_lab: Lab) -> None:
    """`recallfs.install()` opens the copy in place of the path; to change it is refused."""
    lab = open_lab
    lab.released()
    path = str(lab.root / "derived.h5")
    with h5py.File(lab.root / "raw.h5") as file:
        expected = [2 * float(value) for value in file["data"][0, :3]]
    assert as_user(lab, ANA, actors.read_plainly, path, "r") == expected
    assert as_user(lab, ANA, actors.read_plainly, path, "r+")["kind"] == "access-denied"
    assert not (lab.root / "derived.h5").exists()


def test_file_that_reads_right_only_at_its_place_is_refused(open_lab: Lab) -> None:
    """A virtual dataset would read as zeros from a cache: that is refused, and nothing is kept."""
    lab = open_lab
    from mirrored import released_file

    made = lab.base / "made.h5"
    layout = h5py.VirtualLayout(shape=(10,), dtype="f8")
    layout[:] = h5py.VirtualSource("raw.h5", "data", shape=(10,))
    with h5py.File(made, "w") as file:
        file.create_virtual_dataset("view", layout)
    released_file(lab, "view.h5", made.read_bytes())
    refused = as_user(lab, ANA, actors.recall_it, "recall://lab/view.h5")
    assert refused["kind"] == "access-denied"
    assert "/view is a view of raw.h5" in refused["message"]
    assert not list((lab.base / f"home-{ANA}").rglob("view.h5"))


def test_a_file_of_dandi_that_has_no_sha256_yet(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is verified by its etag each time: a reader cannot complete its record."""
    with dandi_of(lab, monkeypatch) as dandi:
        dandi.knows_sha256 = False
        file = lab.base / "asset"
        file.write_bytes(CONTENT)
        dandiset = dandi.add_dandiset()
        dandi.add_asset(dandiset, "sub-1/a.nwb", file)
        lab.cli("add", "--from-dandi", dandiset, "--to", "recall://lab")
        open_up(lab)
        url = "recall://lab/sub-1/a.nwb"
        assert as_user(lab, ANA, actors.recall_it, url)["sha256"] == sha256(file)
        file.write_bytes(corrupted(file).read_bytes())
        assert as_user(lab, ANA, actors.recall_it, url)["kind"] == "digest-mismatch"
