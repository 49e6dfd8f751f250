"""Instances of the filesystem: of which store, pickled, in threads and other processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import threading
from pathlib import Path

import fsspec
import pytest

from actors import open_and_report
from conftest import Lab
from mirrored import CONTENT, released_file
from recallfs.errors import InvalidInputError
from recallfs.filesystem import RecallFileSystem


def test_folder_needs_no_configuration(tmp_path: Path) -> None:
    """A folder that was never initialised is a store by its own name, odd characters and all."""
    root = tmp_path / "mes données #1"
    fs = fsspec.filesystem("recall", root=str(root))
    with fs.open(f"{root.name}/sub 1/ä.txt", "w", encoding="utf-8") as file:
        file.write("größe")
    assert (root / "sub 1" / "ä.txt").read_bytes() == "größe".encode()
    assert fs.ls("", detail=False) == [root.name]
    assert fs.find(root.name) == [f"{root.name}/sub 1/ä.txt"]
    with pytest.raises(InvalidInputError, match="this filesystem's is") as caught:
        fs.ls("other")
    assert caught.value.kind == "unknown-store"


def test_url_and_root_show_the_same_store(lab: Lab) -> None:
    """A configured store and the same folder given as root share one catalog."""
    with fsspec.open("recall://lab/a.bin", "wb") as file:
        file.write(b"one")
    fs = fsspec.filesystem("recall", root=str(lab.root))
    assert fs.info("lab/a.bin")["sha256"] == hashlib.sha256(b"one").hexdigest()


def test_two_roots_are_two_filesystems(tmp_path: Path) -> None:
    """Instances are cached by root; what one writes the other does not show."""
    one, two = (fsspec.filesystem("recall", root=str(tmp_path / name / "lab")) for name in "ab")
    assert one is not two
    one.pipe("lab/x", b"1")
    assert two.ls("lab") == []
    assert one == pickle.loads(pickle.dumps(one))  # noqa: S301 - our own bytes


def test_instances_are_cached_and_pickled(lab: Lab) -> None:
    """Instances are shared by their arguments, and a pickled one opens the same files."""
    one = fsspec.filesystem("recall", root=str(lab.root))
    assert fsspec.filesystem("recall", root=str(lab.root)) is one
    assert fsspec.filesystem("recall") is not one
    one.pipe("lab/a", b"1")
    again = pickle.loads(pickle.dumps(one))  # noqa: S301 - our own bytes
    assert again.root == one.root
    assert again.cat("lab/a") == b"1"
    rebuilt = fsspec.AbstractFileSystem.from_json(one.to_json())
    assert rebuilt.cat("lab/a") == b"1"


def test_instance_follows_the_configuration(lab: Lab, fs: RecallFileSystem) -> None:
    """An instance from before a change of the configuration shows the stores of after it."""
    assert fs.ls("", detail=False) == ["lab"]
    (lab.base / "other").mkdir()
    lab.cli("init", str(lab.base / "other"), "--name", "other")
    lab.write_config(f'[stores.other]\nroot = "{lab.base}/other"\n')
    assert fs.ls("", detail=False) == ["lab", "other"]
    fs.pipe("other/x", b"1")
    assert (lab.base / "other/x").read_bytes() == b"1"


def test_unknown_store_is_named_not_found_only_by_exists(fs: RecallFileSystem) -> None:
    """An unknown store is an error that names the near one; `exists` says no."""
    assert not fs.exists("recall://lb/x")
    with pytest.raises(InvalidInputError, match="did you mean 'lab'") as caught:
        fs.info("recall://lb/x")
    assert caught.value.kind == "unknown-store"


@pytest.mark.parametrize("mode", ["rb", "r", "wb", "w", "ab"])
def test_open_files_are_pickled(lab: Lab, fs: RecallFileSystem, mode: str) -> None:
    """An `OpenFile` that was pickled, opened or not, opens the same file in the same mode."""
    fs.pipe("lab/x", b"old")
    fresh = fsspec.open("recall://lab/x", mode)
    travelled = pickle.loads(pickle.dumps(fresh))  # noqa: S301 - our own bytes
    with travelled as file:
        if mode.startswith("r"):
            again = pickle.loads(pickle.dumps(travelled))  # noqa: S301 - our own bytes
            assert file.read() in (b"old", "old")
            with again as second:
                assert second.read() in (b"old", "old")
        else:
            file.write("new" if mode == "w" else b"new")
    assert fs.cat("lab/x") == {"r": b"old", "w": b"new", "a": b"oldnew"}[mode[0]]


def test_spawned_process_gets_the_file_back(lab: Lab) -> None:
    """A process that was started from nothing reads a released file by its URL."""
    digest = released_file(lab, "far.bin")
    report = lab.base / "report"
    process = multiprocessing.get_context("spawn").Process(
        target=open_and_report, args=("recall://lab/far.bin", str(report))
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert report.read_text() == digest


def test_threads_read_and_write_at_once(lab: Lab, fs: RecallFileSystem) -> None:
    """64 threads on one instance: each writes its own file, all read one that was released."""
    released_file(lab, "far.bin")
    failures: list[BaseException] = []
    start = threading.Barrier(64)

    def work(number: int) -> None:
        try:
            start.wait()
            assert fs.cat("lab/far.bin") == CONTENT
            fs.pipe(f"lab/t/{number}", b"%d" % number)
            assert fs.cat(f"lab/t/{number}") == b"%d" % number
        except BaseException as error:  # noqa: BLE001 - the main thread looks at it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(fs.ls("lab/t")) == 64
    assert not lab.staged
