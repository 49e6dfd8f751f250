"""What lies in folders, found without changing anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import pytest

from conftest import Lab
from recallfs.errors import InvalidInputError
from recallfs.mounts import read_mounts
from recallfs.release.kinds import kind_of
from recallfs.release.walk import survey

DAY_S = 86_400


def found_in(*folders: Path, **wanted: Any) -> dict[str, Any]:
    """Survey folders, as JSON."""
    return survey(folders, **wanted).to_json()


def write(path: Path, size: int = 4096, *, days: float = 0.0) -> Path:
    """Write a file of some age."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - days * DAY_S
    os.utime(path, (then, then))
    return path


def kinds_of(page: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return files and folders of each kind."""
    return {item["kind"]: (item["files"], item["folders"]) for item in page["kinds"]}


def test_sums_by_folder_and_age(tmp_path: Path) -> None:
    """Folders hold all that is below them; each file has one age; both add up to everything."""
    for path, days in (("a/1", 1), ("a/b/2", 60), ("a/b/c/3", 200), ("d/4", 500), ("5", 2000)):
        write(tmp_path / path, days=days)
    page = found_in(tmp_path, depth=2)
    assert {item["path"]: item["files"] for item in page["folders"]} == {
        str(tmp_path / path): files for path, files in (("", 5), ("a", 3), ("a/b", 2), ("d", 1))
    }
    assert (page["files"], page["size_bytes"], page["folder_count"]) == (5, 5 * 4096, 5)
    for ages in (page["modified"], page["accessed"]):
        assert [item["files"] for item in ages.values()] == [1, 1, 1, 1, 1]
    newest = {item["path"]: item["last_modified"] for item in page["folders"]}
    assert newest[str(tmp_path)] == newest[str(tmp_path / "a")] > newest[str(tmp_path / "a/b")]
    assert [item["files"] for item in found_in(tmp_path, depth=0)["folders"]] == [5]


def test_names_links_and_holes(tmp_path: Path) -> None:
    """A file of two names counts once, a hole not at all, and no link is followed."""
    outside = write(tmp_path / "outside" / "big", 10**6)
    write(tmp_path / "in" / "one")
    (tmp_path / "in" / "sub").mkdir()
    (tmp_path / "in" / "sub" / "two").hardlink_to(tmp_path / "in" / "one")
    (tmp_path / "in" / "link").symlink_to(outside)
    (tmp_path / "in" / "folder").symlink_to(outside.parent)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    os.mkfifo(tmp_path / "in" / "pipe")
    with (tmp_path / "in" / "holes").open("wb") as file:
        file.truncate(10**9)
    page = found_in(tmp_path / "in")
    assert (page["files"], page["size_bytes"]) == (2, 10**9 + 4096)
    assert page["disk_bytes"] < 10**6
    assert (page["sparse"]["files"], page["symbolic_links"], page["special_files"]) == (1, 3, 1)
    assert (page["hard_links"]["files"], page["hard_links"]["more_names"]) == (1, 1)
    # The same in two places that are named, one in the other.
    assert found_in(tmp_path / "in", tmp_path / "in" / "sub")["files"] == 2


def test_kinds(tmp_path: Path) -> None:
    """Endings tell, and what marks a folder goes before them for all below it."""
    for path in (
        "s.nwb", "s.H5", "r.ap.bin", "r.bin", "notes", "x.zarr/0/0", "x.zarr/.zgroup",
        "grid/.zarray", "grid/deep/0.bin", "si/si_folder.json", "si/traces_cached_seg0.raw",
        "z.nwb/zarr.json", "z.nwb/data/c/0", "odd.xyz", "odd.xyz2/file.xyz",
    ):  # fmt: skip
        write(tmp_path / path)
    page = found_in(tmp_path, look_into=0)
    assert kinds_of(page) == {
        "NWB": (1, 0),
        "HDF5": (1, 0),
        "SpikeGLX": (1, 0),
        "flat binary": (1, 0),
        "Zarr": (4, 2),
        "SpikeInterface folder": (2, 1),
        "NWB in Zarr": (2, 1),
        "other": (3, 0),
    }
    assert {item["ending"]: item["files"] for item in page["other_endings"]} == {"": 1, ".xyz": 2}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("A.NII.GZ", "images"), (".bashrc", "other"), ("x.", "other"), ("nwb", "other")],
)
def test_endings(name: str, kind: str) -> None:
    """Case does not matter; a name without an ending has no kind."""
    assert kind_of(name) == kind


def write_nwb(path: Path, outside: Path) -> None:
    """Write what looks like NWB, with links that lead to another file."""
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
        series = file.create_group("acquisition/series")
        series.attrs["neurodata_type"] = "ElectricalSeries"
        file["general/was_generated_by"] = [["pynwb", "2.8.1"]]
        file["acquisition/far"] = h5py.ExternalLink(str(outside), "/")
        file["acquisition/soft"] = h5py.SoftLink("/acquisition")


def test_some_nwb_files_are_looked_into(tmp_path: Path) -> None:
    """Version, writer and types come from the files; a damaged one is counted, no link followed."""
    outside = tmp_path / "outside.h5"
    with h5py.File(outside, "w") as file:
        file.attrs["neurodata_type"] = "Secret"
    for number in range(5):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_nwb(tmp_path / "in" / f"{number}.nwb", outside)
    write(tmp_path / "in" / "broken.nwb")
    assert found_in(tmp_path / "in")["nwb"] == {
        "looked_into": 5,
        "unread": 1,
        "versions": {"2.7.0": 5},
        "writers": {"pynwb 2.8.1": 5},
        "types": {"ElectricalSeries": 5},
    }
    some = found_in(tmp_path / "in", look_into=3)["nwb"]
    assert some["looked_into"] + some["unread"] == 3


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return all that can be seen of the files and folders below one, catalogs' own reads apart."""
    found: dict[str, tuple[int, ...]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        is_ours = ".recall" in path.parts
        atime = 0 if is_ours else status.st_atime_ns
        found[str(path)] = (atime, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    return found


def test_nothing_changes(lab: Lab) -> None:
    """No file is made or touched, and no access time is new, neither of files nor of folders."""
    lab.derive()
    lab.store.catalog.close()
    write_nwb(lab.root / "s.nwb", lab.root / "raw.h5")
    (lab.root / "sub").mkdir()
    write(lab.root / "sub" / "file")
    for path in [lab.root, *lab.root.rglob("*")]:
        os.utime(path, (0, path.stat().st_mtime), follow_symlinks=False)
    before = snapshot(lab.root)
    page = found_in(lab.root)
    assert (page["nwb"]["looked_into"], page["stores"][0]["catalogued"]["files"]) == (1, 2)
    assert snapshot(lab.root) == before


def test_what_stores_know(lab: Lab) -> None:
    """Catalogued, derived and proved files are told, also from inside, also beside a writer."""
    lab.derive("deep/derived.h5")
    lab.derive("other.h5", factor=3.0)
    lab.prove("deep/derived.h5")
    write(lab.root / "deep" / "unknown.bin")
    lab.store.catalog.totals()  # open, with its log beside it
    page = found_in(lab.base)
    (store,) = page["stores"]
    assert (store["name"], store["problem"], store["root"]) == ("lab", "", str(lab.root))
    counts = [store[what]["files"] for what in ("catalogued", "with_recipe", "proved")]
    assert counts == [3, 2, 1]
    assert kinds_of(page)["recallfs's own (.recall)"][0] > 3
    (inner,) = found_in(lab.root / "deep")["stores"]
    counts = [inner[what]["files"] for what in ("catalogued", "with_recipe", "proved")]
    assert counts == [1, 1, 1]


def test_a_store_that_cannot_be_asked(lab: Lab) -> None:
    """A damaged catalog is told; the files are counted all the same, and it is left as it is."""
    lab.write_raw()
    lab.store.catalog.close()
    for path in (lab.root / ".recall").glob("catalog.sqlite*"):
        path.write_bytes(b"no database" * 1000)
    page = found_in(lab.root)
    assert page["stores"][0]["problem"]
    assert page["stores"][0]["catalogued"]["files"] == 0
    assert page["kinds"][0]["kind"] == "HDF5"


def test_unreadable_places_are_told(tmp_path: Path) -> None:
    """What cannot be opened, such as a path that is too long, is counted and named."""
    write(tmp_path / "file")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=here)
        inner = os.open("n" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    page = found_in(tmp_path)
    assert (page["files"], page["unreadable"]["count"]) == (1, 1)
    assert "too long" in page["unreadable"]["first"][0]["why"]


def test_other_file_systems_only_when_asked() -> None:
    """What is mounted below is named and not entered."""
    mounted = {
        mount.info.mount_point
        for mount in read_mounts()
        if Path(mount.info.mount_point).parent == Path("/dev")
        and Path(mount.info.mount_point).is_dir()
    }
    page = found_in(Path("/dev"))
    assert {item["path"] for item in page["other_file_systems"]["first"]} == mounted


@pytest.mark.services
@pytest.mark.parametrize(
    ("asked", "files", "passed_by"), [((), 1, 1), (("--all-file-systems",), 2, 0)]
)
def test_other_file_systems_are_entered_when_asked(
    tmp_path: Path, asked: tuple[str, ...], files: int, passed_by: int
) -> None:
    """A disk that is mounted in the folder counts only if one says so."""
    write(tmp_path / "here.nwb")
    (tmp_path / "disk").mkdir()
    words = 'mount -t tmpfs tmpfs "$0/disk" && touch "$0/disk/there.nwb" && exec "$@" "$0"'
    recall = (sys.executable, "-m", "recallfs", "survey", "--json", *asked)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", words, tmp_path, *recall],
        capture_output=True,
        check=True,
    )
    page = json.loads(done.stdout)
    assert (page["files"], page["other_file_systems"]["count"]) == (files, passed_by)


def test_memory_does_not_grow_with_files(tmp_path: Path) -> None:
    """Ten times the files take no more memory."""

    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        for number in range(count):
            if number % 1000 == 0:
                (folder / str(number)).mkdir(parents=True)
            (folder / str(number - number % 1000) / f"{number}.nwb").touch()
        tracemalloc.start()
        survey([folder], depth=0, look_into=0)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(1000)
    assert peak(20_000) < peak(2000) + 200_000


def test_no_folder(tmp_path: Path) -> None:
    """A file, or nothing, is refused in a sentence."""
    for path in (write(tmp_path / "file"), tmp_path / "nowhere"):
        with pytest.raises(InvalidInputError) as caught:
            survey([path])
        assert caught.value.kind == "invalid-path"


def test_page(lab: Lab) -> None:
    """The page tells it all, names that no encoding takes included; the exit code is 0."""
    lab.derive()
    write(lab.root / os.fsdecode(b"bad-\xff-name") / "file.xyz")
    write(lab.root / "\x1b[31mred" / "file.nwb", days=800)
    done = lab.cli("survey", str(lab.base), "--depth", "2")
    for said in ("on disk", "longer ago", "HDF5", "made by a recipe", "lab (", "bad-"):
        assert said in done.stdout
    assert "\x1b[31mred" not in done.stdout
    assert lab.cli_json("survey", str(lab.base))["files"] > 4


def test_no_configuration_is_needed(tmp_path: Path, lab: Lab) -> None:
    """None at all is well, and a broken one is told and passed over."""
    write(tmp_path / "data" / "file")
    config = lab.config.read_text()
    lab.config.unlink()
    assert lab.cli_json("survey", str(tmp_path / "data"))["files"] == 1
    lab.config.write_text("[stores")
    done = lab.cli("survey", str(tmp_path / "data"))
    lab.config.write_text(config)
    assert "configuration cannot be used" in done.stderr
