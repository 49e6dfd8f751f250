"""NWB files come back from a recompute with other ids, dates and layouts."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hdmf.backends.hdf5.h5_utils import H5DataIO
from hdmf.common import DynamicTableRegion
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries

from skeleton.released import WALK, Release

REAL_FILES = sorted((Path(__file__).parents[3] / "shared/data/nwb").glob("*.nwb"))


def _write_nwb(path: Path, *, level: int) -> None:
    """Write an NWB file with fresh ids and dates, as an unseeded recipe does."""
    start = datetime.now(timezone.utc)
    nwb = NWBFile(
        session_description="a session", identifier=f"written {start}", session_start_time=start
    )
    device = nwb.create_device(name="probe")
    group = nwb.create_electrode_group(
        name="shank", description="of the probe", location="CA1", device=device
    )
    for _ in range(33):
        nwb.add_electrode(group=group, location="CA1")
    table = nwb.electrodes
    region = DynamicTableRegion(
        name="electrodes", data=list(range(33)), description="all of them", table=table
    )
    data = H5DataIO(WALK, compression="gzip", compression_opts=level, chunks=(100, 33))
    nwb.add_acquisition(ElectricalSeries(name="e", data=data, electrodes=region, rate=1000.0))
    for number in range(40):
        spikes = np.random.default_rng(number).random(200).cumsum()
        nwb.add_unit(spike_times=spikes)
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb)


@pytest.mark.parametrize("level", [4, 9])
def test_an_nwb_file_written_again_becomes_the_original(
    tmp_path: Path, release: Release, level: int
) -> None:
    """Other object ids, dates and gzip level: the first file's bytes come back all the same."""
    _write_nwb(tmp_path / "a.nwb", level=4)
    _write_nwb(tmp_path / "again.nwb", level=level)
    with h5py.File(tmp_path / "a.nwb") as one, h5py.File(tmp_path / "again.nwb") as other:
        assert one.attrs["object_id"] != other.attrs["object_id"]
        object_id = one.attrs["object_id"]
    released = release(tmp_path / "a.nwb")
    assert "/acquisition/e/data" in released.bulk_paths
    assert "/units/spike_times" in released.bulk_paths
    report = released.restore(tmp_path / "again.nwb")
    assert report.pieces_encoded == (0 if level == 4 else 7)
    with h5py.File(tmp_path / "restored.h5") as file:
        assert file.attrs["object_id"] == object_id


@pytest.mark.parametrize("path", REAL_FILES, ids=lambda path: path.name)
def test_real_files_come_back(tmp_path: Path, release: Release, path: Path) -> None:
    """Files that older pynwb versions wrote come back from a copy with all data laid anew."""
    (tmp_path / "a.nwb").write_bytes(path.read_bytes())
    with h5py.File(path) as original, h5py.File(tmp_path / "again.h5", "w") as again:

        def copy(name: str, found: Any) -> None:
            if isinstance(found, h5py.Dataset) and found.dtype.kind != "O" and found.shape:
                again.create_dataset(name, data=found[()])

        original.visititems(copy)
    released = release(tmp_path / "a.nwb", minimum_bytes=1)
    released.restore(tmp_path / "again.h5")
