"""What a file is made of, for reading parts of it: units of verification, and where they lie."""

from __future__ import annotations

import bisect
import json
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from recallfs.errors import IntegrityError
from recallfs.values import BLOCK_BYTES, canonical_json

if TYPE_CHECKING:
    from recallfs.skeleton.format import Skeleton

_MAGIC = b"RECALLFS PARTS 1\n"
_ALIGNMENT = 64
_HASHED_BYTES = 32 * 1024 * 1024
"""Of more, only the header is hashed when an index is opened. A number that a disk has changed
makes a unit fail its digest; it never makes wrong bytes right."""

_FEW_UNITS = 200_000

RETAINED_BYTES = 256 * 1024
"""What a skeleton retains is cut into units of at most this many bytes."""

PAGE_BYTES = 64 * 1024
"""Length of the units of a file of which no digests are known."""

CHUNKS, BLOCKS, PAGES = "chunks", "blocks", "pages"
"""Kinds of units: those of a skeleton, ``b3b1`` blocks, and pages that nothing verifies."""


@dataclass(frozen=True)
class BulkDataset:
    """A dataset whose chunks are units.

    Parameters
    ----------
    path : str
        Absolute path in the file.
    shape : tuple of int
    first, n_pieces : int
        Its rows in `Index.piece_units`.
    first_coordinate : int
        Where its starts and counts begin in `Index.coordinates`.
    """

    path: str
    shape: tuple[int, ...]
    first: int
    n_pieces: int
    first_coordinate: int


