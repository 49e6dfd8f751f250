"""What was decided for each dataset of a file, to be read and applied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recallfs.recipes.backend.settings import compression_text
from recallfs.recipes.backend.shapes import Extent, shown


@dataclass(frozen=True)
class DatasetBackend:
    """How one dataset is written.

    Parameters
    ----------
    location : str
        Where it is in the file in memory, such as ``acquisition/ElectricalSeries/data``; the same
        as in NeuroConv.
    dtype : str
        Of its elements, as NumPy writes it.
    itemsize : int
        Bytes of an element.
    full_shape : tuple of int or None
        Of all data; None for a length that is not known before an iterator ends.
    chunk_shape, buffer_shape : tuple of int
        What is compressed at once, and what is held in memory at once. The buffer is made of whole
        chunks.
    compression : str or None
    options : Mapping
        Of the compression.
    shuffle, fletcher32 : bool
    """

    location: str
    dtype: str
    itemsize: int
    full_shape: tuple[Extent, ...]
    chunk_shape: tuple[int, ...]
    buffer_shape: tuple[int, ...]
    compression: str | None
    options: Mapping[str, Any]
    shuffle: bool
    fletcher32: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "location": self.location,
            "dtype": self.dtype,
            "full_shape": list(self.full_shape),
            "chunk_shape": list(self.chunk_shape),
            "buffer_shape": list(self.buffer_shape),
            "compression": self.compression,
            "options": dict(self.options),
            "shuffle": self.shuffle,
            "fletcher32": self.fletcher32,
        }


@dataclass(frozen=True)
class BackendConfiguration:
    """How the datasets of one file are written; print it to read it.

    Parameters
    ----------
    kind : {"hdf5", "zarr"}
    datasets : tuple of DatasetBackend
        By location.
    left : Mapping of str to str
        Why other datasets are left as they are, by location.
    """

    kind: str
    datasets: tuple[DatasetBackend, ...]
    left: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "kind": self.kind,
            "datasets": [item.to_json() for item in self.datasets],
            "left": dict(self.left),
        }

    def __str__(self) -> str:
        rows = [("dataset", "type", "shape", "size", "chunk", "", "buffer", "written")]
        rows += [
            (
                item.location,
                item.dtype,
                shown(item.full_shape),
                _size(item.full_shape, item.itemsize),
                shown(item.chunk_shape),
                _size(item.chunk_shape, item.itemsize),
                _size(item.buffer_shape, item.itemsize),
                compression_text(item.compression, item.options, item.shuffle),
            )
            for item in self.datasets
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [f"{location}: left as it is, {why}" for location, why in self.left.items()]
        return "\n".join([f"{self.kind}, {len(self.datasets)} datasets", *lines])


def _size(shape: tuple[Extent, ...], itemsize: int) -> str:
    if None in shape:
        return "?"
    size = float(math.prod(extent or 0 for extent in shape) * itemsize)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
