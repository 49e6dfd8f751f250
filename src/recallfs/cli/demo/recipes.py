"""The demonstration's recipe: local field potentials from a broadband recording."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recallfs.recipes.backend import Backend
from recallfs.recipes.model import recipe


@recipe(name="demo.lfp", version="1", seeded=False)
def lfp(
    inputs: Mapping[str, Path],
    output: Path,
    *,
    freq_min: float = 0.5,
    freq_max: float = 300.0,
    rate_hz: float = 2500.0,
    backend: Backend = Backend(chunk_mb=0.64),
) -> None:
    """Band-pass and decimate a recording.

    Parameters
    ----------
    inputs : Mapping
        ``raw``: an NWB file with an ElectricalSeries.
    output : Path
        NWB file to write. It is written by plain pynwb, with nothing seeded: object ids and dates
        are fresh each time.
    freq_min, freq_max : float
        Pass band, in Hz.
    rate_hz : float
        Sampling rate of the result, in Hz; divides the recording's.
    backend : Backend
        Chunks of a second, gzip 4.
    """
    import numpy as np
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.ecephys import LFP, ElectricalSeries
    from scipy.signal import butter, sosfiltfilt

    from recallfs.cli.demo.recording import add_electrodes

    with NWBHDF5IO(str(inputs["raw"]), "r") as source:
        recording = source.read()
        series = recording.acquisition["ElectricalSeries"]
        factor = round(series.rate / rate_hz)
        sections = butter(4, [freq_min, freq_max], "bandpass", fs=series.rate, output="sos")
        traces = series.data[:]
        filtered = np.empty((-(-len(traces) // factor), traces.shape[1]), dtype="float32")
        for channel in range(traces.shape[1]):
            trace = sosfiltfilt(sections, traces[:, channel].astype("float64"))
            filtered[:, channel] = trace[::factor]
        nwbfile = NWBFile(
            session_description="local field potentials",
            identifier=f"{recording.identifier}-lfp",
            session_start_time=recording.session_start_time,
        )
        rate, conversion = series.rate / factor, series.conversion
    electrical = ElectricalSeries(
        name="lfp",
        data=filtered,
        electrodes=add_electrodes(nwbfile),
        rate=rate,
        conversion=conversion,
    )
    module = nwbfile.create_processing_module(name="ecephys", description="filtered signals")
    module.add(LFP(electrical_series=electrical))
    print(backend.apply(nwbfile))
    with NWBHDF5IO(str(output), "w") as target:
        target.write(nwbfile)
