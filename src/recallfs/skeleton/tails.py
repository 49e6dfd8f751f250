"""Ends of chunks that a file no longer uses, whose beginnings other data took over.

A zlib stream ends with the Adler-32 of what it unpacks to. Of a chunk that grew, the checksums of
all its earlier selves follow from its present values, without encoding any of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from h5py import h5z

from recallfs.hdf5.access import Bytes
from recallfs.hdf5.encoders import FilterStep

_ADLER_MODULUS = 65521
_BLOCK_BYTES = 1 << 20
_LEAST_BYTES = 64
_MOST_TRIES = 20

MOST_CHECKSUMS = 10_000_000
"""Above this many rows nothing is searched for: the table would take too much memory."""

LONGEST_BYTES = 64 * 1024**2
"""Of a longer end only the last part is recognised."""


@dataclass(frozen=True)
class Grown:
    """A chunk, and the checksums that it had when it was shorter.

    Parameters
    ----------
    owner : int
        Number of its dataset.
    number : int
        Of the chunk, in its dataset.
    checksums : ndarray of uint32, shape (n_rows,)
        Adler-32 with the first 1, 2, … rows of its values.
    """

    owner: int
    number: int
    checksums: npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Ending:
    """A place at which one of several chunks may end.

    Parameters
    ----------
    offset : int
        In the file: the byte after the checksum.
    candidates : tuple of (owner, number, rows)
        Chunks with that checksum, and their lengths then.
    """

    offset: int
    candidates: tuple[tuple[int, int, int], ...]


def is_searched(steps: tuple[FilterStep, ...]) -> bool:
    """Tell whether a pipeline is gzip, shuffled or not: then the checksums can be worked out."""
    codes = [step.code for step in steps]
    return codes in ([h5z.FILTER_DEFLATE], [h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE])


def earlier_checksums(
    values: Bytes,
    fill: Bytes,
    count: tuple[int, ...],
    chunk_shape: tuple[int, ...],
    *,
    is_shuffled: bool,
) -> npt.NDArray[np.uint32]:
    """Return the Adler-32 of a chunk that holds the first 1, 2, … rows of its values.

    Parameters
    ----------
    values : Bytes
        Elements of the chunk inside the dataset.
    fill : Bytes
        One element: what stands where nothing was written.
    count : tuple of int
        Shape of `values`, in elements.
    """
    item_bytes, n_items = len(fill), math.prod(chunk_shape)
    row_items = n_items // chunk_shape[0]
    rows = np.empty((count[0], *chunk_shape[1:], item_bytes), np.uint8)
    rows[:] = fill
    rows[(slice(None), *map(slice, count[1:]))] = values.reshape(*count, item_bytes)
    rows = rows.reshape(count[0], row_items, item_bytes)
    total = n_items * item_bytes
    plain, weighted = np.zeros((2, count[0]), np.int64)
    filled, fill_weighted = np.zeros((2, count[0]), np.int64)
    step = max(1, _BLOCK_BYTES // (row_items * item_bytes))
    for begin in range(0, count[0], step):
        block = rows[begin : begin + step].astype(np.int64)
        item = np.arange(begin * row_items, (begin + len(block)) * row_items)[:, None]
        byte = np.arange(item_bytes)[None, :]
        place = byte * n_items + item if is_shuffled else item * item_bytes + byte
        weights = (total - place).reshape(block.shape)
        here = slice(begin, begin + len(block))
        plain[here] = block.sum(axis=(1, 2))
        weighted[here] = (block * weights).sum(axis=(1, 2))
        filled[here] = int(fill.sum(dtype=np.int64)) * row_items
        fill_weighted[here] = (fill.astype(np.int64) * weights).sum(axis=(1, 2))
    # Beyond the dataset's end now, there was nothing then either.
    low = 1 + np.cumsum(plain - filled) + int(fill.sum(dtype=np.int64)) * n_items
    high = total + np.cumsum(weighted - fill_weighted)
    high += _weighted_sum_of_fill(fill, n_items, is_shuffled=is_shuffled)
    both: npt.NDArray[np.int64] = (high % _ADLER_MODULUS) << 16 | low % _ADLER_MODULUS
    return both.astype(np.uint32)


def _weighted_sum_of_fill(fill: Bytes, n_items: int, *, is_shuffled: bool) -> int:
    """Add up place times byte over a chunk of fill values; exact, then within the modulus."""
    total, item_bytes = n_items * len(fill), len(fill)
    items = n_items * (n_items - 1) // 2  # 0 + 1 + … + (n_items - 1)
    result = 0
    for byte, value in enumerate(fill.tolist()):
        places = byte * n_items * n_items + items if is_shuffled else (
            items * item_bytes + byte * n_items
        )  # fmt: skip
        result += value * (total * n_items - places)
    return result % _ADLER_MODULUS


class EndingFinder:
    """Finds places where the checksum of a chunk's earlier self stands.

    Parameters
    ----------
    chunks : list of Grown
    """

    def __init__(self, chunks: list[Grown]) -> None:
        self._chunks = chunks
        checksums = [chunk.checksums for chunk in chunks]
        everything = np.concatenate([np.zeros(0, np.uint32), *checksums])
        self._order = np.argsort(everything, kind="stable")
        self._ordered = everything[self._order]
        self._firsts = np.cumsum([0, *map(len, checksums)])

    def search(self, offset: int, content: bytes) -> Iterator[Ending]:
        """Search a part of the file, given with its offset; what is found comes in order."""
        if not len(self._ordered):
            return
        raw = np.frombuffer(content, np.uint8)
        for begin in range(0, max(0, len(raw) - 3), _BLOCK_BYTES):
            part = raw[begin : begin + _BLOCK_BYTES + 3].astype(np.uint32)
            words = part[:-3] << 24 | part[1:-2] << 16 | part[2:-1] << 8 | part[3:]
            left = np.searchsorted(self._ordered, words)
            known = self._ordered[np.minimum(left, len(self._ordered) - 1)] == words
            for hit in np.flatnonzero(known).tolist():
                right = int(np.searchsorted(self._ordered, words[hit], side="right"))
                rows = self._order[int(left[hit]) : right][:_MOST_TRIES].tolist()
                yield Ending(offset + begin + hit + 4, tuple(map(self._named, rows)))

    def _named(self, row: int) -> tuple[int, int, int]:
        place = int(np.searchsorted(self._firsts, row, side="right")) - 1
        chunk = self._chunks[place]
        return chunk.owner, chunk.number, row - int(self._firsts[place]) + 1


def common_suffix(one: bytes, other: bytes) -> int:
    """Return how many last bytes two byte strings share; 0 if too few to be worth a piece."""
    size = min(len(one), len(other))
    ends = [np.frombuffer(text, np.uint8)[len(text) - size :][::-1] for text in (one, other)]
    differ = ends[0] != ends[1]
    shared = int(np.argmax(differ)) if differ.any() else size
    return shared if shared >= _LEAST_BYTES else 0
