"""The datasets of an NWB file in memory: found, decided upon, wrapped.

Locations are those of NeuroConv, so that settings can be taken from there and back.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from hdmf.container import Container, Data, DataIO
from hdmf.data_utils import (
    AbstractDataChunkIterator,
    DataChunkIterator,
    GenericDataChunkIterator,
)
from hdmf.utils import get_data_shape
from pynwb.base import TimeSeriesReferenceVectorData
from pynwb.core import NWBContainer
from pynwb.ecephys import ElectricalSeries

from recallfs.errors import InvalidInputError
from recallfs.recipes.backend.compression import (
    hdf5_filter,
    refusal,
    shuffles_itself,
    zarr_codec,
)
from recallfs.recipes.backend.configuration import BackendConfiguration, DatasetBackend
from recallfs.recipes.backend.iterators import Gathered, Slices
from recallfs.recipes.backend.settings import Backend
from recallfs.recipes.backend.shapes import (
    default_buffer_shape,
    default_chunk_shape,
    given_buffer_shape,
    given_chunk_shape,
)

_FIELDS = ("data", "timestamps")
# Columns that are lists of tuples in memory and compound in the file, with the bytes of an element.
_RECORDS = {"pixel_mask": 12, "voxel_mask": 16}
_NUMERIC = "biufc"


@dataclass(frozen=True)
class _Dataset:
    """A dataset that can be written with settings: where it is, and what it holds."""

    location: str
    owner: Any
    field: str
    data: Any
    dtype: str
    itemsize: int
    shape: tuple[int | None, ...]


def configure(backend: Backend, nwbfile: Any) -> BackendConfiguration:
    """Decide how each dataset of a file is written; see `Backend.configure`."""
    return _decide(backend, nwbfile)[0]


def apply(backend: Backend, nwbfile: Any) -> BackendConfiguration:
    """Wrap each dataset of a file as was decided; see `Backend.apply`."""
    configuration, found = _decide(backend, nwbfile)
    # All are made before the first is put in place: a missing package must leave the file alone.
    wrapped = [
        (dataset, _wrapped(dataset, decided, backend.kind))
        for dataset, decided in zip(found, configuration.datasets, strict=True)
    ]
    for dataset, data in wrapped:
        _put(dataset, data)
    return configuration


def _decide(backend: Backend, nwbfile: Any) -> tuple[BackendConfiguration, list[_Dataset]]:
    found: list[_Dataset] = []
    left: dict[str, str] = {}
    for location, owner, field, data in sorted(_candidates(nwbfile), key=lambda item: item[0]):
        described = _described(location, owner, field, data, nwbfile)
        if isinstance(described, str):
            left[location] = described
        else:
            found.append(described)
    known = [dataset.location for dataset in found] + list(left)
    for location in backend.datasets:
        if location not in known:
            nearest = difflib.get_close_matches(location, known, n=1)
            hint = f"the nearest is {nearest[0]!r}" if nearest else f"it has {', '.join(known)}"
            raise refusal(f"no dataset {location!r} in the file; {hint}")
    decided = tuple(_decided(backend, dataset) for dataset in found)
    return BackendConfiguration(backend.kind, decided, left), found


def _candidates(nwbfile: Any) -> Iterator[tuple[str, Any, str, Any]]:
    """Iterate over what may become a dataset: its location, its owner and field, and its data."""
    for owner in nwbfile.all_children():
        if isinstance(owner, Data):
            yield _location(owner, nwbfile, "data"), owner, "data", owner.data
        elif isinstance(owner, NWBContainer):
            for field in _FIELDS:
                # Of linked timestamps the attribute would give the other series' data.
                data = owner.fields.get(field)
                if data is not None:
                    yield _location(owner, nwbfile, field), owner, field, data


def _location(owner: Any, nwbfile: Any, field: str) -> str:
    parts = [field]
    node = owner
    while node is not None and node is not nwbfile:
        parts.append(node.name)
        if node.parent is nwbfile:
            places = nwbfile.fields.items()
            parts += [
                name
                for name, held in places
                if isinstance(held, dict) and held.get(node.name) is node
            ][:1]
        node = node.parent
    return "/".join(reversed(parts))


def _described(location: str, owner: Any, field: str, data: Any, nwbfile: Any) -> _Dataset | str:
    """Return what a dataset holds, or why it is left as it is."""
    why = _untouched(owner, data, nwbfile)
    if why:
        return why
    if isinstance(data, (list, tuple)):
        first = _first_leaf(data)
        if first is None:
            return "empty"
        if isinstance(first, Container):
            return "references"
        shape, dtype = tuple(get_data_shape(data)), np.asarray(first).dtype
    else:
        is_iterator = isinstance(data, AbstractDataChunkIterator)
        shape, dtype = tuple(data.maxshape if is_iterator else data.shape), np.dtype(data.dtype)
    if owner.name in _RECORDS and isinstance(owner, Data) and dtype.names is None:
        # n tuples of one length look like a table of numbers, and are written as n records.
        return _Dataset(location, owner, field, data, "record", _RECORDS[owner.name], shape[:1])
    if not shape or 0 in shape:
        return "empty" if shape else "a single value"
    if dtype.kind not in _NUMERIC and dtype.names is None:
        return "text or references, which are not compressed"
    return _Dataset(location, owner, field, data, str(dtype), dtype.itemsize, shape)


def _untouched(owner: Any, data: Any, nwbfile: Any) -> str:
    """Return why data is not looked at, or nothing."""
    if isinstance(data, DataIO):
        return "wrapped already"
    if isinstance(data, Container):
        return f"linked to {data.name}"
    if isinstance(owner, TimeSeriesReferenceVectorData):
        return "references"
    if isinstance(data, h5py.Dataset) and _is_written(data, nwbfile):
        return "in the file already"
    is_array = hasattr(data, "dtype") and hasattr(data, "shape")
    if not isinstance(data, (list, tuple, AbstractDataChunkIterator)) and not is_array:
        return "a single value"
    return ""


def _first_leaf(data: Any) -> Any:
    while isinstance(data, (list, tuple)):
        data = next((item for item in data if not isinstance(item, (list, tuple)) or item), None)
    return data


def _is_written(data: h5py.Dataset, nwbfile: Any) -> bool:
    """Tell whether data lies in the very file that is being appended to."""
    reader = nwbfile.read_io
    return getattr(reader, "mode", "") in ("r+", "a") and data.file.filename == str(reader.source)


def _decided(backend: Backend, dataset: _Dataset) -> DatasetBackend:
    settings = backend.settings_of(dataset.location)
    own_chunk, own_buffer = _own_shapes(dataset.data)
    shape, itemsize = dataset.shape, dataset.itemsize
    if "chunk_shape" in settings:
        chunk = given_chunk_shape(dataset.location, settings["chunk_shape"], shape, itemsize)
    elif own_chunk is not None:
        chunk = own_chunk
    else:
        limit = int(backend.chunk_mb * 1e6)
        is_electrical = isinstance(dataset.owner, ElectricalSeries) and dataset.field == "data"
        chunk = default_chunk_shape(shape, itemsize, limit, is_electrical=is_electrical)
    if "buffer_shape" in settings:
        buffer = given_buffer_shape(dataset.location, settings["buffer_shape"], shape, chunk)
    elif own_buffer is not None and chunk == own_chunk:
        buffer = own_buffer
    else:
        buffer = default_buffer_shape(shape, chunk, itemsize, int(backend.buffer_mb * 1e6))
    name = settings["compression"]
    is_shuffled = (
        settings["shuffle"]
        and name is not None
        and itemsize > 1
        and not shuffles_itself(backend.kind, name)
    )
    return DatasetBackend(
        location=dataset.location,
        dtype=dataset.dtype,
        itemsize=itemsize,
        full_shape=shape,
        chunk_shape=chunk,
        buffer_shape=buffer,
        compression=name,
        options=settings["options"],
        shuffle=is_shuffled,
        fletcher32=settings["fletcher32"],
    )


def _own_shapes(data: Any) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Return the chunk and buffer that an iterator was made with: its data may depend on them."""
    if isinstance(data, GenericDataChunkIterator):
        if isinstance(data, Slices):
            return None, None
        return tuple(data.chunk_shape), tuple(data.buffer_shape)
    if isinstance(data, AbstractDataChunkIterator):
        recommended = data.recommended_chunk_shape()
        return (None if recommended is None else tuple(recommended)), None
    return None, None


