"""Data that is written buffer by buffer, in whole chunks, so that memory stays bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
from hdmf.data_utils import (
    AbstractDataChunkIterator,
    DataChunk,
    DataChunkIterator,
    GenericDataChunkIterator,
)


class Slices(GenericDataChunkIterator):
    """Buffers of something that can be sliced, such as a dataset in another file.

    Parameters
    ----------
    source : array-like or GenericDataChunkIterator
    chunk_shape, buffer_shape : tuple of int, optional
        Where they are not given, a backend decides: the source can be cut anyhow.
    """

    def __init__(
        self,
        source: Any,
        chunk_shape: tuple[int, ...] | None = None,
        buffer_shape: tuple[int, ...] | None = None,
    ) -> None:
        self._source = source
        super().__init__(chunk_shape=chunk_shape, buffer_shape=buffer_shape)

    def _get_data(self, selection: tuple[slice, ...]) -> Any:
        if isinstance(self._source, GenericDataChunkIterator):
            return self._source._get_data(selection)
        return self._source[selection]

    def _get_maxshape(self) -> tuple[int, ...]:
        source = self._source
        shape = source.maxshape if isinstance(source, GenericDataChunkIterator) else source.shape
        return tuple(shape)

    def _get_dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self._source.dtype)
        return dtype


class Gathered(AbstractDataChunkIterator):
    """What comes row by row, gathered into buffers of whole chunks.

    In Zarr a chunk that is written in parts is compressed anew for each: 2,000 rows of 2 kB took
    110 s, and gathered 1.2 s. In HDF5 pynwb's cache gathers them, up to 32 MiB.

    Parameters
    ----------
    source : DataChunkIterator
        Along axis 0.
    chunk_shape, buffer_shape : tuple of int
    """

    def __init__(
        self,
        source: DataChunkIterator,
        chunk_shape: tuple[int, ...],
        buffer_shape: tuple[int, ...],
    ) -> None:
        self._source = source
        self._chunk_shape = chunk_shape
        self._rows = buffer_shape[0]
        self._start = 0
        self._waiting: DataChunk | None = None

    def __iter__(self) -> Gathered:
        return self

    def __next__(self) -> DataChunk:
        parts: list[Any] = []
        start = end = self._start
        goal = start + self._rows - start % self._rows
        while end < goal:
            part = self._waiting if self._waiting is not None else next(self._source, None)
            self._waiting = None
            if part is None:
                break
            rows = part.selection[0]
            if rows.start > end:  # an iterator may leave rows out
                if parts:
                    self._waiting = part
                    break
                start = end = rows.start
                goal = start + self._rows - start % self._rows
            room = goal - end
            parts.append(part.data[:room])
            end += len(parts[-1])
            if len(part.data) > room:
                rest = slice(rows.start + room, rows.stop)
                self._waiting = DataChunk(part.data[room:], (rest, *part.selection[1:]))
        if not parts:
            raise StopIteration
        self._start = end
        data = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return DataChunk(data, (slice(start, end), *[slice(None)] * (data.ndim - 1)))

    def recommended_chunk_shape(self) -> tuple[int, ...]:
        """Return the chunk's shape."""
        return self._chunk_shape

    def recommended_data_shape(self) -> Any:
        """Return what the source recommends to begin with."""
        return self._source.recommended_data_shape()

    @property
    def dtype(self) -> Any:
        """Type of the elements."""
        return self._source.dtype

    @property
    def maxshape(self) -> Any:
        """Shape of all data; None where it is not known."""
        return self._source.maxshape
