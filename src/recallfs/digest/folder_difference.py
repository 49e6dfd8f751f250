"""How two folders differ: which files, in what, and values by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recallfs.digest.arrays import Array, pieces, type_text
from recallfs.digest.difference import (
    VERDICTS,
    Difference,
    ObjectDifference,
    compare_files,
    same_bytes,
)
from recallfs.digest.folder import file_digest, read_file
from recallfs.digest.listing import list_folder
from recallfs.digest.rules import KNOWN, Rules
from recallfs.digest.tally import Tally, Tolerance
from recallfs.values import BLOCK_BYTES, canonical_json

EXACT = Tolerance()
"""Nothing is tolerated."""

_MISSING = object()


def compare_folders(
    one: Path,
    other: Path,
    rules: Rules = KNOWN["strict"],
    tolerance: Tolerance = EXACT,
    *,
    progress: Callable[[int], None] | None = None,
) -> Difference:
    """Compare two folders file by file.

    Parameters
    ----------
    rules, tolerance, progress
        As of `recallfs.digest.difference.compare_files`.

    Returns
    -------
    Difference
        Its counts are of files. The path of a difference within a file is written
        ``<file>:<HDF5 path, JSON pointer or member>``.

    Raises
    ------
    InvalidInputError, ConflictError
        As `recallfs.digest.folder.folder_digest`.
    """
    first, second = list_folder(one), list_folder(other)
    names = sorted({*first, *second}, key=str.encode)
    found: list[ObjectDifference] = []
    differing, is_identical = 0, True
    for name in names:
        left, right = first.get(name), second.get(name)
        if left is None or right is None:
            where = "only in the second" if left is None else "only in the first"
            differences = [ObjectDifference(name, where, _told_size(left), _told_size(right))]
        elif same_bytes(left, right):
            continue
        else:
            differences = list(_file_differences(name, left, right, rules, tolerance))
            if progress is not None:
                progress(left.stat().st_size)
        is_identical = False
        differing += bool(differences)
        found += differences
    if is_identical:
        verdict = VERDICTS[0]
    elif not found:
        verdict = VERDICTS[1]
    else:
        verdict = VERDICTS[2] if all(item.is_tolerated for item in found) else VERDICTS[3]
    return Difference(verdict, rules.label, len(names), differing, tuple(found))


def _told_size(path: Path | None) -> str:
    return "" if path is None else f"{path.stat().st_size:,} bytes"


def _file_differences(
    name: str, one: Path, other: Path, rules: Rules, tolerance: Tolerance
) -> Iterator[ObjectDifference]:
    """Compare two files whose bytes differ."""
    (kind, left), (other_kind, right) = read_file(one, rules), read_file(other, rules)
    if kind != other_kind:
        yield ObjectDifference(name, "kind", kind, other_kind)
    elif kind == "hdf5":
        for item in compare_files(one, other, rules, tolerance).differences:
            yield ObjectDifference(**{**vars(item), "path": f"{name}:{item.path}"})
    elif kind == "json":
        if left[1] != right[1]:
            yield from _json_differences(name, "", left[0], right[0])
    elif kind == "npy":
        yield from _array_differences(name, left, right, tolerance)
    elif kind == "npz":
        for member in sorted({*left, *right}, key=str.encode):
            path = f"{name}:{member}"
            yield from _member_differences(path, left.get(member), right.get(member), tolerance)
    elif file_digest(one, rules) != file_digest(other, rules):
        at = _first_byte(one, other)
        yield ObjectDifference(name, "values", f"{_told_size(one)}, first at byte {at:,}",
                               _told_size(other))  # fmt: skip


def _member_differences(
    path: str, one: Array | bytes | None, other: Array | bytes | None, tolerance: Tolerance
) -> Iterator[ObjectDifference]:
    if one is None or other is None:
        yield ObjectDifference(path, "only in the second" if one is None else "only in the first")
    elif isinstance(one, bytes) or isinstance(other, bytes):
        if not (isinstance(one, bytes) and isinstance(other, bytes) and one == other):
            yield ObjectDifference(path, "values")
    else:
        yield from _array_differences(path, one, other, tolerance)


def _array_differences(
    path: str, one: Array, other: Array, tolerance: Tolerance
) -> Iterator[ObjectDifference]:
    types = type_text(one), type_text(other)
    if types[0] != types[1]:
        yield ObjectDifference(path, "type", *types)
    if one.shape != other.shape:
        yield ObjectDifference(path, "shape", str(one.shape), str(other.shape))
        return
    if one.dtype.itemsize != other.dtype.itemsize and "V" in one.dtype.kind + other.dtype.kind:
        return
    tally = Tally(one.shape, tolerance)
    left, right = one.ravel()[:0], other.ravel()[:0]
    streams = pieces(one), pieces(other)
    while True:
        # Of types of different sizes the pieces have different lengths.
        left = left if len(left) else next(streams[0], left)
        right = right if len(right) else next(streams[1], right)
        count = min(len(left), len(right))
        if not count:
            break
        tally.add(_comparable(left[:count]), _comparable(right[:count]))
        left, right = left[count:], right[count:]
    values = tally.result()
    if values.count:
        yield ObjectDifference(path, "values", values=values, is_tolerated=not values.beyond)


def _comparable(values: Array) -> Array:
    """Give elements that are no real numbers as their bytes: NaN in them equals itself."""
    if values.dtype.kind in "iuf" or not values.dtype.itemsize:
        return values
    return values.view(np.dtype((np.void, values.dtype.itemsize)))


def _json_differences(name: str, at: str, one: Any, other: Any) -> Iterator[ObjectDifference]:
    path = f"{name}:{at or '/'}"
    if one is _MISSING:
        yield ObjectDifference(path, "only in the second", "", _told_json(other))
    elif other is _MISSING:
        yield ObjectDifference(path, "only in the first", _told_json(one), "")
    elif isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            below = f"{at}/{key.replace('~', '~0').replace('/', '~1')}"
            values = one.get(key, _MISSING), other.get(key, _MISSING)
            yield from _json_differences(name, below, *values)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, values in enumerate(zip(one, other, strict=True)):
            yield from _json_differences(name, f"{at}/{index}", *values)
    elif canonical_json(one) != canonical_json(other):
        yield ObjectDifference(path, "values", _told_json(one), _told_json(other))


def _told_json(value: Any) -> str:
    text = canonical_json(value).decode()
    return text if len(text) <= 60 else text[:59] + "…"


def _first_byte(one: Path, other: Path) -> int:
    """Return where two files first differ."""
    at = 0
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            left, right = first.read(BLOCK_BYTES), second.read(BLOCK_BYTES)
            if left != right or not left:
                break
            at += len(left)
    count = min(len(left), len(right))
    differs = np.frombuffer(left[:count], np.uint8) != np.frombuffer(right[:count], np.uint8)
    return at + (int(np.argmax(differs)) if differs.any() else count)
