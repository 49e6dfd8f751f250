"""Running a dataset's filter pipeline again, by HDF5 itself, on one chunk in memory.

Only HDF5 knows what it writes around the values (padding of edge chunks, parameters that filters
derive from the type, filters that give up), so the chunk is written to a dataset of the same
creation properties in a file that never touches a disk, and read back as stored.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from blake3 import blake3
from h5py import h5d, h5f, h5p, h5s, h5z

from recallfs.hdf5.access import HDF5_ERRORS, Bytes, read_elements

_BLOSC_FILTERS = frozenset({32001, 32026})

_OWN_FILTERS = frozenset(
    {
        h5z.FILTER_DEFLATE,
        h5z.FILTER_SHUFFLE,
        h5z.FILTER_FLETCHER32,
        h5z.FILTER_SZIP,
        h5z.FILTER_NBIT,
        h5z.FILTER_SCALEOFFSET,
    }
)

_LOSSLESS_FILTERS = frozenset(
    {
        h5z.FILTER_DEFLATE,
        h5z.FILTER_SHUFFLE,
        h5z.FILTER_FLETCHER32,
        h5z.FILTER_SZIP,
        h5z.FILTER_LZF,
        32004,  # lz4
        32008,  # bitshuffle
        32015,  # zstd
        *_BLOSC_FILTERS,
    }
)

_VALUES_PUT_IN_FRONT = {32008: 3}
"""Filters that put derived parameters before those asked for, each time a dataset is made:
bitshuffle, whose stored ones would otherwise be taken for the asked ones and shift."""

_TEST_BYTES = 65536  # enough for a compressor's own choices (matches, blocks, trees) to show

_file_numbers = itertools.count()


@dataclass(frozen=True)
class FilterStep:
    """One filter of a pipeline.

    Parameters
    ----------
    code : int
        The filter's registered number.
    flags : int
        Bit 0 is set if the filter may be skipped when it fails.
    values : tuple of int
        Its parameters, as stored in the file.
    name : str
        For people.
    """

    code: int
    flags: int
    values: tuple[int, ...]
    name: str


@dataclass(frozen=True)
class Encoder:
    """A filter pipeline, and what the one that was at hand made of a fixed test buffer.

    Parameters
    ----------
    steps : tuple of FilterStep
        In the order in which they are applied when writing.
    item_bytes : int
        Size of the elements it ran on.
    fingerprint : str or None
        BLAKE3 (hex) of the encoded test buffer; None where the pipeline can decode only.
    """

    steps: tuple[FilterStep, ...]
    item_bytes: int
    fingerprint: str | None


def read_steps(properties: Any) -> tuple[FilterStep, ...]:
    """Take the filter pipeline from a dataset's creation properties."""
    steps = [properties.get_filter(index) for index in range(properties.get_nfilters())]
    return tuple(
        FilterStep(int(code), int(flags), tuple(map(int, values)), name.decode("utf-8", "replace"))
        for code, flags, values, name in steps
    )


def is_lossless(steps: tuple[FilterStep, ...]) -> bool:
    """Tell whether decoding gives back what was encoded, whatever the values."""
    return all(step.code in _LOSSLESS_FILTERS for step in steps)


def is_repeatable(steps: tuple[FilterStep, ...]) -> bool:
    """Tell whether equal values give equal bytes each time.

    False for LZF: its compressor looks matches up in memory that it never cleared. Of chunks of
    40 kB up to one in eight came out differently.
    """
    return all(step.code != h5z.FILTER_LZF for step in steps)


def is_own(steps: tuple[FilterStep, ...]) -> bool:
    """Tell whether a pipeline consists of HDF5's own filters.

    What others make may depend on more than their recorded parameters: Blosc's on its threads.
    """
    return all(step.code in _OWN_FILTERS for step in steps)


