"""The metadata of a file that was never here, fetched by few requests: what opens it from then on.

A skeleton needs the whole file. For a file of which only somebody else has the bytes, an outline
stands in: h5py walks through all objects over a connection, and the pages that it touched are kept,
with where each chunk lies. Nothing but the ETag of the object ties them to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from recallfs.errors import InvalidInputError, RecallError, SourceError
from recallfs.hdf5.access import HDF5_ERRORS
from recallfs.hdf5.extents import BulkDataset as Located
from recallfs.hdf5.extents import list_bulk
from recallfs.partial.blocks import BlockFile, key_of, make_blocks, open_blocks
from recallfs.partial.index import (
    CHUNKS,
    PAGE_BYTES,
    PAGES,
    BulkDataset,
    Index,
    of_pages,
    of_units,
)
from recallfs.partial.opening import Parts
from recallfs.partial.reading import CHECKS, PartialFile
from recallfs.skeleton.neighbours import any_neighbour
from recallfs.values import Entry

_SMALL_BYTES = 64 * 1024
"""A dataset that stores less is fetched with the metadata."""

_HEAD_BYTES = 512 * 1024
"""The beginning of a file is fetched at once: most of its metadata are there."""

_LEAST_BYTES = 128 * 1024
"""What a request for metadata fetches at least: others are likely to be beside them."""


@dataclass(frozen=True)
class Warmed:
    """What was fetched so that a file opens without a request.

    Parameters
    ----------
    requests : int
    fetched_bytes : int
    check : str
        How what is read from now on will be verified, in words.
    """

    url: str
    size_bytes: int
    requests: int
    fetched_bytes: int
    check: str


def warm_metadata(parts: Parts) -> Warmed:
    """Make sure that a file can be opened without a request.

    Raises
    ------
    InvalidInputError
        Kind ``not-hdf5``.
    SourceError, AccessError, NotRecallableError, IntegrityError
        As said by the sources.
    """
    entry, check = parts.entry, CHECKS[parts.kind]
    if parts.outline is not None:
        return Warmed(parts.url, entry.size_bytes, 0, 0, check)
    if parts.kind != PAGES:
        with parts.open() as file:
            if parts.kind != CHUNKS:
                _walk(file, parts)
            ranges = file.ranges
            return Warmed(parts.url, entry.size_bytes, ranges.requests, ranges.fetched_bytes, check)
    key = key_of("pages", parts.key)
    pages = open_blocks(parts.cache, key, of_pages(entry.size_bytes))
    if pages is None:
        raise SourceError(
            f"the metadata of {parts.url} cannot be kept: the cache {parts.cache.folder} cannot be "
            "written to.",
            kind="no-space",
        )
    pages.drop()  # it stays open, and is gone whatever happens
    with parts.open(blocks=pages) as file:
        file.least_bytes = _LEAST_BYTES
        file.prefetch_ranges([(0, min(_HEAD_BYTES, entry.size_bytes))])
        located, neighbour = _walk(file, parts)
        ranges = file.ranges
        notes = {"outline": True, "validator": ranges.validator, "neighbour": neighbour}
        _keep(parts, pages, located, notes)
        return Warmed(parts.url, entry.size_bytes, ranges.requests, ranges.fetched_bytes, check)


def _walk(file: PartialFile, parts: Parts) -> tuple[list[Located], str]:
    """Touch all metadata of a file; return where its bulk lies, and what it takes from others."""
    try:
        with h5py.File(file, "r") as opened:
            bulk = list(list_bulk(opened))
            large = {item.path for item in bulk if item.stored_bytes >= _SMALL_BYTES}
            _touch("", opened, large)
            opened.visititems(lambda name, item: _touch(name, item, large))
            return bulk, any_neighbour(opened) or ""
    except RecallError:
        raise
    except HDF5_ERRORS as error:
        if isinstance(error.__cause__, RecallError):
            raise error.__cause__ from None
        raise InvalidInputError(
            f"{parts.url} is not an HDF5 file, or is damaged: {error}", kind="not-hdf5"
        ) from error


def _touch(name: str, item: Any, large: set[str]) -> None:
    """Read the attributes of an object, and its values if they are few."""
    for key in item.attrs:
        try:
            item.attrs[key]
        except HDF5_ERRORS:
            continue  # of a type that this h5py cannot show
    if not isinstance(item, h5py.Dataset) or f"/{name}" in large:
        return
    is_own = not item.is_virtual and not item.external
    if is_own and item.id.get_storage_size() < _SMALL_BYTES * 16:
        item[()]


def _keep(parts: Parts, pages: BlockFile, located: list[Located], notes: dict[str, Any]) -> None:
    """Keep what was fetched, by an index that knows the chunks."""
    index = _index(parts.entry, located).with_notes(**notes)
    is_here = np.zeros(-(-index.size_bytes // PAGE_BYTES) + 1, dtype=np.int64)
    is_here[1:] = np.cumsum(pages.marks)
    stops = np.append(index.starts[1:], index.size_bytes)
    first, last = index.starts // PAGE_BYTES, (stops - 1) // PAGE_BYTES
    whole = is_here[last + 1] - is_here[first] == last + 1 - first
    kept = replace(index, is_retained=whole.astype(np.uint8))
    make_blocks(parts.cache, parts.key, kept, pages.parts())


def _index(entry: Entry, located: list[Located]) -> Index:
    """Cut a file into its chunks and, between them, pages."""
    size = entry.size_bytes
    offsets = np.concatenate([np.zeros(0, np.int64), *(item.offsets for item in located)])
    sizes = np.concatenate([np.zeros(0, np.int64), *(item.sizes for item in located)])
    order = np.argsort(offsets, kind="stable")
    ends = (offsets + sizes)[order]
    if len(ends) and ((offsets[order][1:] < ends[:-1]).any() or ends[-1] > size):
        return of_pages(size)  # not what HDF5 says elsewhere; pages are right for anything
    grid = np.arange(0, size, PAGE_BYTES, dtype=np.int64)
    before = np.searchsorted(offsets[order], grid, side="right") - 1
    inside = (before >= 0) & (grid < ends[before]) if len(ends) else np.zeros(len(grid), bool)
    starts = np.unique(np.concatenate((grid[~inside], offsets, ends[ends < size])))
    datasets, first, coordinate = [], 0, 0
    coordinates: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for item in located:
        count = len(item.sizes)
        datasets.append(BulkDataset(item.path, item.shape, first, count, coordinate))
        coordinates += [item.starts.ravel(), item.counts.ravel()]
        first, coordinate = first + count, coordinate + 2 * len(item.shape) * count
    return replace(
        of_units(size, PAGES, starts),
        datasets=tuple(datasets),
        piece_units=np.searchsorted(starts, offsets),
        coordinates=np.concatenate(coordinates),
    )
