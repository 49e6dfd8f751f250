"""How two HDF5 files differ: which objects, in what, and values by how much."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5a, h5d, h5o

from recallfs.digest.hdf5 import (
    ContentDigest,
    ObjectDigest,
    attribute_elements,
    content_digest,
    varying_elements,
)
from recallfs.digest.rules import KNOWN, Rules
from recallfs.digest.tally import Tally, Tolerance, ValueDifference
from recallfs.hdf5.access import Bytes, hdf5_errors, open_hdf5, unchanged
from recallfs.hdf5.canonical import CanonicalType, canonical_type
from recallfs.hdf5.elements import ElementReader
from recallfs.hdf5.objects import ObjectNames, readable
from recallfs.values import BLOCK_BYTES

VERDICTS = (
    "identical bytes",
    "same content, other layout",
    "within tolerance",
    "different",
)


@dataclass(frozen=True)
class ObjectDifference:
    """How one path, or one attribute of it, differs.

    Parameters
    ----------
    path : str
        Of the object.
    what : {"only in the first", "only in the second", "kind", "link", "type", "shape", "values"}
    one, other : str
        What each has, as text; empty where it has nothing.
    values : ValueDifference, optional
    attribute : str, optional
        Name of the attribute, if it is one that differs.
    is_tolerated : bool
        Whether all of it lies within the tolerance.
    """

    path: str
    what: str
    one: str = ""
    other: str = ""
    values: ValueDifference | None = None
    attribute: str | None = None
    is_tolerated: bool = False

    def __str__(self) -> str:
        return self.path if self.attribute is None else f"{self.path}@{self.attribute}"


@dataclass(frozen=True)
class Difference:
    """How two files differ.

    Parameters
    ----------
    verdict : str
        One of `VERDICTS`.
    compared : int
        Objects that were looked at, in both files together each path once.
    differing : int
        Of these, those in which anything differs.
    """

    verdict: str
    rules: str
    compared: int
    differing: int
    differences: tuple[ObjectDifference, ...] = field(default_factory=tuple)

    @property
    def is_same(self) -> bool:
        """Whether nothing differs that counts."""
        return self.verdict != "different"

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON-able mapping."""
        return asdict(self)


def compare_files(
    one: Path,
    other: Path,
    rules: Rules = KNOWN["strict"],
    tolerance: Tolerance = Tolerance(),
    *,
    progress: Callable[[int], None] | None = None,
) -> Difference:
    """Compare two HDF5 files.

    Parameters
    ----------
    rules : Rules
        What is left out.
    tolerance : Tolerance
        For numbers, in datasets and attributes.
    progress : callable, optional
        Called with the number of bytes of values read since the last call.

    Raises
    ------
    InvalidInputError, ConflictError
        As `recallfs.digest.hdf5.content_digest`.
    """
    if same_bytes(one, other):
        with open_hdf5(one):
            return Difference(VERDICTS[0], rules.label, 0, 0)
    with unchanged(one, other):
        return _compare_content(one, other, rules, tolerance, progress)


def _compare_content(
    one: Path,
    other: Path,
    rules: Rules,
    tolerance: Tolerance,
    progress: Callable[[int], None] | None,
) -> Difference:
    first = content_digest(one, rules, progress=progress)
    second = content_digest(other, rules, progress=progress)
    if first.digest == second.digest:
        return Difference(VERDICTS[1], rules.label, len(first.objects), 0)
    with (
        open_hdf5(one) as file,
        open_hdf5(other) as other_file,
        hdf5_errors(one),
        ElementReader(file) as reader,
        ElementReader(other_file) as other_reader,
    ):
        sides = (_Side(file, reader), _Side(other_file, other_reader))
        found = tuple(_differences(first, second, sides, tolerance))
    return _told(first, second, found)


def compare_digests(one: ContentDigest, other: ContentDigest) -> Difference:
    """Compare what is kept of a file that is gone with another: which objects differ, not how far.

    Parameters
    ----------
    one, other : ContentDigest
        By the same rules.
    """
    if one.digest == other.digest:
        return Difference(VERDICTS[1], one.rules, len(one.objects), 0)
    return _told(one, other, tuple(_differences(one, other, None, Tolerance())))


