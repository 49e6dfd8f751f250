"""Writing what a skeleton retains to a new file, with holes where the bulk data goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recallfs.atomic import is_full, no_space
from recallfs.errors import ConflictError
from recallfs.skeleton.format import Skeleton


def materialise(skeleton: Skeleton, target: Path) -> None:
    """Write what a skeleton retains to a new sparse file: an HDF5 file without its bulk data.

    Parameters
    ----------
    skeleton : Skeleton
    target : Path
        Must not exist; made with mode 0600. What lies in its holes reads as zeros, so it must
        never be taken for the file.

    Raises
    ------
    ConflictError
        If `target` exists.
    SourceError
        Kind ``no-space``.
    """
    with new_file(target) as descriptor:
        lay_retained(skeleton, descriptor, target)


@contextmanager
def new_file(target: Path) -> Iterator[int]:
    """Make a file that nobody else can open; it is removed again if the block fails."""
    try:
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConflictError(
            f"{target} exists; it was left as it is.", details={"path": str(target)}
        ) from None
    except OSError as error:
        if is_full(error):
            raise no_space(error, target.parent) from error
        raise
    try:
        yield descriptor
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def lay_retained(skeleton: Skeleton, descriptor: int, target: Path) -> None:
    """Write the retained extents to their places; what lies between stays a hole."""
    os.ftruncate(descriptor, skeleton.size_bytes)
    retained = memoryview(skeleton.retained)
    ends = np.cumsum(skeleton.extents["size"]).tolist()
    for (offset, size), end in zip(skeleton.extents.tolist(), ends, strict=True):
        write_at(descriptor, offset, retained[end - size : end], target)


def write_at(descriptor: int, offset: int, data: Any, target: Path) -> None:
    """Write all of a buffer at an offset."""
    rest = memoryview(data).cast("B")
    try:
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            rest = rest[written:]
            offset += written
    except OSError as error:
        if is_full(error):
            raise no_space(error, target.parent) from error
        raise