@dataclass(frozen=True, eq=False)
class Index:
    """The units of a file, which cover each of its bytes exactly once.

    Parameters
    ----------
    size_bytes : int
        Length of the file.
    kind : {"chunks", "blocks", "pages"}
    starts : ndarray of int64, shape (n_units,)
        Where each unit begins, ascending; it ends where the next begins.
    digests : ndarray of uint8, shape (n_units, 32), or None
        BLAKE3 of each.
    is_retained : ndarray of uint8, shape (n_units,)
        Whether a skeleton has a unit's bytes.
    begins : ndarray of uint8, shape (n_units,)
        Whether a unit is bulk data, and no read of data goes on into it from what is before it.
    datasets : sequence of BulkDataset
    piece_units : ndarray of int64, shape (n_pieces,)
        Unit of each chunk, by dataset, in C order of their starts; -1 for one that the file no
        longer uses, as far as can be told.
    coordinates : ndarray of int64
        For each dataset all starts, then all counts, both of shape (n_pieces, rank).
    notes : Mapping
        What else is known: JSON.

    Notes
    -----
    Where it was read from a file, the arrays are mapped, not held: 10 million chunks cost no memory
    but that of the pages that were looked at.
    """

    size_bytes: int
    kind: str
    starts: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint8] | None
    is_retained: npt.NDArray[np.uint8]
    begins: npt.NDArray[np.uint8]
    datasets: Sequence[BulkDataset] = ()
    piece_units: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    coordinates: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts)

    def start_of(self, unit: int) -> int:
        """Return where a unit begins."""
        return int(self.starts[unit])

    def stop_of(self, unit: int) -> int:
        """Return where a unit ends."""
        return int(self.starts[unit + 1]) if unit + 1 < len(self.starts) else self.size_bytes

    def unit_at(self, offset: int) -> int:
        """Return the unit that a byte belongs to."""
        if self._few_starts is not None:
            return bisect.bisect_right(self._few_starts, offset) - 1
        return int(np.searchsorted(self.starts, np.int64(offset), side="right")) - 1

    @cached_property
    def _few_starts(self) -> list[int] | None:
        """`starts` as a list, which is quicker to look into, unless there are very many."""
        return self.starts.tolist() if len(self.starts) <= _FEW_UNITS else None

    @property
    def is_checked(self) -> bool:
        """Whether damage to it, or to any unit, is found out when it is read."""
        return self.digests is not None and self._stored_bytes <= _HASHED_BYTES

    @property
    def _stored_bytes(self) -> int:
        arrays = (self.starts, self.is_retained, self.begins, self.piece_units, self.coordinates)
        digests = 0 if self.digests is None else self.digests.nbytes
        return digests + sum(array.nbytes for array in arrays)

    def is_right(self, unit: int, data: bytes | memoryview) -> bool:
        """Tell whether bytes are a unit's, as far as that can be told."""
        if len(data) != self.stop_of(unit) - self.start_of(unit):
            return False
        if self.digests is None:
            return True
        return bool(blake3(data).digest() == self.digests[unit].tobytes())

    def name_of(self, unit: int) -> str:
        """Name a unit for people: the chunk of which dataset, or which bytes."""
        where = f"bytes {self.start_of(unit)} to {self.stop_of(unit)}"
        rows = np.flatnonzero(self.piece_units == unit)
        for dataset in self.datasets if len(rows) else ():
            row = int(rows[0]) - dataset.first
            if 0 <= row < dataset.n_pieces:
                starts, _ = self.places_of(dataset)
                return f"the chunk {tuple(starts[row].tolist())} of {dataset.path} ({where})"
        return where

    def places_of(
        self, dataset: BulkDataset
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return starts and counts of a dataset's chunks, in elements."""
        rank, count = len(dataset.shape), dataset.n_pieces
        first = dataset.first_coordinate
        both = self.coordinates[first : first + 2 * rank * count].reshape(2, count, rank)
        return both[0], both[1]

    @cached_property
    def by_path(self) -> Mapping[str, BulkDataset]:
        """The datasets by their paths."""
        return {item.path: item for item in self.datasets}

    def units_in_box(
        self, dataset: BulkDataset, low: Sequence[int], high: Sequence[int]
    ) -> npt.NDArray[np.int64]:
        """Return the units that hold elements of a box, in the order of the chunks.

        Parameters
        ----------
        low, high : sequence of int
            First element and the one after the last, on each axis.
        """
        starts, counts = self.places_of(dataset)
        if not len(starts):
            return np.zeros(0, np.int64)
        # In C order the first axis ascends: two bisections leave a slab of rows.
        longest = int(counts[0, 0])
        leading = starts[:, 0]
        begin = int(np.searchsorted(leading, low[0] - longest, side="right"))
        end = int(np.searchsorted(leading, high[0], side="left"))
        rows_low, rows_high = starts[begin:end], starts[begin:end] + counts[begin:end]
        hit = ((rows_low < np.asarray(high)) & (rows_high > np.asarray(low))).all(axis=1)
        units = self.piece_units[np.flatnonzero(hit) + begin + dataset.first]
        return np.asarray(units[units >= 0])

    def write(self, target: IO[bytes]) -> None:
        """Write it to a file, with a digest of its own."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "starts": self.starts,
            "is_retained": self.is_retained,
            "begins": self.begins,
            "piece_units": self.piece_units,
            "coordinates": self.coordinates,
            **({} if self.digests is None else {"digests": self.digests}),
        }
        digest, offset = blake3(), 0
        table = {}
        is_hashed = self._stored_bytes <= _HASHED_BYTES
        for name, array in arrays.items():
            table[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "offset": offset}
            if is_hashed:
                digest.update(_plain(array))
            offset += array.nbytes + -array.nbytes % _ALIGNMENT
        header = canonical_json(
            {
                "size_bytes": self.size_bytes,
                "kind": self.kind,
                "arrays": table,
                "is_hashed": is_hashed,
                "datasets": [asdict(item) for item in self.datasets],
                "notes": dict(self.notes),
            }
        )
        digest.update(header)
        target.write(_MAGIC + digest.digest() + len(header).to_bytes(8, "little") + header)
        target.write(bytes(-target.tell() % _ALIGNMENT))
        for array in arrays.values():
            target.write(_plain(array))
            target.write(bytes(-array.nbytes % _ALIGNMENT))

    @classmethod
    def read(cls, path: Path) -> Index:
        """Map an index that `write` wrote.

        Raises
        ------
        IntegrityError
            Kind ``damaged-record``.
        OSError
        """
        with path.open("rb") as file:
            try:
                content: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                content = b""
        try:
            return cls._decode(content)
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(str(error)) from error

    @classmethod
    def _decode(cls, content: Any) -> Index:
        base = len(_MAGIC) + 40
        if content[: len(_MAGIC)] != _MAGIC or len(content) < base:
            raise _damaged("it is none")
        length = int.from_bytes(content[base - 8 : base], "little")
        encoded = content[base : base + length]
        header = json.loads(encoded)
        base += length + -(base + length) % _ALIGNMENT
        digest, arrays = blake3(), {}
        for name, place in sorted(header["arrays"].items(), key=lambda item: item[1]["offset"]):
            count = math.prod(place["shape"])
            array = np.frombuffer(
                content, dtype=place["dtype"], count=count, offset=base + place["offset"]
            ) if count else np.zeros(0, dtype=place["dtype"])  # fmt: skip
            arrays[name] = array.reshape(place["shape"])
            if header["is_hashed"]:
                digest.update(_plain(array))
        digest.update(encoded)
        if digest.digest() != content[len(_MAGIC) : len(_MAGIC) + 32]:
            raise _damaged("it fails its own digest")
        return cls(
            size_bytes=int(header["size_bytes"]),
            kind=str(header["kind"]),
            digests=arrays.pop("digests", None),
            datasets=tuple(
                BulkDataset(**{**item, "shape": tuple(item["shape"])})
                for item in header["datasets"]
            ),
            notes=header["notes"],
            **arrays,
        )

    def with_notes(self, **notes: Any) -> Index:
        """Return it with more notes."""
        return replace(self, notes={**self.notes, **notes})


def of_skeleton(skeleton: Skeleton) -> Index:
    """Make the index of a file that has a skeleton: a unit for each chunk and retained part."""
    starts, digests = [], []
    for offset, size, begin in _retained(skeleton):
        starts.append(offset)
        digests.append(blake3(skeleton.retained[begin : begin + size]).digest())
    pieces = skeleton.pieces
    n_retained = len(starts)
    unsorted = np.concatenate((np.array(starts, dtype=np.int64), pieces["offset"].astype(np.int64)))
    order = np.argsort(unsorted, kind="stable")
    unit_of = np.empty(len(order), dtype=np.int64)
    unit_of[order] = np.arange(len(order))
    all_digests = np.empty((len(order), 32), dtype=np.uint8)
    all_digests[unit_of[:n_retained]] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    all_digests[unit_of[n_retained:]] = pieces["raw"]
    begins = np.zeros(len(order), dtype=np.uint8)
    datasets, first, coordinate = [], 0, 0
    for number, item in enumerate(skeleton.datasets):
        units = unit_of[n_retained + first : n_retained + first + item.n_pieces]
        # A chunk is read alone; data in one piece may be read from any byte on.
        begins[units] = 1
        if item.chunk_shape is None:
            begins[units] = skeleton.places_of(number)[0].any(axis=1) == 0
        datasets.append(BulkDataset(item.path, item.shape, first, item.n_pieces, coordinate))
        first += item.n_pieces
        coordinate += 2 * len(item.shape) * item.n_pieces
    return Index(
        size_bytes=skeleton.size_bytes,
        kind=CHUNKS,
        starts=unsorted[order],
        digests=all_digests,
        is_retained=(order < n_retained).astype(np.uint8),
        begins=begins,
        datasets=tuple(datasets),
        piece_units=np.where(_is_used(skeleton), unit_of[n_retained:], -1),
        coordinates=skeleton.coordinates.astype(np.int64),
    )


def _is_used(skeleton: Skeleton) -> npt.NDArray[np.bool_]:
    """Tell which pieces a reader will want: of several of one place, the one written last.

    A wrong guess costs a request, nothing else: what HDF5 asks for is what it gets.
    """
    used = np.asarray(skeleton.pieces["skip"] == 0)
    for number, dataset in enumerate(skeleton.datasets):
        starts, _ = skeleton.places_of(number)
        if dataset.chunk_shape is None or not (starts[1:] == starts[:-1]).all(axis=1).any():
            continue
        first = skeleton.first_piece_of(number)
        offsets = skeleton.pieces_of(number)["offset"].astype(np.int64)
        order = np.lexsort((offsets, *starts.T[::-1]))
        ordered = starts[order]
        is_last = np.append((ordered[1:] != ordered[:-1]).any(axis=1), True)
        used[first + order[~is_last]] = False
    return used


def retained_parts(skeleton: Skeleton) -> Iterator[tuple[int, memoryview]]:
    """Iterate over what a skeleton retains: offsets in the file, and bytes."""
    retained = memoryview(skeleton.retained)
    begin = 0
    for offset, size in zip(
        skeleton.extents["offset"].tolist(), skeleton.extents["size"].tolist(), strict=True
    ):
        yield offset, retained[begin : begin + size]
        begin += size


def _retained(skeleton: Skeleton) -> Iterator[tuple[int, int, int]]:
    """Cut what is retained into units: offset, size, and where its bytes begin."""
    begin = 0
    for offset, part in retained_parts(skeleton):
        for at in range(0, len(part), RETAINED_BYTES):
            yield offset + at, min(RETAINED_BYTES, len(part) - at), begin + at
        begin += len(part)


def of_blocks(size_bytes: int, blocks: bytes) -> Index:
    """Make the index of a file by its ``b3b1`` digests."""
    digests = np.frombuffer(blocks, dtype=np.uint8).reshape(-1, 32)
    starts = np.arange(len(digests), dtype=np.int64) * BLOCK_BYTES
    return of_units(size_bytes, BLOCKS, starts, digests)


def of_pages(size_bytes: int) -> Index:
    """Make the index of a file of which no digests are known."""
    return of_units(size_bytes, PAGES, np.arange(0, size_bytes, PAGE_BYTES, dtype=np.int64))


def of_units(
    size_bytes: int,
    kind: str,
    starts: npt.NDArray[np.int64],
    digests: npt.NDArray[np.uint8] | None = None,
) -> Index:
    """Make the index of a file of whose units no more is known; see `Index`."""
    return Index(
        size_bytes=size_bytes,
        kind=kind,
        starts=starts,
        digests=digests,
        is_retained=np.zeros(len(starts), np.uint8),
        begins=np.zeros(len(starts), np.uint8),
    )


def _plain(array: npt.NDArray[Any]) -> memoryview:
    """Return an array's bytes."""
    whole: Any = np.ascontiguousarray(array)
    return memoryview(whole).cast("B") if array.size else memoryview(b"")


def _damaged(why: str) -> IntegrityError:
    return IntegrityError(f"the index of a file in parts is damaged: {why}.", kind="damaged-record")