def same_bytes(one: Path, other: Path) -> bool:
    """Tell whether two files are the same byte for byte; reads until the first difference."""
    with one.open("rb") as first, other.open("rb") as second:
        if os.fstat(first.fileno()).st_size != os.fstat(second.fileno()).st_size:
            return False
        while block := first.read(BLOCK_BYTES):
            if block != second.read(BLOCK_BYTES):
                return False
    return True


def _told(
    one: ContentDigest, other: ContentDigest, found: tuple[ObjectDifference, ...]
) -> Difference:
    paths = {item.path for item in found}
    is_tolerated = all(item.is_tolerated for item in found)
    return Difference(
        VERDICTS[2] if is_tolerated else VERDICTS[3],
        one.rules,
        len({*one.objects, *other.objects}),
        len(paths),
        found,
    )


class _Side:
    """One of the two files."""

    def __init__(self, file: h5py.File, reader: ElementReader) -> None:
        self.file = file
        self.reader = reader
        self.names = ObjectNames(file)
        self._known = {link.path: link.name for link, _ in self.names.walk()}

    def open(self, path: str) -> Any:
        """Open an object by its path as text."""
        return h5o.open(self.file.id, self._known[path])


def _differences(
    one: ContentDigest,
    other: ContentDigest,
    sides: tuple[_Side, _Side] | None,
    tolerance: Tolerance,
) -> Iterator[ObjectDifference]:
    for path in dict.fromkeys([*one.objects, *other.objects]):
        first, second = one.objects.get(path), other.objects.get(path)
        if first is None or second is None:
            where = "only in the second" if first is None else "only in the first"
            yield ObjectDifference(path, where, _told_object(first), _told_object(second))
        elif first != second:
            yield from _object_differences(path, first, second, sides, tolerance)


def _told_object(found: ObjectDigest | None) -> str:
    if found is None:
        return ""
    if found.kind != "dataset":
        return f"{found.kind} {found.target}".rstrip().replace("\0", ":")
    return f"dataset {found.type} {_told_shape(found.shape)}"


def _told_shape(shape: tuple[int, ...] | None) -> str:
    return "without data" if shape is None else f"({', '.join(map(str, shape))})"


def _object_differences(
    path: str,
    first: ObjectDigest,
    second: ObjectDigest,
    sides: tuple[_Side, _Side] | None,
    tolerance: Tolerance,
) -> Iterator[ObjectDifference]:
    if first.kind != second.kind:
        yield ObjectDifference(path, "kind", _told_object(first), _told_object(second))
        return
    if first.target != second.target:
        yield ObjectDifference(path, "link", _told_object(first), _told_object(second))
    if first.type != second.type:
        yield ObjectDifference(path, "type", first.type or "", second.type or "")
    if first.shape != second.shape:
        yield ObjectDifference(path, "shape", _told_shape(first.shape), _told_shape(second.shape))
    elif first.data != second.data:
        values = None if sides is None else _dataset_values(path, sides, tolerance)
        if values is None or values.count:
            yield ObjectDifference(
                path, "values", values=values, is_tolerated=bool(values and not values.beyond)
            )
    for name in sorted({*first.attributes, *second.attributes}):
        if first.attributes.get(name) == second.attributes.get(name):
            continue
        if name not in first.attributes:
            yield ObjectDifference(path, "only in the second", attribute=name)
        elif name not in second.attributes:
            yield ObjectDifference(path, "only in the first", attribute=name)
        elif sides is None:
            yield ObjectDifference(path, "values", attribute=name)
        else:
            yield from _attribute_differences(path, name, sides, tolerance)


