"""External links of HDF5 to released files are followed as if the files were there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import recallfs
from conftest import Lab
from mirrored import released_file, released_hdf5
from processes import start
from reader_actors import values_of_group


@pytest.fixture
def far(lab: Lab) -> Iterator[Path]:
    """Give the path of a released HDF5 file, with the readers wrapped."""
    released_hdf5(lab, "sub/far.h5")
    recallfs.install()
    yield lab.root / "sub" / "far.h5"
    recallfs.uninstall()


def linking(place: Path, target: str, path: str = "/group") -> Path:
    """Write a file with an external link."""
    place.parent.mkdir(exist_ok=True)
    with h5py.File(place, "w") as file:
        file["inner/link"] = h5py.ExternalLink(target, path)
    return place


@pytest.mark.parametrize("name", ["inner/link/data", "/inner/link/data", b"inner/link/data"])
def test_link_beside_the_file(lab: Lab, far: Path, name: str) -> None:
    """A relative link is meant from the file that has it, and may lie on the way to a name."""
    with h5py.File(linking(lab.root / "sub" / "linking.h5", "far.h5"), "r") as file:
        assert file[name][4999] == 4999
        assert file["inner"]["link"]["data"][1] == 1
        assert file["inner"].get("link").name == "/group"
    assert os.path.lexists(far)


def test_absolute_link_from_elsewhere(far: Path, tmp_path: Path) -> None:
    """A link from a file of no store, by an absolute path, is followed too."""
    with h5py.File(linking(tmp_path / "out.h5", str(far), "/group/data"), "r") as file:
        assert file["inner/link"].shape == (5000,)


def test_all_items_of_a_group(lab: Lab, far: Path) -> None:
    """Going through a group meets the link, while h5py holds its own lock."""
    with h5py.File(linking(lab.root / "linking.h5", "sub/far.h5"), "r") as file:
        assert [value.name for value in file["inner"].values()] == ["/group"]


@pytest.mark.parametrize("choice", ["drop", "continue"])
def test_recompute_while_h5py_is_locked(lab: Lab, choice: str) -> None:
    """Going through a group holds h5py's lock, which those who recompute and graft need, too."""
    lab.released()
    with lab.config.open("a") as file:
        file.write(f'\n[readers]\non_interrupt = "{choice}"\n')
    linking(lab.root / "linking.h5", "derived.h5", "/data")
    reader = start(
        values_of_group, lab.root / "linking.h5", environment={**os.environ, **lab.environment}
    )
    reader.join(60)
    if is_stuck := reader.is_alive():
        reader.kill()
    assert not is_stuck
    assert reader.exitcode == 0
    assert os.path.lexists(lab.root / "derived.h5")


def test_link_to_a_link(lab: Lab, far: Path, tmp_path: Path) -> None:
    """A link to a file that is there, in which a link leads to the released one."""
    middle = linking(lab.root / "sub" / "middle.h5", "far.h5")
    with h5py.File(linking(tmp_path / "out.h5", str(middle), "/inner"), "r") as file:
        assert file["inner/link/link/data"][7] == 7


def test_other_links_fail_as_ever(lab: Lab, far: Path) -> None:
    """What leads nowhere, or to nothing in the file, is a KeyError as without us."""
    with h5py.File(linking(lab.root / "linking.h5", "none.h5"), "r") as file:
        with pytest.raises(KeyError):
            file["inner/link"]
        assert file.get("inner/link") is None
        with pytest.raises(KeyError):
            file["external/none"]
    with h5py.File(linking(lab.root / "wrong.h5", "sub/far.h5", "/none"), "r") as file:
        with pytest.raises(KeyError):
            file["inner/link"]
        link = file["inner"].get("link", getlink=True)
        assert (link.filename, link.path) == ("sub/far.h5", "/none")


def test_link_in_an_nwb_file(lab: Lab, far: Path) -> None:
    """A series whose data lie in a released file is read by pynwb."""
    from datetime import datetime, timezone

    from pynwb import NWBHDF5IO, NWBFile, TimeSeries

    far_nwb, near = lab.root / "far.nwb", lab.root / "near.nwb"

    def new_file() -> NWBFile:
        moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
        return NWBFile(session_description="made", identifier="one", session_start_time=moment)

    with NWBHDF5IO(far_nwb, "w") as out:
        nwbfile = new_file()
        nwbfile.add_acquisition(TimeSeries(name="t", data=np.arange(50), unit="V", rate=1.0))
        out.write(nwbfile)
    with NWBHDF5IO(far_nwb, "r") as source, NWBHDF5IO(near, "w", manager=source.manager) as out:
        nwbfile = new_file()
        data = source.read().acquisition["t"].data
        nwbfile.add_acquisition(TimeSeries(name="t", data=data, unit="V", rate=1.0))
        out.write(nwbfile, link_data=True)
    with h5py.File(near, "r") as file:
        assert isinstance(file.get("acquisition/t/data", getlink=True), h5py.ExternalLink)
    content = far_nwb.read_bytes()
    far_nwb.unlink()
    released_file(lab, "far.nwb", content)
    with NWBHDF5IO(near, "r") as source:
        assert source.read().acquisition["t"].data[49] == 49
