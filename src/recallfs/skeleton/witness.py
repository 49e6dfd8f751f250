"""The original, at hand while a proof is made: how far values are off, and what would mend them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
from h5py import h5d

from recallfs.digest.difference import element_values
from recallfs.digest.tally import Tally, Tolerance, ValueDifference
from recallfs.hdf5.access import Bytes, hdf5_errors, open_hdf5, read_elements
from recallfs.hdf5.canonical import canonical_type
from recallfs.skeleton.format import SkeletonDataset
from recallfs.skeleton.residual import ResidualWriter


class Witness:
    """Compares recomputed pieces with the original file's, element by element.

    Parameters
    ----------
    original : Path
        Opened when the first piece is compared; only read.
    max_residual : float
        Limit of the residual, as `ResidualWriter` takes it.
    folder : Path
        Private; the residual's frames are written there.

    Notes
    -----
    A context manager; once it is closed the residual is gone. Holds a few pieces.
    """

    def __init__(self, original: Path, max_residual: float, folder: Path) -> None:
        self.residual = ResidualWriter(max_residual, original.stat().st_size, folder)
        self._original = original
        self._opened: Any = None
        self._file: h5py.File | None = None
        self._found: dict[str, ValueDifference] = {}

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.residual.close()
        if self._opened is not None:
            self._opened.__exit__(*exception)
            self._opened = self._file = None

    def compare(
        self,
        dataset: SkeletonDataset,
        recomputed: Bytes,
        *,
        number: int,
        stored_bytes: int,
        start: Sequence[int],
        count: Sequence[int],
    ) -> None:
        """Look at one piece whose values differ.

        Parameters
        ----------
        recomputed : Bytes
            Its elements, as the original's own type has them.
        number : int
            The piece's row in `Skeleton.pieces`; rows come in ascending order.
        stored_bytes : int
            What it takes in the file.
        start, count : sequence of int
            Its place, in elements.
        """
        with hdf5_errors(self._original):
            if self._file is None:
                self._opened = open_hdf5(self._original)
                self._file = self._opened.__enter__()
            found = h5d.open(self._file.id, dataset.path.encode())
            datatype = found.get_type()
            original = read_elements(found, datatype, start, count)
        self.residual.add(
            number, original, recomputed, stored_bytes=stored_bytes, item_bytes=dataset.item_bytes
        )
        form = canonical_type(datatype)
        tally = Tally(tuple(count), Tolerance())
        tally.add(element_values(form, original), element_values(form, recomputed))
        here = tally.result()
        if here.count:
            self._note(dataset, start, here)

    def difference(self, path: str) -> ValueDifference | None:
        """Return how the values of a dataset differ, as far as pieces were compared."""
        return self._found.get(path)

    def _note(self, dataset: SkeletonDataset, start: Sequence[int], here: ValueDifference) -> None:
        examples = tuple((_moved(place, start), a, b) for place, a, b in here.examples)
        here = replace(
            here,
            total=math.prod(dataset.shape),
            first=_moved(here.first, start),
            examples=examples,
        )
        before = self._found.get(dataset.path)
        self._found[dataset.path] = here if before is None else _sum(before, here)


def _moved(place: Sequence[int], start: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(place, start, strict=True))


def _sum(one: ValueDifference, other: ValueDifference) -> ValueDifference:
    """Add up what was found in two pieces of one dataset."""
    earlier = min(one, other, key=lambda item: item.first)
    return replace(
        earlier,
        count=one.count + other.count,
        beyond=one.beyond + other.beyond,
        largest_absolute=_largest(one.largest_absolute, other.largest_absolute),
        largest_relative=_largest(one.largest_relative, other.largest_relative),
    )


def _largest(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)
