"""Chunks that a file no longer uses: each time it was re-opened and extended, old ones stayed.

A compressed chunk that grows moves, and the space that it leaves is free only while the file is
open. What lies there is the chunk as it was: the same values, up to where the dataset ended then.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from h5py import h5z

from recallfs.hdf5.access import HDF5_ERRORS, Bytes, read_elements
from recallfs.hdf5.encoders import ChunkEncoder, FilterStep
from recallfs.skeleton.tails import common_suffix

_ZLIB_HEADER = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_CHECKSUM_BYTES = 4
_FEED_BYTES = 65536
_MOST_TRIES = 100
"""How many chunks that begin with the same element are compared with a stale one."""


@dataclass(frozen=True)
class ZlibStream:
    """A whole zlib stream somewhere in a file.

    Parameters
    ----------
    offset : int
        In the file.
    size : int
        Of the stream, in bytes.
    plain_bytes : int
        What it unpacks to.
    room_bytes : int
        From its offset to the end of the part of the file that it was found in.
    """

    offset: int
    size: int
    plain_bytes: int
    room_bytes: int


@dataclass(frozen=True, eq=False)
class StaleChunk:
    """A chunk as it was once: what its encoder makes of some of its present values.

    Parameters
    ----------
    start, count : tuple of int
        These values, in elements.
    values : Bytes
        They themselves.
    stored : bytes
        What lies at `offset`.
    skip : int
        How many bytes of the encoded chunk come before these: other data took their place.
    """

    offset: int
    start: tuple[int, ...]
    count: tuple[int, ...]
    values: Bytes
    stored: bytes
    skip: int = 0


def find_streams(
    extents: Iterable[tuple[int, bytes]], lengths: frozenset[int]
) -> Iterator[ZlibStream]:
    """Find zlib streams that unpack to one of some lengths.

    Parameters
    ----------
    extents : iterable of (int, bytes)
        Parts of a file, with their offsets.
    lengths : frozenset of int
        In bytes.
    """
    if not lengths:
        return
    for offset, content in extents:
        position = 0
        while header := _ZLIB_HEADER.search(content, position):
            begin = header.start()
            found = _unpack(content, begin, max(lengths))
            if found is not None and found[1] in lengths:
                yield ZlibStream(offset + begin, *found, len(content) - begin)
                position = begin + found[0]
            else:
                position = begin + 1


def _unpack(content: bytes, begin: int, limit: int) -> tuple[int, int] | None:
    """Return length and unpacked length of the zlib stream at a place; None if there is none."""
    inflater = zlib.decompressobj()
    plain_bytes, position = 0, begin
    try:
        while not inflater.eof and position < len(content):
            part = content[position : position + _FEED_BYTES]
            position += len(part)
            plain_bytes += len(inflater.decompress(part))
            if plain_bytes > limit:
                return None
    except zlib.error:
        return None
    if not inflater.eof:
        return None
    return position - len(inflater.unused_data) - begin, plain_bytes


def gzipped_bytes(steps: tuple[FilterStep, ...], chunk_bytes: int) -> int | None:
    """Tell how many bytes of a chunk gzip is given.

    Parameters
    ----------
    steps : tuple of FilterStep
        The chunk's pipeline.
    chunk_bytes : int
        Of its elements.

    Returns
    -------
    int or None
        None if gzip is not the last filter but for a checksum.
    """
    codes = [step.code for step in steps]
    if codes and codes[-1] == h5z.FILTER_FLETCHER32:
        codes.pop()
    if not codes or codes[-1] != h5z.FILTER_DEFLATE:
        return None
    return chunk_bytes + (_CHECKSUM_BYTES if h5z.FILTER_FLETCHER32 in codes else 0)


@dataclass(frozen=True)
class Present:
    """A dataset as it is now.

    Parameters
    ----------
    dataset : h5py.h5d.DatasetID
        Chunked.
    encoder : ChunkEncoder
        Its own.
    starts, counts : ndarray of int64, shape (n_chunks, rank)
        Its chunks.
    firsts : dict of bytes to list of int
        Chunks by the bytes of their first element.
    """

    dataset: Any
    encoder: ChunkEncoder
    starts: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    firsts: dict[bytes, list[int]]

    def recognise(self, stream: ZlibStream, content: bytes) -> tuple[bytes, StaleChunk | None]:
        """Tell which chunk a stream was, if it was one of this dataset.

        Parameters
        ----------
        content : bytes
            Of the file from the stream's offset on; a few bytes more than the stream.

        Returns
        -------
        begin : bytes
            The stream's first element; empty if it is no chunk of such a dataset.
        chunk : StaleChunk or None
            What it was.
        """
        has_checksum = self.encoder.steps[-1].code == h5z.FILTER_FLETCHER32
        stored = content[: stream.size + _CHECKSUM_BYTES * has_checksum]
        whole = self.encoder.decode(stored)
        if whole is None:
            return b"", None
        item_bytes = self.dataset.get_type().get_size()
        begin = whole[:item_bytes].tobytes()
        for number in self.firsts.get(begin, [])[:_MOST_TRIES]:
            start, count = self.starts[number].tolist(), self.counts[number].tolist()
            try:
                now = read_elements(self.dataset, self.dataset.get_type(), start, count)
            except HDF5_ERRORS:
                continue
            for then in self._earlier_counts(whole, now, count):
                part = _corner(now, count, then, item_bytes)
                if self.encoder.encode(part, then) == stored:
                    return begin, StaleChunk(stream.offset, tuple(start), then, part, stored)
        return begin, None

    def recognise_end(self, number: int, rows: int, end: int, content: bytes) -> StaleChunk | None:
        """Tell whether a chunk ends somewhere, as it was when it had so many rows.

        Parameters
        ----------
        end : int
            The byte in the file after it.
        content : bytes
            Of the file up to there.
        """
        item_bytes = self.dataset.get_type().get_size()
        start, count = self.starts[number].tolist(), self.counts[number].tolist()
        now = read_elements(self.dataset, self.dataset.get_type(), start, count)
        then = (rows, *count[1:])
        values = _corner(now, count, then, item_bytes)
        stored = self.encoder.encode(values, then)
        size = 0 if stored is None else common_suffix(stored, content)
        if stored is None or not size:
            return None
        skip = len(stored) - size
        return StaleChunk(end - size, tuple(start), then, values, stored[skip:], skip)

    def _earlier_counts(
        self, whole: Bytes, now: Bytes, count: Sequence[int]
    ) -> Iterator[tuple[int, ...]]:
        """Iterate over how far the dataset may have gone, in this chunk, along one axis."""
        item_bytes = len(now) // int(np.prod(count))
        before = _corner(whole, self.encoder.chunk_shape, tuple(count), item_bytes)
        equal = (before == now).reshape(*count, item_bytes).all(axis=-1)
        if equal.all():
            yield tuple(count)
            return
        for axis, length in enumerate(count):
            others = tuple(other for other in range(len(count)) if other != axis)
            lines = equal.all(axis=others)
            prefix = int(np.argmin(lines))  # the first line that differs
            if 0 < prefix < length:
                yield (*count[:axis], prefix, *count[axis + 1 :])


def _corner(
    elements: Bytes, shape: Sequence[int], count: tuple[int, ...], item_bytes: int
) -> Bytes:
    """Cut the elements of the first rows, columns, … out of an array's bytes."""
    whole = elements.reshape(*shape, item_bytes)
    return np.ascontiguousarray(whole[tuple(slice(n) for n in count)]).reshape(-1)
