"""Laying data anew: a file with the original's frame and values, whose chunks lie elsewhere.

Where chunks cannot be encoded to the bytes that they were, or values are only near those of the
original, HDF5 itself puts them into what the skeleton retains. Objects, their ids, attributes and
references stay as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from h5py import h5d, h5s

from recallfs.errors import IntegrityError
from recallfs.hdf5.access import hdf5_errors, open_hdf5, read_elements
from recallfs.hdf5.encoders import ChunkEncoder
from recallfs.skeleton.format import Skeleton


@dataclass(frozen=True)
class Spare:
    """A piece that could not be put back as it was stored.

    Parameters
    ----------
    dataset : int
        Number of its dataset in the skeleton.
    start, count : tuple of int
        Its place, in elements.
    offset : int
        Where it lay in the file.
    """

    dataset: int
    start: tuple[int, ...]
    count: tuple[int, ...]
    offset: int


def lay_anew(skeleton: Skeleton, recomputed: Path, target: Path, spares: list[Spare]) -> None:
    """Write the pieces that a graft left out, through HDF5.

    Parameters
    ----------
    recomputed : Path
        Where their values are.
    target : Path
        As the graft left it; changed in place. Its content is to be checked afterwards.
    spares : list of Spare
        Pieces that no longer belong to the dataset, since it was written over later, are left
        out: nobody can read them.

    Raises
    ------
    IntegrityError
        The compressor that a dataset needs is not here.
    InvalidInputError
        Kind ``not-hdf5``.
    """
    by_dataset: dict[int, list[Spare]] = {}
    for spare in spares:
        by_dataset.setdefault(spare.dataset, []).append(spare)
    with (
        open_hdf5(recomputed) as donor,
        hdf5_errors(target),
        h5py.File(target, "r+") as file,
    ):
        shifts = {0, int(file.userblock_size)}
        for number, pieces in by_dataset.items():
            path = skeleton.datasets[number].path.encode()
            dataset, source = h5d.open(file.id, path), h5d.open(donor.id, path)
            if dataset.get_create_plist().get_layout() == h5d.CHUNKED:
                _lay_chunks(dataset, source, pieces, shifts)
            else:
                _lay_values(dataset, source, pieces)


def _lay_chunks(dataset: Any, source: Any, pieces: list[Spare], shifts: set[int]) -> None:
    with ChunkEncoder(dataset) as encoder:
        for piece in pieces:
            # Some versions of HDF5 count from behind the user block.
            lies_at = dataset.get_chunk_info_by_coord(piece.start).byte_offset
            if lies_at is None or piece.offset - lies_at not in shifts:
                continue
            values = read_elements(source, dataset.get_type(), piece.start, piece.count)
            encoded = encoder.encode(values, piece.count)
            if encoded is None:
                names = "+".join(step.name for step in encoder.steps)
                raise IntegrityError(f"{names} cannot compress here; install its HDF5 plug-in.")
            dataset.write_direct_chunk(piece.start, encoded)


def _lay_values(dataset: Any, source: Any, pieces: list[Spare]) -> None:
    for piece in pieces:
        values = read_elements(source, dataset.get_type(), piece.start, piece.count)
        space = dataset.get_space()
        space.select_hyperslab(piece.start, piece.count)
        dataset.write(h5s.create_simple(piece.count), space, values, mtype=dataset.get_type())
