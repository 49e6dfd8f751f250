"""Run the recipes for recordings and hold what they write against NumPy and SciPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pynwb import NWBHDF5IO
from scipy.signal import butter, resample_poly, sosfiltfilt

from recallfs.cli.demo.recording import write_recording
from recallfs.recipes import ephys
from recallfs.recipes.backend import Backend

RATE = 30_000.0
# Buffers that begin and end within blocks, and within groups of channels.
SMALL = Backend(
    chunk_mb=0.1,
    buffer_mb=0.2,
    datasets={
        "processing/ecephys/ElectricalSeries/data": {
            "chunk_shape": [700, 24],
            "buffer_shape": [700, 24],
        }
    },
)


def main() -> None:
    """Print what was found as JSON."""
    raw = Path("raw.nwb")
    write_recording(raw, 2)
    with NWBHDF5IO(str(raw), "r") as io:
        before = io.read().acquisition["ElectricalSeries"].data[:]

    def run(recipe: Any, **parameters: Any) -> tuple[Any, Any]:
        """Return the values, and what else the file tells."""
        recipe({"raw": raw}, Path("made.nwb"), **parameters)
        with NWBHDF5IO("made.nwb", "r") as io:
            nwbfile = io.read()
            series = nwbfile.processing["ecephys"]["ElectricalSeries"]
            told = {
                "rate": series.rate,
                "filtering": series.filtering,
                "conversion": series.conversion,
                "electrodes": len(series.electrodes.data),
                "y_of_last": float(series.electrodes.table["y"][63]),
                "group": series.electrodes.table["group"][0].name,
                "session": str(nwbfile.session_start_time),
            }
            return series.data[:], told

    passed, told = run(ephys.bandpass, dtype="float64")
    sections = butter(5, [300, 6000], "bandpass", fs=RATE, output="sos")
    expected = sosfiltfilt(sections, before.astype("f8"), axis=0)
    median, _ = run(ephys.reference, dtype="float32")
    low, told_low = run(ephys.decimate, rate_hz=1000, dtype="float64")
    slow = resample_poly(before.astype("f8"), 1, 30, axis=0)
    times = [0.5, 0.9999, 1.5]  # one across the border of two blocks
    clean, _ = run(ephys.artifacts, times_s=times, mode="zeros")
    line, _ = run(ephys.artifacts, times_s=times)
    stimulated = np.zeros(len(before), bool)
    for time in times:
        frame = round(time * RATE)
        stimulated[frame - 15 : frame + 91] = True
    small = {
        "bandpass": np.array_equal(run(ephys.bandpass, dtype="float64", backend=SMALL)[0], passed),
        "reference": np.array_equal(
            run(ephys.reference, dtype="float32", backend=SMALL)[0], median
        ),
        "decimate": np.array_equal(
            run(ephys.decimate, rate_hz=1000, dtype="float64", backend=SMALL)[0], low
        ),
        "artifacts": np.array_equal(run(ephys.artifacts, times_s=times, backend=SMALL)[0], line),
    }
    middle = slice(50, -50)
    refused = []
    for recipe, parameters in (
        (ephys.decimate, {"rate_hz": 7000.0}),
        (ephys.artifacts, {"times_s": [5.0]}),
        (ephys.bandpass, {"series": "lfp"}),
    ):
        try:
            recipe({"raw": raw}, Path("refused.nwb"), **parameters)
        except ValueError as error:
            refused.append(str(error))
    print(
        json.dumps(
            {
                "told": told,
                "rate_low": told_low["rate"],
                "bandpass": float(np.abs(passed - expected).max() / expected.std()),
                "reference": float(
                    np.abs(median - (before - np.median(before, axis=1, keepdims=True))).max()
                ),
                "decimate": float(np.abs(low - slow)[middle].max() / before.std()),
                "zeros": bool(
                    (clean[stimulated] == 0).all()
                    and (clean[~stimulated] == before[~stimulated]).all()
                ),
                "line": bool((line[~stimulated] == before[~stimulated]).all()),
                "steps_in_line": int(
                    np.abs(np.diff(line[15_000 - 14 : 15_000 + 90], axis=0)).max()
                ),
                "same_in_small_buffers": small,
                "refused": refused,
                "left_behind": Path("refused.nwb").exists(),
            }
        )
    )


if __name__ == "__main__":
    main()
