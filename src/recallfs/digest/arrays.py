"""NumPy's files: arrays by type, shape and elements, whatever their byte order or layout."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from recallfs.errors import InvalidInputError
from recallfs.hdf5.extents import contiguous_pieces
from recallfs.values import canonical_json

Array = npt.NDArray[Any]

_MAPPED_BYTES = 1024 * 1024
"""A larger file is mapped, not read."""

_DAMAGE = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def open_npy(path: Path) -> Array | None:
    """Open an array; nothing is unpickled.

    Returns
    -------
    ndarray or None
        None if the file is none of NumPy's after all.

    Raises
    ------
    InvalidInputError
        An array of Python objects.
    """
    is_large = path.stat().st_size > _MAPPED_BYTES
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                return None
        return np.asarray(np.load(path, mmap_mode="r" if is_large else None, allow_pickle=False))
    except ValueError as error:
        _refuse_objects(error, str(path))
        return None
    except EOFError:
        return None


def open_npz(path: Path) -> dict[str, Array | bytes] | None:
    """Read an archive of arrays by member; what is no array is bytes.

    Returns
    -------
    dict or None
        In the order of the names' bytes. None if it is no archive after all.

    Raises
    ------
    InvalidInputError
        An array of Python objects.
    """
    found: dict[str, Array | bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(set(archive.namelist()), key=lambda text: text.encode()):
                with archive.open(name) as member:
                    if name.endswith(".npy"):
                        found[name] = np.lib.format.read_array(member, allow_pickle=False)
                    else:
                        found[name] = member.read()
    except _DAMAGE as error:
        _refuse_objects(error, str(path))
        return None
    return found


def _refuse_objects(error: Exception, path: str) -> None:
    if "bject" in str(error):
        raise InvalidInputError(
            f"{path} holds an array of Python objects, which only running code of the file could "
            "read; save it with another dtype.",
            details={"path": path},
        ) from error


def type_text(array: Array) -> str:
    """Spell an array's dtype without its byte order and padding."""
    return canonical_json(np.lib.format.dtype_to_descr(_portable(array.dtype))).decode()


def pieces(array: Array) -> Iterator[Array]:
    """Give the elements in C order, little-endian and packed, some at a time and flat."""
    form = _portable(array.dtype)
    if not array.size or not form.itemsize:
        return
    if not array.ndim:
        array = array.reshape(1)
    starts, counts = contiguous_pieces(array.shape, form.itemsize)
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        part = array[tuple(slice(s, s + n) for s, n in zip(start, count, strict=True))]
        yield np.ascontiguousarray(part.astype(form, copy=False)).reshape(-1)


def array_digest(array: Array) -> str:
    """Digest an array: BLAKE3 of its type, shape and elements."""
    head = canonical_json({"dtype": type_text(array), "shape": list(array.shape)})
    hasher = blake3(head + b"\n")
    for part in pieces(array):
        hasher.update(part.tobytes() if part.dtype.fields else part.view(np.uint8).data)
    return hasher.hexdigest()


def _portable(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.fields is not None:
        fields = dtype.fields
        return np.dtype([(name, _portable(fields[name][0])) for name in dtype.names or ()])
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.dtype((_portable(base), shape))
    return dtype.newbyteorder("<")
