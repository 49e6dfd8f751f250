"""A made-up extracellular recording, written as an NWB file of any length."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hdmf.data_utils import GenericDataChunkIterator

CHANNELS = 64
RATE_HZ = 30_000.0
_SECOND = int(RATE_HZ)


def write_recording(path: Path, seconds: int, *, seed: int = 1) -> None:
    """Write `seconds` of 64 channels at 30 kHz, 3.84 MB a second before compression.

    Parameters
    ----------
    path : Path
        New file.
    seconds : int
        Length of the recording.
    seed : int
        Of the noise; object ids are fresh each time.
    """
    from hdmf.backends.hdf5.h5_utils import H5DataIO
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.ecephys import ElectricalSeries

    nwbfile = NWBFile(
        session_description="made up by recallfs' demonstration",
        identifier=f"recallfs-demo-{seed}",
        session_start_time=datetime(2026, 1, 1, tzinfo=timezone.utc),
    )
    electrodes = add_electrodes(nwbfile)
    signal = _Signal(seconds, seed)
    data = H5DataIO(signal, maxshape=(None, CHANNELS))
    nwbfile.add_acquisition(
        ElectricalSeries(
            name="ElectricalSeries",
            data=data,
            electrodes=electrodes,
            rate=RATE_HZ,
            conversion=1.95e-7,
        )
    )
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwbfile)


def add_electrodes(nwbfile: Any) -> Any:
    """Add a probe of 64 channels to a file and return a region of all its electrodes."""
    device = nwbfile.create_device(name="probe")
    group = nwbfile.create_electrode_group(
        name="shank0", description="made up", location="hippocampus", device=device
    )
    for channel in range(CHANNELS):
        nwbfile.add_electrode(
            x=0.0, y=20.0 * channel, z=0.0, location="CA1", group=group, filtering="none"
        )
    return nwbfile.create_electrode_table_region(
        region=list(range(CHANNELS)), description="all channels"
    )


class _Signal(GenericDataChunkIterator):
    """The recording's samples, made a second at a time: slow rhythms, spikes and noise."""

    def __init__(self, seconds: int, seed: int) -> None:
        self._seconds = seconds
        self._seed = seed
        shape = (_SECOND, CHANNELS)
        super().__init__(buffer_shape=shape, chunk_shape=shape)

    def _get_maxshape(self) -> tuple[int, int]:
        return self._seconds * _SECOND, CHANNELS

    def _get_dtype(self) -> np.dtype[np.int16]:
        return np.dtype("int16")

    def _get_data(self, selection: tuple[slice, ...]) -> npt.NDArray[np.int16]:
        rng = np.random.default_rng([self._seed, selection[0].start])
        depth = np.linspace(0, np.pi, CHANNELS)
        time = np.arange(selection[0].start, selection[0].stop) / RATE_HZ
        theta = 400 * np.sin(2 * np.pi * 8 * time[:, None] + depth)
        gamma = 120 * np.sin(2 * np.pi * 70 * time[:, None] + 2 * depth)
        signal = theta + gamma + rng.normal(0, 25, (len(time), CHANNELS))
        for start in rng.integers(0, _SECOND - 40, 200):
            channel = rng.integers(0, CHANNELS)
            signal[start : start + 40, channel] -= 300 * np.hanning(40)
        samples: npt.NDArray[np.int16] = signal.astype(np.int16)
        return samples
