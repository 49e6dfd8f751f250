"""`recallfs.install`: unchanged readers get released files back, and nothing is left behind."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import recallfs
from conftest import Lab, sha256
from many import made_file
from mirrored import released_file
from quick_recipes import content
from recallfs.errors import ConflictError, SourceError
from recallfs.readers import is_installed
from recallfs.resolve.chain import Limits
from recallfs.resolve.recall import recall
from recallfs.resolve.wish import Wish


@pytest.fixture
def installed() -> Iterator[None]:
    recallfs.install()
    yield
    recallfs.uninstall()


@pytest.fixture
def far(lab: Lab) -> Path:
    """Give the path of a released HDF5 file."""
    return _released_hdf5(lab, "far.h5")


def _released_hdf5(lab: Lab, name: str) -> Path:
    path = lab.base / "made.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(5000)
    released_file(lab, name, path.read_bytes())
    path.unlink()
    return lab.root / name


def _nwb_bytes(folder: Path) -> bytes:
    from pynwb import NWBHDF5IO, NWBFile

    path = folder / "made.nwb"
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    with NWBHDF5IO(str(path), "w") as io:
        io.write(NWBFile(session_description="made", identifier="one", session_start_time=moment))
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("as_type", [str, Path, str.encode], ids=["str", "Path", "bytes"])
def test_plain_h5py_gets_the_original_back(lab: Lab, far: Path, as_type: Any) -> None:
    """`h5py.File(path)` of a released file opens the original, byte for byte."""
    digest = lab.entry("far.h5").sha256
    name = as_type(str(far))
    with h5py.File(name, "r") as file:
        assert file["data"][4999] == 4999
    assert sha256(far) == digest


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "arguments",
    [{}, {"mode": "r"}, {"mode": "r", "driver": "core"}, {"mode": "r", "driver": "sec2"}],
    ids=str,
)
def test_keywords_and_drivers(far: Path, arguments: dict[str, Any]) -> None:
    """The name may be a keyword, and any driver for one ordinary file will do."""
    with h5py.File(name=far, **arguments) as file:
        assert file["data"][1] == 1


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("mode", ["r+", "a"])
def test_modes_that_change_a_file_get_it_first(far: Path, mode: str) -> None:
    """A mode that changes a file changes the original, never an empty new one."""
    with h5py.File(far, mode) as file:
        assert file["data"][7] == 7


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("mode", ["w", "w-", "x"])
def test_modes_that_make_a_file_are_refused(lab: Lab, far: Path, mode: str) -> None:
    """A new file at a released path is refused, and none is made."""
    with pytest.raises(ConflictError, match="is released"):
        h5py.File(far, mode)
    assert not os.path.lexists(far)
    assert lab.entry("far.h5").state.value == "released"


@pytest.mark.usefixtures("installed")
def test_paths_of_no_store_are_left_alone(lab: Lab, tmp_path: Path) -> None:
    """Missing files, new files and open files that are not ours behave as ever."""
    for path in (tmp_path / "none.h5", lab.root / "none.h5", lab.root / "no/folder.h5"):
        with pytest.raises(FileNotFoundError):
            h5py.File(path, "r")
    with h5py.File(lab.root / "new.h5", "w") as file:
        file["a"] = 1
    with (lab.root / "new.h5").open("rb") as raw, h5py.File(raw, "r") as file:
        assert file["a"][()] == 1


@pytest.mark.usefixtures("installed")
def test_outage_is_not_file_not_found(lab: Lab, far: Path) -> None:
    """An unreachable mirror is said as such; no reader takes it for a missing file."""
    lab.write_config('[[sources.mirror]]\nname = "copies"\nurl = "nosuch://x"\n')
    with pytest.raises(SourceError) as caught:
        h5py.File(far, "r")
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.usefixtures("installed")
def test_threads_share_one_recall(lab: Lab, far: Path) -> None:
    """Many threads that open one released file all read it; it is brought once."""
    read: list[int] = []

    def reader() -> None:
        with h5py.File(far, "r") as file:
            read.append(int(file["data"][3]))

    threads = [threading.Thread(target=reader) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [3] * 8
    assert len(lab.store.catalog.recalls(lab.entry("far.h5").id)) == 1


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (("PATH",), {}),
        (("PATH", "r"), {}),
        (("PATH", "r", False), {}),
        (("PATH",), {"mode": "r", "load_namespaces": False}),
        ((), {"path": "PATH", "mode": "r"}),
    ],
    ids=str,
)
def test_plain_pynwb_gets_the_original_back(
    lab: Lab, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    """`NWBHDF5IO` opens a released file however it is called, also without namespaces."""
    from pynwb import NWBHDF5IO, get_manager

    digest = released_file(lab, "far.nwb", _nwb_bytes(lab.base))
    path = str(lab.root / "far.nwb")
    arguments = tuple(path if item == "PATH" else item for item in arguments)
    keywords = {key: path if item == "PATH" else item for key, item in keywords.items()}
    if keywords.get("load_namespaces") is False or False in arguments:
        keywords["manager"] = get_manager()
    with NWBHDF5IO(*arguments, **keywords) as io:
        assert io.read().identifier == "one"
    assert sha256(lab.root / "far.nwb") == digest


@pytest.mark.usefixtures("installed")
def test_pynwb_does_not_write_over_a_released_file(lab: Lab) -> None:
    """Writing an NWB file to a released path is refused."""
    from pynwb import NWBHDF5IO

    released_file(lab, "far.nwb", _nwb_bytes(lab.base))
    with pytest.raises(ConflictError):
        NWBHDF5IO(str(lab.root / "far.nwb"), "w")
    assert not os.path.lexists(lab.root / "far.nwb")


_IMPORT_ORDER = """
import sys, recallfs, h5py, importlib.util
original = h5py.File.__init__
def ours():
    return [f for f in sys.meta_path if type(f).__module__.startswith("recallfs")]
