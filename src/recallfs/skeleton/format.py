"""The skeleton of an HDF5 file, and its form on disk, ``rsk1``."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recallfs.hdf5.encoders import Encoder, FilterStep
from recallfs.skeleton import container
from recallfs.skeleton.container import damaged, tables_fit
from recallfs.values import canonical_json

MAGIC = b"\x89RSK\r\n\x1a\n"
"""The first bytes of a skeleton; as in PNG, a transfer that mends line ends breaks them."""

VERSION = 1

EXTENT = np.dtype([("offset", "<u8"), ("size", "<u8")])
"""A range of bytes in the original file."""

PIECE = np.dtype(
    [
        ("dataset", "<u4"),
        ("filter_mask", "<u4"),
        ("offset", "<u8"),
        ("size", "<u8"),
        ("skip", "<u8"),
        ("raw", "u1", (32,)),
        ("decoded", "u1", (32,)),
    ]
)
"""A chunk, or a piece of contiguous data: which dataset (its number), the filters that were
skipped, where the stored bytes lie, how many bytes that its elements encode to come before these
(0 but for what is left of a chunk no longer used), and the BLAKE3 of the stored bytes and of the
elements."""

_CUT = "cut-chunks"
"""The feature of which readers of version 1 had not heard yet."""

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class SkeletonDataset:
    """A dataset whose bulk is left out.

    Parameters
    ----------
    path : str
        Absolute path in the file.
    shape : tuple of int
        Rank 1 or more.
    chunk_shape : tuple of int or None
        None if the layout is contiguous.
    item_bytes : int
        Size of one element. The type itself is in the retained bytes.
    n_pieces : int
        How many of its pieces are left out; not always all.
    encoder : int or None
        Number of its filter pipeline in `Skeleton.encoders`; None if it has no filters.
    """

    path: str
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...] | None
    item_bytes: int
    n_pieces: int
    encoder: int | None = None


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Every byte of an HDF5 file that is not bulk data, and where each piece of bulk lay.

    Parameters
    ----------
    size_bytes : int
        Length of the original file.
    sha256 : str
        Of the original file, lower-case hexadecimal.
    extents : ndarray of `EXTENT`, shape (n_extents,)
        What is retained, in ascending order.
    retained : bytes
        The bytes of all extents, one after the other.
    datasets : tuple of SkeletonDataset
        In the order of their pieces.
    pieces : ndarray of `PIECE`, shape (n_pieces,)
        By dataset, then in C order of their starts. Together with `extents` they cover the file
        exactly once.
    coordinates : ndarray of uint64, shape (sum of 2 * rank over pieces,)
        For each dataset all starts, then all counts, both of shape (n_pieces, rank).
    encoders : tuple of Encoder
        The filter pipelines of the datasets, as they worked where the skeleton was made.
    written_with : Mapping of str to str
        Versions of the libraries, for people.
    """

    size_bytes: int
    sha256: str
    extents: npt.NDArray[Any] = field(repr=False)
    retained: bytes = field(repr=False)
    datasets: tuple[SkeletonDataset, ...]
    pieces: npt.NDArray[Any] = field(repr=False)
    coordinates: npt.NDArray[np.uint64] = field(repr=False)
    encoders: tuple[Encoder, ...] = ()
    written_with: Mapping[str, str] = field(default_factory=dict)

    @property
    def retained_bytes(self) -> int:
        """How many bytes of the original are retained, before compression."""
        return len(self.retained)

    @property
    def bulk_bytes(self) -> int:
        """How many bytes of the original are left out."""
        return int(self.pieces["size"].sum())

    @property
    def stored_bytes(self) -> int:
        """Length of `to_bytes`."""
        return len(self.to_bytes())

    def pieces_of(self, number: int) -> npt.NDArray[Any]:
        """Return the rows of `pieces` that belong to the dataset of that number."""
        first = self.first_piece_of(number)
        return self.pieces[first : first + self.datasets[number].n_pieces]

    def first_piece_of(self, number: int) -> int:
        """Return the row in `pieces` at which those of the dataset of that number begin."""
        return int(self._first_pieces[number])

    def places_of(self, number: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return starts and counts of a dataset's pieces, in elements.

        Returns
        -------
        starts, counts : ndarray of int64, shape (n_pieces, rank)
        """
        dataset = self.datasets[number]
        rank, n_pieces = len(dataset.shape), dataset.n_pieces
        first = int(self._first_coordinates[number])
        both = self.coordinates[first : first + 2 * rank * n_pieces].astype(np.int64)
        starts, counts = both.reshape(2, n_pieces, rank)
        return starts, counts

    def to_bytes(self) -> bytes:
        """Encode as an ``rsk1`` record; the same skeleton gives the same bytes here.

        Notes
        -----
        Compressed once and kept, so asking again (as `stored_bytes` does) is free.
        """
        return self._record

    @functools.cached_property
    def _record(self) -> bytes:
        pieces = self.pieces
        digests = np.concatenate((pieces["raw"], pieces["decoded"]), axis=1)
        is_cut = bool(pieces["skip"].any())
        header = {
            "format": "rsk1",
            "requires": [_CUT] if is_cut else [],
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "written_with": dict(self.written_with),
        }
        sections = {
            "datasets": canonical_json([_dataset_to_json(one) for one in self.datasets]),
            "encoders": canonical_json([_encoder_to_json(one) for one in self.encoders]),
            "extents": self.extents.tobytes(),
            "retained": self.retained,
            "piece-filter-masks": pieces["filter_mask"].tobytes(),
            "piece-offsets": pieces["offset"].tobytes(),
            "piece-sizes": pieces["size"].tobytes(),
            "piece-coordinates": self.coordinates.astype("<u8").tobytes(),
            "piece-digests": digests.tobytes(),
            **({"piece-skips": pieces["skip"].tobytes()} if is_cut else {}),
        }
        return container.pack(MAGIC, VERSION, header, sections)

    @classmethod
    def from_bytes(cls, record: bytes) -> Skeleton:
        """Decode an ``rsk1`` record and check that it describes a file completely.

        Raises
        ------
        IntegrityError
            Kind ``damaged-record``.
        SchemaVersionError
            If a newer recallfs wrote it.
        """
        header, sections = container.unpack(MAGIC, VERSION, record, known=frozenset({_CUT}))
        with tables_fit():
            skeleton = _decode(header, sections)
            skeleton.check()
        return skeleton

    def check(self) -> None:
        """Check that extents and pieces cover each byte of the file exactly once.

        Raises
        ------
        IntegrityError
            Kind ``damaged-record``.
        """
        if not _SHA256.fullmatch(self.sha256):
            raise damaged("it holds no sha256")
        if int(self.extents["size"].sum()) != len(self.retained):
            raise damaged("the retained bytes are not as long as their extents")
        if len(self.pieces) != sum(one.n_pieces for one in self.datasets):
            raise damaged("datasets and pieces do not fit together")
        if len(self.coordinates) != sum(2 * len(d.shape) * d.n_pieces for d in self.datasets):
            raise damaged("coordinates and pieces do not fit together")
        offsets = np.concatenate((self.extents["offset"], self.pieces["offset"]))
        sizes = np.concatenate((self.extents["size"], self.pieces["size"]))
        order = np.argsort(offsets, kind="stable")
        ends = np.cumsum(sizes[order])
        covered = int(ends[-1]) if len(ends) else 0
        expected = ends - sizes[order]
        if covered != self.size_bytes or not np.array_equal(offsets[order], expected):
            raise damaged("its extents do not cover the file exactly once")
        for number in range(len(self.datasets)):
            self._check_places(number)

    def _check_places(self, number: int) -> None:
        dataset = self.datasets[number]
        starts, counts = self.places_of(number)
        inside = (starts >= 0) & (counts > 0) & (starts + counts <= np.array(dataset.shape))
        if not inside.all():
            raise damaged(f"a piece of {dataset.path} lies outside of it")
        if dataset.encoder is not None and not 0 <= dataset.encoder < len(self.encoders):
            raise damaged(f"{dataset.path} names an encoder that is not there")
        if dataset.chunk_shape is None:
            stored = self.pieces_of(number)["size"].astype(np.int64)
            if not np.array_equal(stored, counts.prod(axis=1) * dataset.item_bytes):
                raise damaged(f"the pieces of {dataset.path} are not of the size of their elements")

    @functools.cached_property
    def _first_pieces(self) -> npt.NDArray[np.int64]:
        return _first([one.n_pieces for one in self.datasets])

    @functools.cached_property
    def _first_coordinates(self) -> npt.NDArray[np.int64]:
        return _first([2 * len(one.shape) * one.n_pieces for one in self.datasets])


def _first(lengths: list[int]) -> npt.NDArray[np.int64]:
    """Return where each run begins when runs of these lengths follow one another."""
    return np.cumsum([0, *lengths], dtype=np.int64)[:-1]


def _dataset_to_json(dataset: SkeletonDataset) -> dict[str, Any]:
    return {
        "path": dataset.path,
        "shape": list(dataset.shape),
        "chunk_shape": None if dataset.chunk_shape is None else list(dataset.chunk_shape),
        "item_bytes": dataset.item_bytes,
        "n_pieces": dataset.n_pieces,
        "encoder": dataset.encoder,
    }


def _dataset_from_json(data: Mapping[str, Any]) -> SkeletonDataset:
    chunk_shape, encoder = data["chunk_shape"], data["encoder"]
    dataset = SkeletonDataset(
        path=str(data["path"]),
        shape=tuple(map(int, data["shape"])),
        chunk_shape=None if chunk_shape is None else tuple(map(int, chunk_shape)),
        item_bytes=int(data["item_bytes"]),
        n_pieces=int(data["n_pieces"]),
        encoder=None if encoder is None else int(encoder),
    )
    rank = len(dataset.shape)
    if not rank or dataset.n_pieces < 0 or dataset.item_bytes < 1 or min(dataset.shape) < 0:
        raise ValueError(f"{dataset.path} cannot be a dataset")
    if dataset.chunk_shape is not None and (
        len(dataset.chunk_shape) != rank or math.prod(dataset.chunk_shape) < 1
    ):
        raise ValueError(f"{dataset.path} cannot have such chunks")
    return dataset


def _encoder_to_json(encoder: Encoder) -> dict[str, Any]:
    return {
        "steps": [
            {"code": one.code, "flags": one.flags, "values": list(one.values), "name": one.name}
            for one in encoder.steps
        ],
        "item_bytes": encoder.item_bytes,
        "fingerprint": encoder.fingerprint,
    }


def _encoder_from_json(data: Mapping[str, Any]) -> Encoder:
    fingerprint = data["fingerprint"]
    return Encoder(
        steps=tuple(
            FilterStep(
                int(one["code"]),
                int(one["flags"]),
                tuple(map(int, one["values"])),
                str(one["name"]),
            )
            for one in data["steps"]
        ),
        item_bytes=int(data["item_bytes"]),
        fingerprint=None if fingerprint is None else str(fingerprint),
    )


def _decode(header: Mapping[str, Any], sections: Mapping[str, bytes]) -> Skeleton:
    datasets = tuple(_dataset_from_json(one) for one in json.loads(sections["datasets"]))
    offsets = np.frombuffer(sections["piece-offsets"], dtype="<u8")
    digests = np.frombuffer(sections["piece-digests"], dtype=np.uint8).reshape(-1, 64)
    pieces = np.zeros(len(offsets), dtype=PIECE)
    pieces["dataset"] = np.repeat(np.arange(len(datasets)), [one.n_pieces for one in datasets])
    pieces["filter_mask"] = np.frombuffer(sections["piece-filter-masks"], dtype="<u4")
    pieces["offset"] = offsets
    pieces["size"] = np.frombuffer(sections["piece-sizes"], dtype="<u8")
    if "piece-skips" in sections:
        pieces["skip"] = np.frombuffer(sections["piece-skips"], dtype="<u8")
    pieces["raw"] = digests[:, :32]
    pieces["decoded"] = digests[:, 32:]
    return Skeleton(
        size_bytes=int(header["size_bytes"]),
        sha256=str(header["sha256"]),
        extents=np.frombuffer(sections["extents"], dtype=EXTENT),
        retained=sections["retained"],
        datasets=datasets,
        pieces=pieces,
        coordinates=np.frombuffer(sections["piece-coordinates"], dtype="<u8"),
        encoders=tuple(_encoder_from_json(one) for one in json.loads(sections["encoders"])),
        written_with={str(k): str(v) for k, v in header["written_with"].items()},
    )
