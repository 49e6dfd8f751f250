"""Write files as NeuroConv configures them, and as we do; print how each dataset was written."""

from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np
import zarr
from hdmf_zarr import NWBZarrIO
from neuroconv.tools.nwb_helpers import configure_backend, get_default_backend_configuration
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.ecephys import LFP, ElectricalSeries

from neighbours import made
from recallfs.recipes.backend import Backend

LFP_DATA = "processing/ecephys/LFP/lfp/data"
NUMBERS = np.arange(20_000, dtype="f4").reshape(-1, 4)


def new_file() -> NWBFile:
    """Make a file in memory with a series, timestamps and a ragged column."""
    nwbfile = made.new_file("neighbours")
    region = made.add_electrodes(nwbfile, 4)
    lfp = LFP()
    nwbfile.create_processing_module(name="ecephys", description="").add(lfp)
    series = ElectricalSeries(name="lfp", data=NUMBERS, electrodes=region, rate=1000.0)
    lfp.add_electrical_series(series)
    stamps = np.arange(100.0)
    nwbfile.add_acquisition(TimeSeries(name="t", data=stamps, timestamps=stamps, unit="V"))
    for _ in range(5):
        nwbfile.add_unit(spike_times=np.arange(50.0))
    return nwbfile


def write(nwbfile: NWBFile, kind: str, path: str) -> tuple[dict[str, Any], Any]:
    """Write a file; return how each of its datasets was, and the values of one."""
    with {"hdf5": NWBHDF5IO, "zarr": NWBZarrIO}[kind](path, "w") as io:
        io.write(nwbfile)
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = [item.chunks, item.compression, item.compression_opts, item.shuffle]
        elif isinstance(item, zarr.Array):
            codec = item.compressor and item.compressor.get_config()
            filters = [each.get_config() for each in item.filters or []]
            found[name] = [item.chunks, codec, filters]

    file = h5py.File(path) if kind == "hdf5" else zarr.open(path, "r")
    file.visititems(visit)
    return found, file[LFP_DATA][:]


def main() -> None:
    """Do it for both kinds."""
    told = {}
    for kind in ("hdf5", "zarr"):
        theirs, ours, own = new_file(), new_file(), new_file()
        configuration = get_default_backend_configuration(theirs, backend=kind)
        locations = {
            location
            for location, dataset in configuration.dataset_configurations.items()
            if dataset.dtype.kind in "iuf"
        }
        configure_backend(theirs, configuration)
        backend = Backend.from_neuroconv(configuration)
        applied = backend.apply(ours)
        assert locations <= {item.location for item in applied.datasets}
        # A column is a group in memory, and one dataset in the file.
        names = locations | {location.removesuffix("/data") for location in locations}
        by_them, _ = write(theirs, kind, f"theirs.{kind}")
        by_us, _ = write(ours, kind, f"ours.{kind}")
        Backend(kind=kind).apply(own)
        layouts, values = write(own, kind, f"own.{kind}")
        layout = layouts[LFP_DATA]
        told[kind] = {
            "by_neuroconv": {name: by_them[name] for name in names & set(by_them)},
            "by_us": {name: by_us[name] for name in names & set(by_us)},
            "own": layout[1:]
            if kind == "hdf5"
            else [layout[1]["id"], layout[1]["level"], layout[2]],
            "values": "equal" if np.array_equal(values, NUMBERS) else "others",
        }
    print(json.dumps(told, default=str))


if __name__ == "__main__":
    main()
