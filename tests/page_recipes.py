"""Recipes that the pages speak of, on small files."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import recallfs
from recallfs.recipes.backend import Backend

DATASET = "acquisition/e/data"


def write_recording(path: Path, seed: int = 0, rows: int = 31_000) -> None:
    """Write a small file that is laid out as a recording is."""
    import h5py
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = np.random.default_rng(seed).integers(-9, 9, (rows, 8), dtype="i2")
        file.create_dataset(DATASET, data=data, chunks=(10_000, 8), compression=1)
        file["units/spike_times"] = np.arange(2000) / 30_000


def _derive(inputs: Mapping[str, Path], output: Path, factor: float) -> None:
    import h5py

    with h5py.File(inputs["raw"], "r") as source:
        data = source[DATASET][:] * int(factor)
    with h5py.File(output, "w") as file:
        file.attrs["object_id"] = str(uuid.uuid4())
        file.create_dataset(DATASET, data=data, chunks=(10_000, 8), compression=1)


@recallfs.recipe(name="lfp", version="1", seeded=False)
def lfp(
    inputs: Mapping[str, Path],
    output: Path,
    *,
    freq_min: float = 0.5,
    freq_max: float = 300.0,
    order: int = 4,
    channels: list[int] | None = None,
    backend: Backend = Backend(),
) -> None:
    """Stand for a filter."""
    _derive(inputs, output, freq_max // 100 + order)


@recallfs.recipe(name="ripples", version="1", seeded=False)
def ripples(inputs: Mapping[str, Path], output: Path) -> None:
    """Stand for a detector."""
    _derive(inputs, output, 2)


@recallfs.recipe(name="bandpass", version="1", seeded=False, outputs=("recording/",))
def bandpass(inputs: Mapping[str, Path], output: Path, *, freq_min: float = 300.0) -> None:
    """Write a folder."""
    output.mkdir()
    _derive(inputs, output / "traces.h5", 3)
    (output / "probe.json").write_text('{"channels": 8}')
