"""Open released files and folders by the readers of other libraries; print what each one read."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import recallfs

if sys.argv[1] == "before":
    recallfs.install()

import h5py
import numpy as np
import pynapple
import pynwb
import spikeinterface
from hdmf_zarr import NWBZarrIO
from neuroconv.tools import nwb_helpers
from pynwb.ecephys import ElectricalSeries
from spikeinterface.extractors import (
    read_nwb_recording,
    read_nwb_sorting,
    read_nwb_timeseries,
)

from neighbours import made

if sys.argv[1] == "after":
    recallfs.install()

FRAMES = np.arange(2000, dtype="i2").reshape(-1, 4)


def nwb_file() -> pynwb.NWBFile:
    """Make a file in memory with a recording, a time series and units."""
    nwbfile = made.new_file("readers")
    region = made.add_electrodes(nwbfile, 4)
    nwbfile.add_acquisition(
        ElectricalSeries(name="lfp", data=FRAMES, electrodes=region, rate=1000.0)
    )
    for start in range(3):
        nwbfile.add_unit(spike_times=np.arange(start, start + 2.0, 0.1))
    return nwbfile


def write_files(folder: Path) -> None:
    """Write one of each kind of file and folder."""
    with pynwb.NWBHDF5IO(folder / "a.nwb", "w") as out:
        out.write(nwb_file())
    with NWBZarrIO(str(folder / "a.nwb.zarr"), "w") as out:
        out.write(nwb_file())
    pynapple.Tsd(t=np.arange(10.0), d=np.arange(10.0)).save(str(folder / "tsd.npz"))
    recording = spikeinterface.NumpyRecording([FRAMES], 1000.0)
    recording.save(folder=folder / "binary", verbose=False)
    recording.save(folder=folder / "packed.zarr", format="zarr", verbose=False)


def is_released(place: Path) -> bool:
    """Tell whether a file goes: of the hundred in an NWB file as Zarr, a few stand for all."""
    return ".nwb.zarr" not in str(place) or place.name == ".zmetadata" or "lfp/data/" in str(place)


def lfp(nwbfile: Any) -> list[Any]:
    """Return some numbers of the series in an NWB file."""
    return [int(nwbfile.acquisition["lfp"].data[499, 3]), nwbfile.identifier]


def by_io(kind: Any, *arguments: Any, **keywords: Any) -> list[Any]:
    """Read by an IO class."""
    with kind(*arguments, **keywords) as source:
        return lfp(source.read())


def by_h5py(path: str) -> list[Any]:
    """Read by h5py."""
    with h5py.File(path, "r") as file:
        return [int(file["acquisition/lfp/data"][499, 3]), file["identifier"][()].decode()]


def frames(recording: Any) -> list[int]:
    """Return some numbers of a recording."""
    return [int(value) for value in recording.get_traces(start_frame=499, end_frame=500)[0]]


def units(sorting: Any) -> int:
    """Return the number of units."""
    return len(sorting.unit_ids)


def loaded_by_neuroconv(path: str) -> list[Any]:
    """Open a file to be added to, as NeuroConv does."""
    with nwb_helpers.make_or_load_nwbfile(path, overwrite=False, verbose=False) as nwbfile:
        return lfp(nwbfile)


READERS: dict[str, tuple[str, Callable[[str], Any], Any]] = {
    "h5py.File": ("a.nwb", by_h5py, [1999, "readers"]),
    "h5py.is_hdf5": ("a.nwb", h5py.is_hdf5, True),
    "pynwb.NWBHDF5IO": ("a.nwb", lambda p: by_io(pynwb.NWBHDF5IO, p, "r"), [1999, "readers"]),
    "pynwb.NWBHDF5IO, load_namespaces=False": (
        "a.nwb",
        lambda p: by_io(
            pynwb.NWBHDF5IO, p, "r", load_namespaces=False, manager=pynwb.get_manager()
        ),
        [1999, "readers"],
    ),
    "pynwb.read_nwb": ("a.nwb", lambda p: lfp(pynwb.read_nwb(p)), [1999, "readers"]),
    "pynwb.read_nwb, Zarr": ("a.nwb.zarr", lambda p: lfp(pynwb.read_nwb(p)), [1999, "readers"]),
    "hdmf_zarr.NWBZarrIO": ("a.nwb.zarr", lambda p: by_io(NWBZarrIO, p, "r"), [1999, "readers"]),
    "spikeinterface read_nwb_recording": (
        "a.nwb",
        lambda p: frames(read_nwb_recording(p)),
        [1996, 1997, 1998, 1999],
    ),
    "spikeinterface read_nwb_recording, use_pynwb=True": (
        "a.nwb",
        lambda p: frames(read_nwb_recording(file_path=p, use_pynwb=True)),
        [1996, 1997, 1998, 1999],
    ),
    "spikeinterface read_nwb_recording, Zarr": (
        "a.nwb.zarr",
        lambda p: frames(read_nwb_recording(p)),
        [1996, 1997, 1998, 1999],
    ),
    "spikeinterface read_nwb_sorting": (
        "a.nwb",
        lambda p: units(read_nwb_sorting(p, sampling_frequency=1000.0, t_start=0.0)),
        3,
    ),
    "spikeinterface read_nwb_timeseries": (
        "a.nwb",
        lambda p: frames(read_nwb_timeseries(p, timeseries_path="acquisition/lfp")),
        [1996, 1997, 1998, 1999],
    ),
    "spikeinterface.load, binary folder": (
        "binary",
        lambda p: frames(spikeinterface.load(p)),
        [1996, 1997, 1998, 1999],
    ),
    "spikeinterface.load, Zarr folder": (
        "packed.zarr",
        lambda p: frames(spikeinterface.load(p)),
        [1996, 1997, 1998, 1999],
    ),
    "pynapple.load_file, NWB": ("a.nwb", lambda p: len(pynapple.load_file(p)["units"]), 3),
    "pynapple.load_file, NPZ": ("tsd.npz", lambda p: float(pynapple.load_file(p).d[9]), 9.0),
    "neuroconv read of an NWB file": (
        "a.nwb",
        lambda p: sorted(
            each.location_in_file
            for each in nwb_helpers.get_existing_backend_configuration(
                pynwb.read_nwb(p)
            ).dataset_configurations.values()
        )[0],
        "acquisition/lfp/data",
    ),
    "neuroconv make_or_load_nwbfile": (
        "a.nwb",
        loaded_by_neuroconv,
        [1999, "readers"],
    ),
}


def main() -> None:
    """Make a store here, then release and open each file by each reader."""
    base = Path.cwd()
    lab = made.Lab()
    root = lab.root
    write_files(base)
    # Each has files of its own: some readers keep theirs open, and then they are not released.
    places: dict[tuple[str, str], str] = {}
    for number, (reader, (name, _, _)) in enumerate(READERS.items()):
        for form in ("plain path", "URL"):
            place = f"{number}-{form[:1]}-{name}"
            places[reader, form] = place
            if (base / name).is_dir():
                shutil.copytree(base / name, root / place)
            else:
                shutil.copyfile(base / name, root / place)
    paths = [
        str(place.relative_to(root))
        for place in sorted(root.rglob("*"))
        if place.is_file() and ".recall" not in place.parts and is_released(place)
    ]
    lab.release(lab.add(paths))
    found: dict[str, dict[str, str]] = {}
    for (reader, form), place in places.items():
        _, read, expected = READERS[reader]
        log = io.StringIO()
        try:
            with contextlib.redirect_stderr(log):
                result = read(f"recall://lab/{place}" if form == "URL" else str(root / place))
            told = log.getvalue().count("recallfs: recall://")
            cell = "works" if result == expected else f"gave {result}"
            if cell == "works" and told != 1:
                cell = f"told {told} times"
        except Exception as error:  # noqa: BLE001 - the table shows it
            cell = f"{type(error).__name__}: {error}"
        found.setdefault(reader, {})[form] = cell
    print(json.dumps(found))


main()
