"""Files of any size that a recipe makes at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

import recallfs


@recallfs.recipe(name="bench.noise", version="1")
def noise(inputs: Mapping[str, Path], output: Path, *, size_bytes: int) -> None:
    """Write noise, the same each time, and tell a log beside the input that it ran."""
    for place in inputs.values():
        place.read_bytes()
    output.write_bytes(np.random.default_rng(0).bytes(size_bytes))
