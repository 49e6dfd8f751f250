"""Where the bulk data of an HDF5 file lies: one extent per chunk or contiguous piece."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5s

from recallfs.hdf5.access import HDF5_ERRORS
from recallfs.hdf5.datatypes import is_fixed_size
from recallfs.hdf5.encoders import is_repeatable, read_steps
from recallfs.hdf5.objects import ObjectNames

CONTIGUOUS_PIECE_BYTES = 4 * 1024 * 1024
"""Contiguous data is cut into pieces of at most this many bytes."""

MINIMUM_PIECE_BYTES = 256
"""A dataset whose pieces are smaller on average stays in the skeleton: a piece's digests and
coordinates would take a third of what it frees."""


@dataclass(frozen=True)
class BulkDataset:
    """A dataset that may be left out of the skeleton, and where HDF5 says its pieces lie.

    Parameters
    ----------
    path : str
        The first of its paths in depth-first, alphabetical order.
    shape : tuple of int
        Rank 1 or more.
    chunk_shape : tuple of int or None
        None if the layout is contiguous.
    item_bytes : int
        Size of one element in the file.
    starts, counts : ndarray of int64, shape (n_pieces, rank)
        The elements of each piece that lie inside the dataset, in C order of their starts.
    offsets : ndarray of int64, shape (n_pieces,)
        In bytes. Unverified: some HDF5 versions leave the user block out.
    sizes : ndarray of int64, shape (n_pieces,)
        Stored bytes.
    filter_masks : ndarray of uint32, shape (n_pieces,)
        A set bit is a filter that was skipped.
    """

    path: str
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...] | None
    item_bytes: int
    starts: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    filter_masks: npt.NDArray[np.uint32]

    @property
    def stored_bytes(self) -> int:
        """Bytes that all pieces take in the file."""
        return int(self.sizes.sum())


def list_bulk(file: h5py.File) -> Iterator[BulkDataset]:
    """Find the datasets of a file that hold bulk data.

    Parameters
    ----------
    file : h5py.File
        Open for reading.

    Yields
    ------
    BulkDataset
        Each dataset once, however many hard links it has. Only chunked and contiguous datasets
        of fixed-size types, stored in this very file, through filters that give the same bytes
        each time.

    Raises
    ------
    OSError, RuntimeError, KeyError, ValueError, TypeError
        Of h5py, if the file is damaged; the caller maps them.
    """
    for link, open_object in ObjectNames(file).walk():
        # What has a name that is not UTF-8 stays in the skeleton.
        if link.kind != "dataset" or not link.is_text:
            continue
        dataset = open_object()
        properties = dataset.get_create_plist()
        try:
            datatype = dataset.get_type()
        except TypeError:
            continue  # a class that this h5py does not know
        if not is_fixed_size(datatype) or properties.get_external_count():
            continue
        if not is_repeatable(read_steps(properties)):
            continue
        if dataset.get_space().get_simple_extent_type() != h5s.SIMPLE:
            continue
        bulk = _locate(dataset, properties, link.path, datatype.get_size())
        if bulk is not None and bulk.stored_bytes >= MINIMUM_PIECE_BYTES * len(bulk.sizes):
            yield bulk


def _locate(dataset: Any, properties: Any, path: str, item_bytes: int) -> BulkDataset | None:
    layout = properties.get_layout()
    if layout == h5d.CHUNKED:
        return _chunked(dataset, tuple(properties.get_chunk()), path, item_bytes)
    if layout == h5d.CONTIGUOUS:
        return _contiguous(dataset, path, item_bytes)
    return None


def _chunked(
    dataset: Any, chunk_shape: tuple[int, ...], path: str, item_bytes: int
) -> BulkDataset | None:
    infos = [info for info in chunk_infos(dataset, chunk_shape) if info[2] is not None and info[3]]
    if not infos:
        return None
    shape = tuple(dataset.shape)
    starts = np.array([info[0] for info in infos], dtype=np.int64)
    counts = np.minimum(np.array(shape) - starts, np.array(chunk_shape))
    inside = (counts > 0).all(axis=1)
    order = np.lexsort(starts.T[::-1])
    order = order[inside[order]]
    return BulkDataset(
        path=path,
        shape=shape,
        chunk_shape=chunk_shape,
        item_bytes=item_bytes,
        starts=starts[order],
        counts=counts[order],
        offsets=np.array([info[2] for info in infos], dtype=np.int64)[order],
        sizes=np.array([info[3] for info in infos], dtype=np.int64)[order],
        filter_masks=np.array([info[1] for info in infos], dtype=np.uint32)[order],
    )


def chunk_infos(
    dataset: Any, chunk_shape: tuple[int, ...]
) -> list[tuple[tuple[int, ...], int, int | None, int]]:
    """List (start, filter mask, offset, size) of the chunks that are stored."""
    infos: list[Any] = []
    if hasattr(dataset, "chunk_iter"):
        dataset.chunk_iter(infos.append)
    else:
        # HDF5 before 1.10.10 and 1.12.3. Asking by number walks the index from its beginning each
        # time, so ask by place unless most places are empty.
        stored = dataset.get_num_chunks()
        grid = [range(0, n, chunk) for n, chunk in zip(dataset.shape, chunk_shape, strict=True)]
        if math.prod(len(axis) for axis in grid) <= 4 * stored:
            places = itertools.product(*grid)
            infos.extend(dataset.get_chunk_info_by_coord(place) for place in places)
        else:
            infos.extend(dataset.get_chunk_info(number) for number in range(stored))
    return [
        (tuple(info.chunk_offset), info.filter_mask, info.byte_offset, info.size) for info in infos
    ]


def _contiguous(dataset: Any, path: str, item_bytes: int) -> BulkDataset | None:
    shape = tuple(dataset.shape)
    offset = dataset.get_offset()
    stored = dataset.get_storage_size()
    if offset is None or stored == 0 or stored != math.prod(shape) * item_bytes:
        return None
    starts, counts = contiguous_pieces(shape, item_bytes)
    sizes = counts.prod(axis=1) * item_bytes
    return BulkDataset(
        path=path,
        shape=shape,
        chunk_shape=None,
        item_bytes=item_bytes,
        starts=starts,
        counts=counts,
        offsets=offset + np.cumsum(sizes) - sizes,
        sizes=sizes,
        filter_masks=np.zeros(len(sizes), dtype=np.uint32),
    )


def contiguous_pieces(
    shape: tuple[int, ...], item_bytes: int, *, limit_bytes: int = CONTIGUOUS_PIECE_BYTES
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut an array into hyperslabs whose bytes lie one after the other in C order.

    Parameters
    ----------
    shape : tuple of int
        Rank 1 or more, no zeros.
    item_bytes : int
        Size of one element.
    limit_bytes : int
        Largest piece, unless one element is larger.

    Returns
    -------
    starts, counts : ndarray of int64, shape (n_pieces, rank)
        Single indices on the leading axes, a range on one, everything on the rest.
    """
    axis = next(
        (axis for axis in range(len(shape)) if math.prod(shape[axis + 1 :]) * item_bytes
         <= limit_bytes),
        len(shape) - 1,
    )  # fmt: skip
    inner_bytes = math.prod(shape[axis + 1 :]) * item_bytes
    step = min(max(1, limit_bytes // inner_bytes), shape[axis])
    leading = shape[:axis]
    steps = -(-shape[axis] // step)
    grid = np.indices((*leading, steps), dtype=np.int64).reshape(axis + 1, -1).T
    starts = np.zeros((len(grid), len(shape)), dtype=np.int64)
    starts[:, : axis + 1] = grid
    starts[:, axis] *= step
    counts = np.ones_like(starts)
    counts[:, axis] = np.minimum(step, shape[axis] - starts[:, axis])
    counts[:, axis + 1 :] = shape[axis + 1 :]
    return starts, counts


def stored_chunk(dataset: Any, start: tuple[int, ...]) -> tuple[int, bytes] | None:
    """Read a chunk as it is stored.

    Parameters
    ----------
    dataset : h5py.h5d.DatasetID
        Chunked.
    start : tuple of int
        The chunk's first element.

    Returns
    -------
    tuple of (int, bytes) or None
        Filter mask and stored bytes; None if there is no such chunk, or it cannot be read.
    """
    try:
        mask, stored = dataset.read_direct_chunk(start)
    except HDF5_ERRORS:
        return None
    return mask, stored
