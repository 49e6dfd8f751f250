"""How far two arrays of one shape are apart, counted piece by piece."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recallfs.hdf5.objects import readable


@dataclass(frozen=True)
class Tolerance:
    """How far numbers may be apart: ``|a - b| <= absolute + relative * |b|``; NaN equals NaN."""

    absolute: float = 0.0
    relative: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether nothing is tolerated."""
        return self.absolute == 0 and self.relative == 0


@dataclass(frozen=True)
class ValueDifference:
    """How the elements of two arrays of one shape differ.

    Parameters
    ----------
    count, total : int
        Elements that differ, of all.
    beyond : int
        Those that differ by more than is tolerated; all of `count` where there is no distance.
    largest_absolute, largest_relative : float, optional
        Of numbers; NaN against a number, and infinities, count as infinitely far. The relative one
        is by the second array's value.
    first : tuple of int
        Index of the first element that differs.
    examples : tuple of (index, one, other)
        The first few, as text.
    """

    count: int
    total: int
    beyond: int
    largest_absolute: float | None
    largest_relative: float | None
    first: tuple[int, ...]
    examples: tuple[tuple[tuple[int, ...], str, str], ...] = ()


class Tally:
    """Adds up how two arrays differ, piece after piece."""

    def __init__(self, shape: tuple[int, ...], tolerance: Tolerance) -> None:
        self._shape = shape
        self._tolerance = tolerance
        self._seen = self._count = self._beyond = 0
        self._absolute: float | None = None
        self._relative: float | None = None
        self._first: int | None = None
        self._examples: list[tuple[tuple[int, ...], str, str]] = []

    def add(self, one: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
        """Compare the next elements."""
        is_number = one.dtype.kind in "iuf" and other.dtype.kind in "iuf"
        differs = _bits_differ(one, other) if is_number else _differs(one, other)
        where = np.flatnonzero(differs)
        if len(where):
            self._count += len(where)
            if is_number:
                self._measure(one[where], other[where])
            else:
                self._beyond += len(where)
            if self._first is None:
                self._first = self._seen + int(where[0])
            for index in where[: 3 - len(self._examples)]:
                place = self._place(self._seen + int(index))
                self._examples.append((place, _spelt(one[index]), _spelt(other[index])))
        self._seen += len(one)

    def _measure(self, one: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
        with np.errstate(all="ignore"):
            a, b = one.astype(np.longdouble), other.astype(np.longdouble)
            both_nan = np.isnan(a) & np.isnan(b)
            absolute = np.where(both_nan | (a == b), 0, np.abs(a - b))
            absolute = np.where(np.isnan(absolute), np.inf, absolute)
            relative = np.where(absolute == 0, 0, absolute / np.abs(b))
            limit = self._tolerance.absolute + self._tolerance.relative * np.abs(b)
            limit = np.where(np.isnan(limit), 0, limit)
            if self._tolerance.is_exact:
                self._beyond += len(one)
            else:
                self._beyond += int(np.count_nonzero(~(absolute <= limit)))
        self._absolute = max(self._absolute or 0.0, float(absolute.max()))
        self._relative = max(
            self._relative or 0.0, float(np.nan_to_num(relative, nan=np.inf).max())
        )

    def _place(self, index: int) -> tuple[int, ...]:
        return tuple(int(n) for n in np.unravel_index(index, self._shape)) if self._shape else ()

    def result(self) -> ValueDifference:
        """Return the sum."""
        return ValueDifference(
            self._count,
            math.prod(self._shape),
            self._beyond,
            self._absolute,
            self._relative,
            self._place(self._first or 0),
            tuple(self._examples),
        )


def _bits_differ(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Compare numbers by their bits where they are of one type: -0.0 is not 0.0."""
    if one.dtype == other.dtype:
        bits = f"u{one.dtype.itemsize}"
        return np.asarray(one.view(bits) != other.view(bits))
    return np.asarray(one != other)


def _differs(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if one.dtype != other.dtype:
        return np.ones(len(one), dtype=bool)
    return np.asarray(one != other, dtype=bool)


def _spelt(value: Any) -> str:
    if isinstance(value, bytes):
        text = readable(value[8:]) if len(value) >= 8 else repr(value)
        return text if len(text) <= 60 else text[:59] + "…"
    if isinstance(value, np.void):
        return value.tobytes()[:30].hex()
    if isinstance(value, np.floating):
        return repr(value.item()) if value.dtype.itemsize <= 8 else str(value)
    return str(value)
