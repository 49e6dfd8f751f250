"""Opening HDF5 files read-only, and reading elements as the bytes that the file's type has."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5s, h5z

from recallfs.errors import AccessError, ConflictError, InvalidInputError, RecallError
from recallfs.values import Identity

Bytes = npt.NDArray[np.uint8]
"""A flat buffer, shape (n_bytes,)."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What h5py raises when HDF5 reports an error, depending on which one."""


def has_signature(path: Path) -> bool:
    """Look for HDF5's signature, which may follow a user block of 512 bytes or more."""
    with path.open("rb") as file:
        offset, size = 0, path.stat().st_size
        while offset < size:
            file.seek(offset)
            if file.read(len(_SIGNATURE)) == _SIGNATURE:
                return True
            offset = 2 * offset or 512
    return False


@contextmanager
def hdf5_errors(path: Path) -> Iterator[None]:
    """Turn what h5py raises on a bad file into errors of recallfs.

    Raises
    ------
    InvalidInputError
        Kind ``not-hdf5``.
    ConflictError
        Kind ``in-use`` if HDF5 finds a writer's mark in it.
    AccessError
        If permission is missing.
    """
    try:
        yield
    except RecallError:
        raise
    except PermissionError as error:
        raise AccessError(f"{path} may not be read: {error}.", details={"path": str(path)}) from (
            error
        )
    except HDF5_ERRORS as error:
        if "already open" in str(error):
            raise ConflictError(
                f"{path} is open for writing, or its last writer was killed: {error}",
                kind="in-use",
                details={"path": str(path)},
            ) from error
        raise InvalidInputError(
            f"{path} is not an HDF5 file, or is damaged: {error}",
            kind="not-hdf5",
            details={"path": str(path)},
        ) from error


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, without file locks.

    Parameters
    ----------
    path : Path
        A regular file.

    Raises
    ------
    InvalidInputError
        Kind ``not-hdf5`` if it is not there, truncated, damaged, or something else.
    ConflictError
        Kind ``in-use`` if HDF5 finds a writer's mark in it.
    AccessError
        If permission is missing.

    Notes
    -----
    Locks are off because they need write permission on some network file systems, and because a
    lock of ours must never keep a writer out.
    """
    if not path.is_file():
        raise InvalidInputError(
            f"{path} is not there, or is not a regular file.",
            kind="not-hdf5",
            details={"path": str(path)},
        )
    with hdf5_errors(path):
        file = _open_unlocked(path)
    try:
        yield file
    finally:
        file.close()


@contextmanager
def unchanged(*paths: Path) -> Iterator[None]:
    """Make sure that nobody wrote to files while the block read them.

    Raises
    ------
    ConflictError
        Kind ``in-use``.
    """
    before = [Identity.from_stat(path.stat()) for path in paths]
    yield
    for path, identity in zip(paths, before, strict=True):
        if not path.exists() or Identity.from_stat(path.stat()) != identity:
            raise ConflictError(
                f"{path} was changed while it was read; try again when nobody writes to it.",
                kind="in-use",
                details={"path": str(path)},
            )


def _open_unlocked(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
    # HDF5 shares one handle among all who have a file open in this process, and they must agree
    # about locks. The other opened it first, so ours takes no lock of its own.
    return h5py.File(path, "r")


def read_elements(dataset: Any, datatype: Any, start: Sequence[int], count: Sequence[int]) -> Bytes:
    """Read a hyperslab as raw bytes of `datatype`.

    Parameters
    ----------
    dataset : h5py.h5d.DatasetID
        Any layout, rank 1 or more.
    datatype : h5py.h5t.TypeID
        The type of the bytes returned. With the dataset's own type nothing is converted, so that
        padding inside compounds and invalid enumeration values come out as they are.
    start, count : sequence of int, length rank
        In elements.

    Returns
    -------
    Bytes
        C order, ``prod(count) * datatype.get_size()`` bytes.
    """
    # Zeros, since a conversion may leave the padding of compounds untouched.
    buffer = np.zeros(math.prod(count) * datatype.get_size(), dtype=np.uint8)
    selection = dataset.get_space()
    selection.select_hyperslab(tuple(start), tuple(count))
    dataset.read(h5s.create_simple(tuple(count)), selection, buffer, mtype=datatype)
    return buffer


def missing_filters(properties: Any) -> list[str]:
    """List the filters of a dataset that this computer cannot run.

    Parameters
    ----------
    properties : h5py.h5p.PropDCID
        The dataset's creation properties.

    Returns
    -------
    list of str
        As ``32001 (blosc)``. If the package hdf5plugin is installed its filters are loaded.
    """
    missing = _unavailable(properties)
    if missing and importlib.util.find_spec("hdf5plugin") is not None:
        importlib.import_module("hdf5plugin")  # registers its filters with HDF5
        missing = _unavailable(properties)
    return missing


def _unavailable(properties: Any) -> list[str]:
    steps = [properties.get_filter(index) for index in range(properties.get_nfilters())]
    return [
        f"{step[0]} ({step[3].decode('utf-8', 'replace')})"
        for step in steps
        if not h5z.filter_avail(step[0])
    ]


def require_filters(properties: Any, *, path: str) -> None:
    """Refuse a dataset whose filters this computer cannot run.

    Raises
    ------
    InvalidInputError
        Naming the filters and the dataset `path`.
    """
    missing = missing_filters(properties)
    if missing:
        raise InvalidInputError(
            f"{path} is compressed with the HDF5 filter {', '.join(missing)}, which is not "
            "available here; install the plug-in (for example the package hdf5plugin).",
            details={"path": path, "filters": missing},
        )
