"""Opening files in parts: by which policy, by which readers, and what else they may need."""

from __future__ import annotations

import gc
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest

import recallfs
from conftest import Lab
from recallfs.cli.app import main
from recallfs.config import ReaderSettings
from recallfs.errors import IntegrityError, InvalidInputError
from recallfs.partial import selections
from recallfs.partial.policy import Facts, choose
from recallfs.partial.reading import PartialFile
from recallfs.resolve.plan import Plan
from recallfs.sources.base import Offer
from recallfs.testing.misbehaviour import Fault
from recallfs.values import State
from served import Served, write_hdf5

URL = "recall://lab/a.h5"


def released(served: Served, *, skeleton: bool = True) -> dict[str, Any]:
    """Release a file; return its values."""
    values = write_hdf5(served.lab.base / "made.h5")
    served.release("a.h5", served.lab.base / "made.h5", skeleton=skeleton)
    return values


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in parts whatever can be."""
    monkeypatch.setenv("RECALLFS_READERS__PARTIAL", "always")


def a_plan(*sources: str, size: int = 10**9) -> Plan:
    steps = tuple(Offer(source, "") for source in sources)
    return Plan("recall://lab/a", State.RELEASED, size, "recall", "It was released.", steps)


@pytest.mark.parametrize(
    ("facts", "settings", "wanted", "expected"),
    [
        (Facts(a_plan("mirror:x"), "chunks"), {}, None, True),
        (Facts(a_plan("recompute"), "chunks"), {}, None, True),
        (Facts(a_plan("trash", "mirror:x"), "chunks"), {}, None, False),
        (Facts(a_plan("cache"), "chunks"), {}, None, False),
        (Facts(a_plan("mirror:x", size=10**6), "chunks"), {}, None, False),
        (Facts(a_plan("mirror:x", size=10**6), "chunks"), {"partial_above": 1}, None, True),
        (Facts(a_plan("mirror:x", size=10), "blocks"), {"partial": "always"}, None, True),
        (Facts(a_plan("mirror:x"), "blocks"), {}, None, False),
        (Facts(a_plan("mirror:x"), "blocks"), {}, True, True),
        (Facts(a_plan("mirror:x"), "chunks"), {"partial": "never"}, None, False),
        (Facts(a_plan("mirror:x"), "chunks"), {"partial": "never"}, True, True),
        (Facts(a_plan("mirror:x"), "chunks"), {}, False, False),
        (Facts(a_plan("mirror:x"), "pages"), {"partial": "always"}, None, False),
        (Facts(a_plan("mirror:x"), "pages"), {}, "unverified", True),
        (Facts(a_plan("mirror:x"), "pages", is_outlined=True), {}, None, True),
        (Facts(a_plan("mirror:x"), "chunks", neighbour="/x is a link to b"), {}, True, False),
    ],
)
def test_the_choice(facts: Facts, settings: Any, wanted: Any, expected: bool) -> None:
    """What is asked for, what is configured and what is known decide, and a reason is given."""
    choice = choose(facts, ReaderSettings(**settings), wanted)
    assert (choice.is_partial, bool(choice.reason)) == (expected, True)


def test_what_cannot_be_verified_must_be_asked_for() -> None:
    """Parts that nothing verifies are refused, unless they are asked for as such."""
    with pytest.raises(InvalidInputError, match="unverified"):
        choose(Facts(a_plan("mirror:x"), "pages"), ReaderSettings(), True)
    with pytest.raises(InvalidInputError, match="partial is one of"):
        choose(Facts(a_plan("mirror:x"), "pages"), ReaderSettings(), "yes")


def test_open_h5(served: Served) -> None:
    """A URL or path is opened in parts where that is asked for, whole where not, and left as is."""
    values = released(served)
    place = served.lab.root / "a.h5"
    for name in (URL, place, str(place)):
        with recallfs.open_h5(name, True) as file:
            assert file.filename == str(place)
            np.testing.assert_array_equal(file["group/gzip"][::7], values["gzip"][::7])
    assert not place.exists()
    gc.collect()
    assert not selections._users  # h5py is as it was
    with recallfs.open_h5(URL) as file:  # small
        np.testing.assert_array_equal(file["group/gzip"][:], values["gzip"])
    assert place.exists()
    with recallfs.open_h5(URL, True) as file:
        assert file.id.get_access_plist().get_driver() != h5py.h5fd.fileobj_driver


@pytest.mark.parametrize(
    "selection",
    [
        np.s_[5],
        np.s_[-1, ::3],
        np.s_[10:2000:250, 4:9],
        np.s_[[3, 700, 701, 2999], 2:4],
        np.s_[..., 1],
        np.s_[5:5],
        np.s_[2990:9999],
        (np.arange(3000) % 1700 == 3),
    ],
)
def test_a_slice_is_one_or_two_requests(served: Served, selection: Any) -> None:
    """Any way of slicing gives the values of the file; what is near is asked for together."""
    values = released(served)
    with recallfs.open_h5(URL, True) as file:
        np.testing.assert_array_equal(file["group/plain"][selection], values["plain"][selection])
        assert len(served.server.log) <= 10
        whole = np.empty((3000, 16))
        file["group/plain"].read_direct(whole)
        np.testing.assert_array_equal(whole, values["plain"])


def test_fsspec(served: Served) -> None:
    """`open`, `cat_file` and `cat_ranges` read parts where they are asked to."""
    write_hdf5(served.lab.base / "made.h5")
    content = served.release("a.h5", served.lab.base / "made.h5")
    fs = fsspec.filesystem("recall")
    with fs.open("lab/a.h5", "rb", partial=True) as file:
        assert isinstance(file, PartialFile)
        file.seek(1000)
        assert file.read(500) == content[1000:1500]
    assert fs.cat_file("lab/a.h5", 400_000, 400_100, partial=True) == content[400_000:400_100]
    assert fs.cat_file("lab/a.h5", -50, partial=True) == content[-50:]
    starts, ends = [10, 50_000, 300_000], [20, 50_500, 300_005]
    found = fs.cat_ranges(["lab/a.h5"] * 3, starts, ends, partial=True)
    assert found == [content[a:b] for a, b in zip(starts, ends, strict=True)]
    assert isinstance(fs.cat_ranges(["lab/none"], 0, 1)[0], FileNotFoundError)
    assert not (served.lab.root / "a.h5").exists()
    assert fs.cat_ranges(["lab/a.h5"], 5, 9, partial=False) == [content[5:9]]
    assert (served.lab.root / "a.h5").read_bytes() == content


def test_a_file_that_is_not_hdf5(served: Served) -> None:
    """It is verified by its blocks; by default it is read whole."""
    made = served.lab.base / "made.bin"
    content = bytes(range(256)) * 40_000
    made.write_bytes(content)
    served.release("a.bin", made, skeleton=False)
    fs = fsspec.filesystem("recall")
    served.server.fail(Fault(flip_at=(9_000_000,)))
    with fs.open("lab/a.bin", "rb", partial=True) as file:
        assert file.is_verified
        assert file.read(100) == content[:100]
        assert served.asked() == ["bytes=0-4194303"]
        with pytest.raises(IntegrityError, match="bytes 8388608 to"):
            file.read_at(8_400_000, 8_400_001)


def test_readers_that_know_nothing_of_it(served: Served, always: None) -> None:
    """With the readers installed, h5py and is_hdf5 read parts of a released file by its path."""
    values = released(served)
    place = served.lab.root / "a.h5"
    recallfs.install()
    try:
        assert h5py.is_hdf5(place)
        with h5py.File(place, "r") as file:
            assert file.filename == str(place)
            np.testing.assert_array_equal(file["group/plain"][7:9], values["plain"][7:9])
            np.testing.assert_array_equal(np.asarray(file["group/gzip"]), values["gzip"])
        assert not os.path.lexists(place)
        with h5py.File(place, "r+") as file:
            assert file.id.get_access_plist().get_driver() != h5py.h5fd.fileobj_driver
    finally:
        recallfs.uninstall()
    assert place.exists()


def test_pynwb_reads_parts(served: Served, always: None) -> None:
    """With the readers installed, pynwb reads parts of a released file by path and by URL."""
    pynwb = pytest.importorskip("pynwb")
    made = served.lab.base / "made.nwb"
    nwb = pynwb.NWBFile("a test", "id", datetime(2026, 1, 1, tzinfo=timezone.utc))
    data = np.arange(400_000, dtype="i4").reshape(-1, 4)
    nwb.add_acquisition(pynwb.TimeSeries(name="e", data=data, unit="V", rate=1.0))
    with pynwb.NWBHDF5IO(made, "w") as io:
        io.write(nwb)
    served.release("a.nwb", made)
    place = served.lab.root / "a.nwb"
    recallfs.install()
    try:
        for name in (str(place), "recall://lab/a.nwb"):
            with pynwb.NWBHDF5IO(name, "r") as io:
                read = io.read()
                assert served.asked() == []
                np.testing.assert_array_equal(read.acquisition["e"].data[5:8], data[5:8])
            assert len(served.asked()) == (name == str(place))
        read = pynwb.read_nwb(str(place))
        np.testing.assert_array_equal(read.acquisition["e"].data[-3:], data[-3:])
        read.get_read_io().close()
    finally:
        recallfs.uninstall()
    assert not os.path.lexists(place)


def test_only_a_recipe_brings_it_back(lab: Lab) -> None:
    """Metadata of a file that can only be computed come without it; the first slice starts it."""
    lab.derive(rows=500)
    lab.prove()
    with h5py.File(lab.root / "derived.h5") as file:
        expected = {name: file[name][()] for name in file}
    lab.release()
    said: list[str] = []
    with recallfs.open_h5("recall://lab/derived.h5", True, announce=said.append) as file:
        shapes = {name: file[name].shape for name in file}
        assert shapes == {name: value.shape for name, value in expected.items()}
        assert not (lab.root / "derived.h5").exists()
        for name, value in expected.items():
            np.testing.assert_array_equal(file[name][:3], value[:3])
    assert said
    assert (lab.root / "derived.h5").exists()
    # Where h5py holds its lock when it comes to that, the recall does not wait for it for ever.
    lab.release()
    with recallfs.open_h5("recall://lab/derived.h5", True) as file:
        found = np.empty(value.shape, value.dtype)
        file[name].id.read(h5py.h5s.ALL, h5py.h5s.ALL, found)
    np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize(
    ("kind", "skeleton"),
    [("link", True), ("view", True), ("external", True), ("link", False), ("view", False)],
)
def test_a_file_that_needs_its_neighbours_comes_whole(
    served: Served, kind: str, skeleton: bool
) -> None:
    """What reads right only at its own path is never read in parts, even if that is asked for."""
    lab = served.lab
    other = lab.root / "other.h5"
    lab.root.mkdir(exist_ok=True)
    with h5py.File(other, "w") as file:
        file["data"] = np.arange(100)
    made = lab.root / "made.h5"
    with h5py.File(made, "w") as file:
        file.create_dataset("own", data=np.random.default_rng(0).normal(size=(5000, 4)))
        if kind == "link":
            file["far"] = h5py.ExternalLink("other.h5", "/data")
        elif kind == "view":
            layout = h5py.VirtualLayout((100,), "i8")
            layout[:] = h5py.VirtualSource("other.h5", "data", (100,))
            file.create_virtual_dataset("far", layout)
        else:
            (lab.root / "raw.bin").write_bytes(np.arange(100).tobytes())
            file.create_dataset("far", (100,), "i8", external=[("raw.bin", 0, 800)])
    served.release("a.h5", made, skeleton=skeleton)
    assert ("reads right only whole" in served.parts().choice(True).reason) == skeleton
    with recallfs.open_h5(URL, True) as file:
        if kind != "external":  # HDF5 looks for that in the folder where the program runs
            assert file["far"][7] == 7
    assert (lab.root / "a.h5").exists()


def test_unverified_parts(served: Served, tmp_path: Path) -> None:
    """Without digests, parts are read only if asked for, are called so, and stay one object's."""
    values = released(served, skeleton=False)
    parts = served.parts()
    object.__setattr__(parts, "record", _without_blocks(parts.record))
    assert not parts.choice().is_partial
    assert parts.choice("unverified").is_partial
    with parts.open() as opened, h5py.File(opened, "r") as file:
        assert not opened.is_verified
        assert opened.check.startswith("unverified")
        np.testing.assert_array_equal(file["group/gzip"][:200], values["gzip"][:200])
        copy = served.copy_of("a.h5")
        copy.write_bytes(copy.read_bytes())
        with pytest.raises(OSError, match="another object"):
            file["group/contiguous"][:]


def _without_blocks(record: Any) -> Any:
    from dataclasses import replace

    return replace(record, blocks=b"")


def test_explain_says_how_a_file_is_read(
    served: Served, always: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """`recall explain` prints whether a file is read in parts, why, and how they are verified."""
    released(served)
    assert main(["explain", URL]) == 0
    assert "in parts: readers.partial is 'always' (verified chunk by chunk)" in _flat(capsys)
    served.lab.write_config()
    assert main(["explain", URL, "--no-ask", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"]["is_partial"] is False


def _flat(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())