class ChunkEncoder:
    """Encodes and decodes single chunks the way a given dataset does.

    Parameters
    ----------
    dataset : h5py.h5d.DatasetID
        Chunked. Only its properties and type are used; its data need not exist.

    Notes
    -----
    Holds the file in memory that the chunks pass through: a few chunks large. Use it as a context
    manager. Not thread-safe. Blosc is made to run on one thread, since its result depends on how
    many it uses; for that the environment variable ``BLOSC_NTHREADS`` is 1 while it runs. Blosc2
    moreover writes the number of threads into each chunk, so what it made with more threads cannot
    be encoded again.
    """

    def __init__(self, dataset: Any) -> None:
        self._properties = dataset.get_create_plist()
        self.datatype = dataset.get_type()
        self.chunk_shape = tuple(self._properties.get_chunk())
        self.steps = read_steps(self._properties)
        self._file = _memory_file()

    def __enter__(self) -> ChunkEncoder:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory; the encoder cannot be used afterwards."""
        self._file.close()

    def encode(self, values: Bytes, count: tuple[int, ...], filter_mask: int = 0) -> bytes | None:
        """Encode the elements of one chunk.

        Parameters
        ----------
        values : Bytes
            In C order, in the dataset's own type.
        count : tuple of int
            Their shape: the chunk's, or smaller on axes where the dataset ends inside the chunk.
        filter_mask : int
            Filters to skip, one bit each.

        Returns
        -------
        bytes or None
            What HDF5 stores; None if it could not be encoded.
        """
        if not self.steps and count == self.chunk_shape:
            return values.tobytes()
        try:
            properties = rebuild_pipeline(self._properties, filter_mask)
            with self._dataset(count, properties) as dataset:
                dataset.write(h5s.ALL, h5s.ALL, values, mtype=self.datatype)
                dataset.flush()
                skipped, stored = dataset.read_direct_chunk((0,) * len(count))
        except HDF5_ERRORS:
            return None
        # Filters were taken out already, so one that is skipped now is one that failed.
        return None if skipped else bytes(stored)

    def decode(self, stored: bytes, filter_mask: int = 0) -> Bytes | None:
        """Decode a whole chunk, with what lies beyond the dataset's edge.

        Parameters
        ----------
        stored : bytes
            As in the file.
        filter_mask : int
            Filters that were skipped, one bit each.

        Returns
        -------
        Bytes or None
            In C order, of the chunk's shape; None if it cannot be decoded.
        """
        origin = (0,) * len(self.chunk_shape)
        try:
            # Skipped filters are taken out instead of named in the call: HDF5 2.0 forgets the mask
            # of a chunk that it has just written.
            properties = rebuild_pipeline(self._properties, filter_mask)
            with self._dataset(self.chunk_shape, properties) as dataset:
                dataset.write_direct_chunk(origin, stored)
                return read_elements(dataset, self.datatype, origin, self.chunk_shape)
        except HDF5_ERRORS:
            return None

    def fill_value(self) -> Bytes | None:
        """Return the element that stands where nothing was written; None if it cannot be told."""
        rank = len(self.chunk_shape)
        try:
            with self._dataset(self.chunk_shape, self._properties) as dataset:
                return read_elements(dataset, self.datatype, (0,) * rank, (1,) * rank)
        except HDF5_ERRORS:
            return None

    def has_usual_padding(self, stored: bytes, count: tuple[int, ...], filter_mask: int) -> bool:
        """Tell whether a stored edge chunk holds the fill value beyond the dataset's end.

        Parameters
        ----------
        stored : bytes
            As in the file.
        count, filter_mask
            As for `encode`.

        Returns
        -------
        bool
            False too if the chunk cannot be decoded as a whole.
        """
        whole, fill = self.decode(stored, filter_mask), self.fill_value()
        if whole is None or fill is None:
            return False
        elements = whole.reshape(*self.chunk_shape, len(fill))
        outside = np.ones(self.chunk_shape, dtype=bool)
        outside[tuple(slice(n) for n in count)] = False
        return bool((elements[outside] == fill).all())

    def fingerprint(self) -> str | None:
        """Encode a fixed test buffer: another fingerprint elsewhere is another compressor.

        Returns
        -------
        str or None
            BLAKE3, hexadecimal; None if this pipeline cannot encode here.
        """
        item_bytes = self.datatype.get_size()
        n_items = max(1, _TEST_BYTES // item_bytes)
        properties = rebuild_pipeline(self._properties).copy()
        properties.set_chunk((n_items,))
        try:
            with self._dataset((n_items,), properties) as dataset:
                values = _test_buffer(n_items * item_bytes)
                dataset.write(h5s.ALL, h5s.ALL, values, mtype=self.datatype)
                dataset.flush()
                mask, stored = dataset.read_direct_chunk((0,))
        except HDF5_ERRORS:
            return None
        return blake3(mask.to_bytes(4, "little") + stored).hexdigest()

    @contextmanager
    def _dataset(self, shape: tuple[int, ...], properties: Any) -> Iterator[Any]:
        """Make a dataset without a name: its space is free again when it is closed."""
        # Unlimited, since chunks may not exceed a dataset that cannot grow.
        space = h5s.create_simple(shape, (h5s.UNLIMITED,) * len(shape))
        with _single_threaded_blosc(self.steps):
            dataset = h5d.create(self._file, None, self.datatype, space, properties)
            try:
                yield dataset
            finally:
                dataset.close()


def rebuild_pipeline(properties: Any, filter_mask: int = 0) -> Any:
    """Copy creation properties so that a new dataset gets the same pipeline, less some filters.

    Parameters
    ----------
    properties : h5py.h5p.PropDCID
        Of an existing dataset; left as they are.
    filter_mask : int
        Bit i takes out the i-th filter.

    Returns
    -------
    h5py.h5p.PropDCID
    """
    steps = read_steps(properties)
    if filter_mask == 0 and not any(step.code in _VALUES_PUT_IN_FRONT for step in steps):
        return properties
    copy = properties.copy()
    for step in steps:
        copy.remove_filter(step.code)
    for index, step in enumerate(steps):
        if not filter_mask >> index & 1:
            asked = step.values[_VALUES_PUT_IN_FRONT.get(step.code, 0) :]
            copy.set_filter(step.code, step.flags, asked)
    return copy


def _memory_file() -> Any:
    """Make an HDF5 file in memory; nothing of its name ever exists on a disk."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(1 << 20, False)
    # The newest format: what a dataset of any age needs can be expressed in it.
    access.set_libver_bounds(h5f.LIBVER_LATEST, h5f.LIBVER_LATEST)
    name = f"recallfs-encoder-{os.getpid()}-{next(_file_numbers)}"
    return h5f.create(name.encode(), h5f.ACC_TRUNC, fapl=access)


@contextmanager
def _single_threaded_blosc(steps: tuple[FilterStep, ...]) -> Iterator[None]:
    """Make Blosc, if it is in the pipeline, use one thread."""
    if not any(step.code in _BLOSC_FILTERS for step in steps):
        yield
        return
    before = os.environ.get("BLOSC_NTHREADS")
    os.environ["BLOSC_NTHREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["BLOSC_NTHREADS"]
        else:
            os.environ["BLOSC_NTHREADS"] = before


def _test_buffer(size_bytes: int) -> Bytes:
    """Return the same bytes everywhere: a slow walk, compressible but not trivially so."""
    steps = np.frombuffer(blake3(b"recallfs rsk1 test buffer").digest(size_bytes), dtype=np.uint8)
    walk = np.cumsum(steps % 5, dtype=np.int64)
    return (walk >> 2).astype(np.uint8)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that encode in this process."""
    found = {"hdf5": str(h5py.version.hdf5_version), "h5py": str(h5py.version.version)}
    plugins = sys.modules.get("hdf5plugin")
    return found if plugins is None else {**found, "hdf5plugin": str(plugins.version)}