def _wrapped(dataset: _Dataset, decided: DatasetBackend, kind: str) -> DataIO:
    data = _buffered(dataset.data, decided)
    if kind == "hdf5":
        from hdmf.backends.hdf5.h5_utils import H5DataIO

        options: dict[str, Any] = {"chunks": decided.chunk_shape}
        if decided.compression is not None:
            options |= hdf5_filter(decided.compression, decided.options)
        options |= {name: True for name in ("shuffle", "fletcher32") if getattr(decided, name)}
        return H5DataIO(data=data, **options)
    try:
        from hdmf_zarr import ZarrDataIO
    except ImportError as error:
        raise refusal("zarr needs the package hdmf-zarr, which is not installed") from error
    codec: Any = False
    if decided.compression is not None:
        codec = zarr_codec(decided.compression, decided.options)
    filters = None
    if decided.shuffle:
        import numcodecs

        filters = [numcodecs.Shuffle(elementsize=decided.itemsize)]
    return ZarrDataIO(data=data, chunks=decided.chunk_shape, compressor=codec, filters=filters)


def _buffered(data: Any, decided: DatasetBackend) -> Any:
    """Return data so that it is written in whole chunks, and no more of it is held than a buffer.

    A dataset of another file would be linked instead of written, whatever its wrapper says.
    """
    shapes = (decided.chunk_shape, decided.buffer_shape)
    if isinstance(data, GenericDataChunkIterator):
        own = (tuple(data.chunk_shape), tuple(data.buffer_shape))
        return data if own == shapes else Slices(data, *shapes)
    if isinstance(data, DataChunkIterator):
        return Gathered(data, *shapes) if data.iter_axis == 0 else data
    if isinstance(data, (list, tuple, AbstractDataChunkIterator)):
        return data
    if isinstance(data, np.ndarray) and not isinstance(data, np.memmap):
        return data
    return Slices(data, *shapes)


def _put(dataset: _Dataset, data: DataIO) -> None:
    owner = dataset.owner
    if not isinstance(owner, Data):
        owner.fields[dataset.field] = data
        return
    replacement: Callable[[Any], Any] = lambda _: data  # noqa: E731 - hdmf takes functions only
    owner.transform(replacement)
    if hasattr(owner, "_NWBData__data"):  # before pynwb 4 such data was kept a second time
        owner._NWBData__data = data
    if owner.data is not data:
        raise InvalidInputError(f"{dataset.location} cannot be wrapped; please report this.")
