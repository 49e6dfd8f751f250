"""Making the skeleton of an HDF5 file, in one pass over its bulk data."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5o

from recallfs.errors import AccessError, ConflictError, IntegrityError
from recallfs.hdf5.access import hdf5_errors, open_hdf5, require_filters
from recallfs.hdf5.encoders import Encoder, versions
from recallfs.hdf5.extents import BulkDataset, list_bulk
from recallfs.skeleton.format import EXTENT, PIECE, Skeleton, SkeletonDataset
from recallfs.skeleton.survey import Original, Progress, Survey
from recallfs.values import Identity, format_size

MINIMUM_DATASET_BYTES = 4096
"""A dataset that stores less may stay in the skeleton."""

_SMALL_SHARE = 0.01
"""Which part of a file small datasets may be that are retained though they need not; and above
which part of it space that is no longer used is looked at."""

MAXIMUM_RETAINED_BYTES = 1024**3
"""What is retained is held in memory; above this a file has no skeleton."""


def build_skeleton(
    path: Path,
    *,
    sha256: str,
    size_bytes: int,
    max_retained_bytes: int = MAXIMUM_RETAINED_BYTES,
    minimum_bytes: int = MINIMUM_DATASET_BYTES,
    progress: Progress | None = None,
) -> Skeleton:
    """Make the skeleton of an HDF5 file.

    Parameters
    ----------
    path : Path
        The original. Opened without locks and never written to.
    sha256 : str
        Of the whole file, lower-case hexadecimal; taken as given.
    size_bytes : int
        Of the file when `sha256` was taken.
    max_retained_bytes : int
        Refuse if more must be retained; checked from the chunk index before data is read, and
        again when all pieces were verified.
    minimum_bytes : int
        Datasets that store less are retained, the smallest first, as long as all of these together
        are at most 1% of the file: they cost little, and what is retained need not be computed
        again.
    progress : callable, optional
        Called with increments, in bytes; they add up to `size_bytes`, or to a
        little more where pieces turn out to be unfit.

    Returns
    -------
    Skeleton

    Raises
    ------
    InvalidInputError
        Kind ``not-hdf5`` if the file is not HDF5 or is damaged; kind ``invalid-input`` if a filter
        is not available here.
    ConflictError
        Kind ``skeleton-too-large``.
    IntegrityError
        Kind ``digest-mismatch`` if the file is not of that size, or changed meanwhile.
    AccessError
        If the file may not be read.

    Notes
    -----
    Reads and decodes all bulk data once (edge chunks twice), a chunk at a time; a few chunks are
    held in memory. A piece is left out only if its bytes were found in the file where HDF5 says
    they are, and if it can be decoded; an edge chunk moreover only if HDF5's own padding is in it,
    and a chunk of a filter that is not HDF5's own only if encoding it again gives the same bytes.
    """
    report = progress or (lambda _size: None)
    with open_hdf5(path) as file:
        descriptor = _open(path)
        try:
            identity = Identity.from_stat(os.fstat(descriptor))
            _check_size(path, size_bytes, identity)
            with hdf5_errors(path):
                candidates = _worth_it(list(list_bulk(file)), size_bytes, minimum_bytes)
                _check_filters(file, candidates)
            claimed = sum(one.stored_bytes for one in candidates)
            _check_retained(path, size_bytes - claimed, max_retained_bytes)
            original = Original(path, descriptor, size_bytes, file)
            surveys = _without_overlaps(original.survey(one, report) for one in candidates)
            extents = _complement(surveys, size_bytes)
            if int(extents["size"].sum()) > _SMALL_SHARE * size_bytes:
                surveys = original.with_stale_chunks(surveys, extents)
                extents = _complement(surveys, size_bytes)
                surveys = original.with_stale_ends(surveys, extents)
                extents = _complement(surveys, size_bytes)
            _check_retained(path, int(extents["size"].sum()), max_retained_bytes)
            retained = original.read_retained(extents, report)
            original.check_is(identity)
        finally:
            os.close(descriptor)
    return _assemble(sha256, size_bytes, surveys, extents, retained)


def _worth_it(
    candidates: list[BulkDataset], size_bytes: int, minimum_bytes: int
) -> list[BulkDataset]:
    """Leave out the smallest datasets, as long as they are little of the file in all."""
    room = _SMALL_SHARE * size_bytes
    chosen = set()
    for number, one in sorted(enumerate(candidates), key=lambda item: item[1].stored_bytes):
        room -= one.stored_bytes
        if one.stored_bytes >= minimum_bytes or room < 0:
            chosen.add(number)
    return [one for number, one in enumerate(candidates) if number in chosen]


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except PermissionError as error:
        raise AccessError(f"{path} may not be read: {error}.") from error


def _check_size(path: Path, size_bytes: int, identity: Identity) -> None:
    if identity.size_bytes != size_bytes:
        raise IntegrityError(
            f"{path} has {identity.size_bytes} bytes, but had {size_bytes} when it was digested.",
            details={"path": str(path), "expected": size_bytes, "actual": identity.size_bytes},
        )


def _check_filters(file: h5py.File, candidates: Iterable[BulkDataset]) -> None:
    for one in candidates:
        dataset = h5o.open(file.id, one.path.encode())
        require_filters(dataset.get_create_plist(), path=one.path)


def _check_retained(path: Path, retained_bytes: int, limit_bytes: int) -> None:
    if retained_bytes > limit_bytes:
        raise ConflictError(
            f"{path} has {format_size(retained_bytes)} that are not bulk data; at most "
            f"{format_size(limit_bytes)} may be kept in a skeleton.",
            kind="skeleton-too-large",
            details={"path": str(path), "retained_bytes": retained_bytes, "limit": limit_bytes},
        )


def _without_overlaps(surveys: Iterable[Survey]) -> list[Survey]:
    """Leave out datasets of which a piece shares bytes with another: one of the two is wrong."""
    found = [one for one in surveys if len(one.kept)]
    while found:
        pieces = np.concatenate([one.pieces for one in found])
        owners = np.repeat(np.arange(len(found)), [len(one.kept) for one in found])
        order = np.argsort(pieces["offset"], kind="stable")
        ends = np.maximum.accumulate((pieces["offset"] + pieces["size"])[order])
        clash = pieces["offset"][order][1:] < ends[:-1]
        if not clash.any():
            break
        suspects = {*owners[order][1:][clash].tolist(), *owners[order][:-1][clash].tolist()}
        found = [one for number, one in enumerate(found) if number not in suspects]
    return found


def _complement(surveys: list[Survey], size_bytes: int) -> npt.NDArray[Any]:
    """Return the extents of the file that no piece covers."""
    pieces = np.concatenate([np.zeros(0, dtype=PIECE), *(one.table()[0] for one in surveys)])
    order = np.argsort(pieces["offset"], kind="stable")
    starts = pieces["offset"][order]
    ends = starts + pieces["size"][order]
    gap_starts = np.concatenate((np.zeros(1, dtype=np.uint64), ends))
    gap_ends = np.concatenate((starts, np.array([size_bytes], dtype=np.uint64)))
    gaps = gap_ends > gap_starts
    extents = np.zeros(int(gaps.sum()), dtype=EXTENT)
    extents["offset"] = gap_starts[gaps]
    extents["size"] = (gap_ends - gap_starts)[gaps]
    return extents


def _assemble(
    sha256: str,
    size_bytes: int,
    surveys: list[Survey],
    extents: npt.NDArray[Any],
    retained: bytes,
) -> Skeleton:
    encoders: dict[Encoder, int] = {}
    datasets, coordinates = [], [np.zeros(0, dtype=np.uint64)]
    tables = []
    for number, one in enumerate(surveys):
        pieces, starts, counts = one.table()
        pieces["dataset"] = number
        tables.append(pieces)
        encoder = None
        if one.encoder is not None:
            encoder = encoders.setdefault(one.encoder, len(encoders))
        datasets.append(
            SkeletonDataset(
                path=one.bulk.path,
                shape=one.bulk.shape,
                chunk_shape=one.bulk.chunk_shape,
                item_bytes=one.bulk.item_bytes,
                n_pieces=len(pieces),
                encoder=encoder,
            )
        )
        coordinates += [table.astype(np.uint64).ravel() for table in (starts, counts)]
    skeleton = Skeleton(
        size_bytes=size_bytes,
        sha256=sha256,
        extents=extents,
        retained=retained,
        datasets=tuple(datasets),
        pieces=np.concatenate([np.zeros(0, dtype=PIECE), *tables]),
        coordinates=np.concatenate(coordinates),
        encoders=tuple(encoders),
        written_with=versions(),
    )
    skeleton.check()
    return skeleton
