"""Shapes of chunks and buffers: decided from the data's shape alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from recallfs.recipes.backend.compression import refusal

_LARGEST_CHUNK_BYTES = 2**32 - 1  # HDF5 keeps a chunk's size in 32 bits
_CHANNELS = 64

Extent = int | None
"""Length of an axis; None where it is not known before the data ends."""


def default_chunk_shape(
    shape: Sequence[Extent], itemsize: int, limit_bytes: int, *, is_electrical: bool = False
) -> tuple[int, ...]:
    """Choose a chunk: whole samples, as many as fit.

    Parameters
    ----------
    shape : sequence of int or None
        Of the data; None for an axis whose length is not known.
    itemsize : int
        Bytes of an element.
    limit_bytes : int
        A chunk is at most this large, unless one element is larger.
    is_electrical : bool
        Whether axis 1 is channels, of which a chunk then holds at most 64: who reads one shank of
        a probe need not read all of it.

    Returns
    -------
    tuple of int
        Of the shape's length. If one sample is too large, its largest axes are halved.

    Examples
    --------
    >>> default_chunk_shape((1_800_000, 384), 2, 10_000_000, is_electrical=True)
    (78125, 64)
    >>> default_chunk_shape((5000, 512, 512), 2, 10_000_000)
    (19, 512, 512)
    """
    elements = max(1, limit_bytes // itemsize)
    sample = [elements if extent is None else extent for extent in shape[1:]]
    if is_electrical and sample:
        sample[0] = min(sample[0], _CHANNELS)
    while math.prod(sample) > elements:
        largest = sample.index(max(sample))
        sample[largest] = -(-sample[largest] // 2)
    first = max(1, elements // math.prod(sample))
    return (first if shape[0] is None else min(first, shape[0]), *sample)


def given_chunk_shape(
    location: str, given: Sequence[int], shape: Sequence[Extent], itemsize: int
) -> tuple[int, ...]:
    """Fit a chunk that was asked for to data that may be shorter.

    Raises
    ------
    InvalidInputError
        It has another number of axes than the data, or is larger than HDF5 can have.
    """
    fitted = _fitted(location, "chunk", given, shape)
    if math.prod(fitted) * itemsize > _LARGEST_CHUNK_BYTES:
        raise refusal(f"a chunk of {shown(fitted)} in {location} is above 4 GiB; make it smaller")
    return fitted


def default_buffer_shape(
    shape: Sequence[Extent], chunk: Sequence[int], itemsize: int, limit_bytes: int
) -> tuple[int, ...]:
    """Choose a buffer: whole chunks, the last axes first, so that it is read as it lies.

    Returns
    -------
    tuple of int
        Each a multiple of the chunk's, or the whole axis. At least one chunk.
    """
    buffer = list(chunk)
    for axis in reversed(range(len(shape))):
        room = limit_bytes // (math.prod(buffer) * itemsize)
        extent = shape[axis]
        if extent is not None and -(-extent // chunk[axis]) <= room:
            buffer[axis] = extent
            continue
        buffer[axis] = chunk[axis] * max(1, room)
        break
    return tuple(buffer)


def given_buffer_shape(
    location: str, given: Sequence[int], shape: Sequence[Extent], chunk: Sequence[int]
) -> tuple[int, ...]:
    """Fit a buffer that was asked for to data that may be shorter.

    Raises
    ------
    InvalidInputError
        It is not made of whole chunks.
    """
    fitted = _fitted(location, "buffer", given, shape)
    if any(
        wanted % part and wanted != extent
        for wanted, part, extent in zip(fitted, chunk, shape, strict=True)
    ):
        raise refusal(
            f"the buffer shape {shown(given)} of {location} is not a multiple of its chunk shape "
            f"{shown(chunk)}"
        )
    return fitted


def _fitted(
    location: str, what: str, given: Sequence[int], shape: Sequence[Extent]
) -> tuple[int, ...]:
    if len(given) != len(shape):
        raise refusal(
            f"{location} has the shape {shown(shape)}, and the {what} shape {shown(given)} does "
            f"not have {len(shape)} axes"
        )
    return tuple(
        wanted if extent is None else min(wanted, extent)
        for wanted, extent in zip(given, shape, strict=True)
    )


def shown(shape: Sequence[Extent]) -> str:
    """Return a shape as people write it; an unknown length is ``?``."""
    return " x ".join("?" if extent is None else f"{extent:,}" for extent in shape)