if sys.argv[1] == "before":
    import pynwb
recallfs.install()
recallfs.install()
assert ("pynwb" in sys.modules) == (sys.argv[1] == "before")
assert len(ours()) == 1
assert importlib.util.find_spec("pynwb") is not None
import pynwb
assert hasattr(pynwb.NWBHDF5IO.__init__, "__wrapped__"), "not wrapped"
first = pynwb.NWBHDF5IO.__init__.__wrapped__
with pynwb.NWBHDF5IO(sys.argv[2], "r", load_namespaces=False, manager=pynwb.get_manager()) as io:
    print(io.read().identifier)
recallfs.uninstall()
recallfs.uninstall()
assert h5py.File.__init__ is original
assert pynwb.NWBHDF5IO.__init__ is first
assert not ours()
assert "exec_module" not in vars(pynwb.__spec__.loader)
assert not recallfs.readers.is_installed()
"""


@pytest.mark.parametrize("order", ["before", "after"])
def test_pynwb_may_be_imported_before_or_after(lab: Lab, order: str) -> None:
    """Both import orders work, twice is once, and uninstalling leaves no trace."""
    released_file(lab, "far.nwb", _nwb_bytes(lab.base))
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ORDER, order, lab.root / "far.nwb"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "one"), done.stderr


def test_uninstall_restores_the_very_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing twice and uninstalling once gives the original method and finders back."""
    original, finders = h5py.File.__init__, list(sys.meta_path)
    recallfs.install()
    recallfs.install()
    assert is_installed()
    assert h5py.File.__init__ is not original
    recallfs.uninstall()
    assert h5py.File.__init__ is original
    assert sys.meta_path == finders
    assert not is_installed()


def test_worker_is_left_alone(lab: Lab, far: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a recipe's worker nothing is wrapped: recipes see files as they are."""
    monkeypatch.setenv("RECALLFS_WORKER", "1")
    original = h5py.File.__init__
    recallfs.install()
    assert h5py.File.__init__ is original
    assert not is_installed()
    with pytest.raises(FileNotFoundError):
        h5py.File(far, "r")


def test_nothing_is_wrapped_on_import() -> None:
    """Importing the package alone wraps nothing."""
    importlib.import_module("recallfs.readers")
    assert not is_installed()
    assert not hasattr(h5py.File.__init__, "__wrapped__") or "recallfs" not in (
        h5py.File.__init__.__code__.co_filename
    )


def test_recipes_see_files_as_they_are(lab: Lab) -> None:
    """In a worker a released file stays away, even if the recipe calls `recallfs.install()`."""
    _released_hdf5(lab, "other.h5")
    lab.config.write_text(lab.config.read_text().replace('"lab_recipes"', '"quick_recipes"'))
    other = lab.root / "other.h5"
    parameters = {"number": 1, "other": str(other)}
    digest = made_file(lab, "peek", content(1), parameters, recipe="peeks")
    (lab.root / "peek").unlink()
    assert (
        recall(lab.stores, lab.store, "peek", Wish(limits=Limits(only="recompute"))).sha256
        == digest
    )
    assert not os.path.lexists(other)
    assert lab.store.catalog.recalls(lab.entry("other.h5").id) == []