def _dataset_values(
    path: str, sides: tuple[_Side, _Side], tolerance: Tolerance
) -> ValueDifference | None:
    datasets = [side.open(path) for side in sides]
    if any(d.get_create_plist().get_layout() == h5d.VIRTUAL for d in datasets):
        return None
    forms = [canonical_type(dataset.get_type()) for dataset in datasets]
    tally = Tally(tuple(datasets[0].shape), tolerance)
    if all(form.is_fixed for form in forms):
        streams = [
            side.reader.stream(dataset, dataset.get_type(), path)
            for side, dataset in zip(sides, datasets, strict=True)
        ]
        sizes = (forms[0].item_bytes, forms[1].item_bytes)
        for one, other in _aligned(streams[0], streams[1], sizes):
            tally.add(element_values(forms[0], one), element_values(forms[1], other))
    elif not any(form.is_fixed for form in forms):
        batches = zip(
            varying_elements(h5py.Dataset(datasets[0])),
            varying_elements(h5py.Dataset(datasets[1])),
            strict=True,
        )
        for one, other in batches:
            tally.add(
                _encoded(forms[0], one, sides[0].names), _encoded(forms[1], other, sides[1].names)
            )
    else:
        return None
    return tally.result()


def _attribute_differences(
    path: str, name: str, sides: tuple[_Side, _Side], tolerance: Tolerance
) -> Iterator[ObjectDifference]:
    attributes = [_attribute(side, path, name) for side in sides]
    forms = [canonical_type(attribute.get_type()) for attribute in attributes]
    shapes = [attribute.shape for attribute in attributes]
    if forms[0].text != forms[1].text:
        yield ObjectDifference(path, "type", forms[0].text, forms[1].text, attribute=name)
    if shapes[0] != shapes[1]:
        yield ObjectDifference(
            path, "shape", _told_shape(shapes[0]), _told_shape(shapes[1]), attribute=name
        )
        return
    if shapes[0] is None or forms[0].is_fixed != forms[1].is_fixed:
        return
    tally = Tally(tuple(shapes[0]), tolerance)
    values = []
    for side, attribute, form in zip(sides, attributes, forms, strict=True):
        elements = attribute_elements(attribute, form)
        values.append(
            element_values(form, elements)
            if form.is_fixed
            else _encoded(form, elements, side.names)
        )
    tally.add(values[0], values[1])
    result = tally.result()
    if result.count:
        yield ObjectDifference(
            path, "values", values=result, attribute=name, is_tolerated=not result.beyond
        )


def _attribute(side: _Side, path: str, name: str) -> Any:
    found = side.open(path)
    called: list[bytes] = []
    h5a.iterate(found, lambda raw, *_: called.append(raw))
    return h5a.open(found, next(raw for raw in called if readable(raw) == name))


def _aligned(
    one: Iterator[Bytes], other: Iterator[Bytes], sizes: tuple[int, int]
) -> Iterator[tuple[Bytes, Bytes]]:
    """Cut two streams of elements into pieces of equally many elements."""
    held: list[Bytes] = [np.empty(0, np.uint8), np.empty(0, np.uint8)]
    streams = (one, other)
    while True:
        for side in (0, 1):
            if not len(held[side]):
                held[side] = next(streams[side], np.empty(0, np.uint8))
        count = min(len(held[0]) // sizes[0], len(held[1]) // sizes[1])
        if not count:
            return
        yield held[0][: count * sizes[0]], held[1][: count * sizes[1]]
        held = [held[side][count * sizes[side] :] for side in (0, 1)]


def element_values(form: CanonicalType, elements: Bytes) -> npt.NDArray[Any]:
    """Give elements as numbers where they are such, else as bytes."""
    canonical = np.ascontiguousarray(form.bytes_of(elements))
    dtype = _NUMBERS.get(form.text)
    if dtype is not None:
        return canonical.view(dtype)
    item = len(canonical) // max(1, len(elements) // form.item_bytes)
    return canonical.view(np.dtype((np.void, item)))


_NUMBERS = {
    **{
        f"{kind}{bits}": f"<{kind[0]}{bits // 8}"
        for kind in ("int", "uint")
        for bits in (8, 16, 32, 64)
    },
    **{f"float{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}


def _encoded(form: CanonicalType, elements: Any, names: ObjectNames) -> npt.NDArray[Any]:
    found = np.empty(len(elements), dtype=object)
    found[:] = [form.encoded([element], names) for element in elements]
    return found
