"""The elements of a dataset as one stream of bytes in C order, whatever its chunks and filters.

Chunks that only shuffle and deflate touched are read past HDF5 and inflated in threads; HDF5's own
pipeline reads the rest. Memory holds a few chunks, or one row of chunks.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import mmap
import os
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5d, h5s, h5z

from recallfs.errors import InvalidInputError
from recallfs.hdf5.access import Bytes, read_elements, require_filters
from recallfs.hdf5.encoders import FilterStep, read_steps
from recallfs.hdf5.extents import chunk_infos, contiguous_pieces

_deflate: Any = None
with contextlib.suppress(ImportError):  # where it has no wheel, the standard library is slower
    _deflate = importlib.import_module("deflate")

PIECE_BYTES = 8 * 1024 * 1024
BAND_BYTES = 192 * 1024 * 1024
"""A row of chunks larger than this is laid out in a temporary file."""

_AHEAD_BYTES = 128 * 1024 * 1024
_FAST_FILTERS = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE})


class ElementReader:
    """Reads datasets of one file.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    threads : int, optional
        That inflate; by default the number of CPUs, 8 at most.

    Notes
    -----
    Use it as a context manager, from one thread.
    """

    def __init__(self, file: h5py.File, threads: int | None = None) -> None:
        self._file = file
        self._threads = threads or min(8, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads)
        self._descriptor = os.open(file.filename, os.O_RDONLY | os.O_CLOEXEC)
        self._userblock = int(file.userblock_size)

    def __enter__(self) -> ElementReader:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        os.close(self._descriptor)

    def stream(self, dataset: Any, datatype: Any, path: str) -> Iterator[Bytes]:
        """Read all elements of a dataset of a fixed-size type.

        Parameters
        ----------
        dataset : h5py.h5d.DatasetID
            With a simple space, or a scalar one.
        datatype : h5py.h5t.TypeID
            Its own.
        path : str
            For errors.

        Yields
        ------
        Bytes
            Whole elements, as the file's type has them, in C order.

        Raises
        ------
        InvalidInputError
            A filter is not available here, or a chunk is damaged.
        """
        item_bytes = datatype.get_size()
        if dataset.get_space().get_simple_extent_type() == h5s.SCALAR:
            buffer = np.zeros(item_bytes, dtype=np.uint8)
            dataset.read(h5s.ALL, h5s.ALL, buffer, mtype=datatype)
            yield buffer
            return
        shape = tuple(dataset.shape)
        if not math.prod(shape):
            return
        properties = dataset.get_create_plist()
        require_filters(properties, path=path)
        if properties.get_layout() == h5d.CHUNKED:
            layout = _Layout(shape, tuple(properties.get_chunk()), item_bytes)
            steps = read_steps(properties)
            if all(step.code in _FAST_FILTERS for step in steps):
                yield from self._chunks(dataset, datatype, layout, steps, path)
            else:
                yield from self._bands(dataset, datatype, layout)
        else:
            yield from self._pieces(dataset, datatype, shape, item_bytes)

    def _pieces(
        self, dataset: Any, datatype: Any, shape: tuple[int, ...], item_bytes: int
    ) -> Iterator[Bytes]:
        starts, counts = contiguous_pieces(shape, item_bytes, limit_bytes=PIECE_BYTES)
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
            yield read_elements(dataset, datatype, start, count)

    def _bands(self, dataset: Any, datatype: Any, layout: _Layout) -> Iterator[Bytes]:
        """Read by HDF5 itself, one row of chunks after the other."""
        for band in layout.bands():
            if layout.band_bytes <= BAND_BYTES:
                yield read_elements(dataset, datatype, band.start, band.count)
                continue
            with _Canvas(layout, band) as canvas:
                for start, count in layout.places(band):
                    canvas.lay(start, count, read_elements(dataset, datatype, start, count))
                yield from canvas.stream()

    def _chunks(
        self,
        dataset: Any,
        datatype: Any,
        layout: _Layout,
        steps: tuple[FilterStep, ...],
        path: str,
    ) -> Iterator[Bytes]:
        """Read chunks past HDF5, several at once, and put them in order."""
        infos = {info[0]: info for info in chunk_infos(dataset, layout.chunk)}
        shift = self._shift(dataset, infos)

        def decoded(start: tuple[int, ...], count: tuple[int, ...]) -> Future[Bytes] | Bytes:
            info = infos.get(start)
            if info is None or info[2] is None or shift is None:
                return read_elements(dataset, datatype, start, count)
            stored = _Stored(info[2] + shift, info[3], info[1], f"{path}{list(start)}")
            return self._pool.submit(self._decode, stored, steps, layout, count)

        for band in layout.bands():
            places = layout.places(band)
            if layout.is_row:
                for _, _, values in self._ahead(places, decoded, layout):
                    yield values
                continue
            with _Canvas(layout, band) as canvas:
                for start, count, values in self._ahead(places, decoded, layout):
                    canvas.lay(start, count, values)
                yield from canvas.stream()

    def _ahead(
        self,
        places: Iterator[tuple[tuple[int, ...], tuple[int, ...]]],
        decoded: Callable[[tuple[int, ...], tuple[int, ...]], Future[Bytes] | Bytes],
        layout: _Layout,
    ) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], Bytes]]:
        """Decode a few chunks ahead of the one that is wanted."""
        depth = max(2, min(4 * self._threads, _AHEAD_BYTES // max(1, layout.chunk_bytes)))
        waiting: deque[Any] = deque()
        try:
            for start, count in places:
                waiting.append((start, count, decoded(start, count)))
                if len(waiting) >= depth:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            for _, _, future in waiting:
                if isinstance(future, Future):
                    future.cancel()

    def _shift(self, dataset: Any, infos: dict[tuple[int, ...], Any]) -> int | None:
        """Return what to add to HDF5's offsets; None if they cannot be trusted.

        Some versions leave the user block out.
        """
        first = next((info for info in infos.values() if info[2] is not None and info[3]), None)
        if first is None or not self._userblock:
            return 0
        stored = bytes(dataset.read_direct_chunk(first[0])[1])
        for shift in (0, self._userblock):
            if os.pread(self._descriptor, len(stored), first[2] + shift) == stored:
                return shift
        return None

    def _decode(
        self,
        place: _Stored,
        steps: tuple[FilterStep, ...],
        layout: _Layout,
        count: tuple[int, ...],
    ) -> Bytes:
        stored: Any = os.pread(self._descriptor, place.size, place.offset)
        for index in reversed(range(len(steps))):
            if place.filter_mask >> index & 1:
                continue
            if steps[index].code == h5z.FILTER_DEFLATE:
                try:
                    stored = _inflated(stored, layout.chunk_bytes)
                except zlib.error as error:
                    raise _damaged(place.where, str(error)) from error
            else:
                stored = _unshuffled(stored, layout.item_bytes)
        values = np.frombuffer(stored, dtype=np.uint8)
        if len(values) != layout.chunk_bytes:
            raise _damaged(place.where, f"{len(values)} bytes instead of {layout.chunk_bytes}")
        if count == layout.chunk:
            return values
        whole = values.reshape(*layout.chunk, layout.item_bytes)
        return np.ascontiguousarray(whole[tuple(slice(n) for n in count)]).reshape(-1)


class _Stored(NamedTuple):
    """Where a chunk lies, and which filters it did not go through."""

    offset: int
    size: int
    filter_mask: int
    where: str


@dataclass(frozen=True)
class _Band:
    start: tuple[int, ...]
    count: tuple[int, ...]


@dataclass(frozen=True)
class _Layout:
    """How chunks cover a dataset; a *band* is a row of chunks along the first axis."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    item_bytes: int

    @property
    def chunk_bytes(self) -> int:
        return math.prod(self.chunk) * self.item_bytes

    @property
    def band_bytes(self) -> int:
        rows = min(self.chunk[0], self.shape[0])
        return rows * math.prod(self.shape[1:]) * self.item_bytes

    @property
    def is_row(self) -> bool:
        """Whether the chunks of a band follow one another in C order."""
        axis = next((i for i, n in enumerate(self.chunk) if n > 1), len(self.chunk) - 1)
        return all(
            c >= n for c, n in zip(self.chunk[axis + 1 :], self.shape[axis + 1 :], strict=True)
        )

    def bands(self) -> Iterator[_Band]:
        if self.is_row:
            yield _Band((0,) * len(self.shape), self.shape)
            return
        for first in range(0, self.shape[0], self.chunk[0]):
            rows = min(self.chunk[0], self.shape[0] - first)
            yield _Band((first, *(0,) * (len(self.shape) - 1)), (rows, *self.shape[1:]))

    def places(self, band: _Band) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Iterate over start and count of the chunks of a band, in C order of the starts."""
        axes = [
            range(first, first + n, c)
            for first, n, c in zip(band.start, band.count, self.chunk, strict=True)
        ]
        for start in itertools.product(*axes):
            count = tuple(
                min(c, n - s) for s, c, n in zip(start, self.chunk, self.shape, strict=True)
            )
            yield start, count


class _Canvas:
    """A band whose chunks are laid side by side; in a temporary file if it is large."""

    def __init__(self, layout: _Layout, band: _Band) -> None:
        self._band = band
        self._map: mmap.mmap | None = None
        size = math.prod(band.count) * layout.item_bytes
        if size > BAND_BYTES:
            with tempfile.TemporaryFile() as file:
                file.truncate(size)
                self._map = mmap.mmap(file.fileno(), size)
            self._bytes = np.frombuffer(self._map, dtype=np.uint8)
        else:
            self._bytes = np.empty(size, dtype=np.uint8)
        # Elements as one value each, so that a row of them is copied at once.
        kind = np.dtype((np.void, layout.item_bytes))
        self._elements = self._bytes.view(kind).reshape(band.count)
        self._kind = kind

    def __enter__(self) -> _Canvas:
        return self

    def __exit__(self, *_exception: object) -> None:
        del self._elements, self._bytes
        self._map = None  # unmapped as soon as nobody holds a piece of it

    def lay(self, start: tuple[int, ...], count: tuple[int, ...], values: Bytes) -> None:
        place = tuple(
            slice(s - b, s - b + n) for s, b, n in zip(start, self._band.start, count, strict=True)
        )
        self._elements[place] = values.view(self._kind).reshape(count)

    def stream(self) -> Iterator[Bytes]:
        step = max(1, PIECE_BYTES // self._kind.itemsize) * self._kind.itemsize
        for first in range(0, len(self._bytes), step):
            yield self._bytes[first : first + step]


def _result(item: tuple[Any, Any, Any]) -> tuple[Any, Any, Bytes]:
    start, count, values = item
    return start, count, values.result() if isinstance(values, Future) else values


def _inflated(stored: bytes, size_bytes: int) -> bytes | bytearray:
    if _deflate is not None:
        # What it refuses, zlib names, or reads: not every chunk is of the size it should be.
        with contextlib.suppress(_deflate.DeflateError):
            inflated: bytearray = _deflate.zlib_decompress(stored, size_bytes)
            return inflated
    return zlib.decompress(stored, 15, size_bytes)


def _unshuffled(stored: Any, item_bytes: int) -> Any:
    """Undo HDF5's shuffle: first bytes of all elements, then second bytes, and so on."""
    planes = np.frombuffer(stored, dtype=np.uint8)
    n_items = len(planes) // item_bytes
    if item_bytes == 1 or n_items < 2:
        return stored
    whole = n_items * item_bytes
    elements = np.empty(len(planes), dtype=np.uint8)
    elements[:whole].reshape(n_items, item_bytes)[:] = planes[:whole].reshape(item_bytes, n_items).T
    elements[whole:] = planes[whole:]
    return elements


def _damaged(where: str, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"the chunk {where} is damaged: {why}.", kind="not-hdf5", details={"chunk": where}
    )
