"""One slice of one dataset, as it is written on a command line: ``/group/data[0:30000, :4]``."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recallfs.errors import InvalidInputError, RecallError
from recallfs.partial.opening import open_h5
from recallfs.partial.policy import UNVERIFIED
from recallfs.partial.reading import PartialFile, file_of
from recallfs.values import format_size

_NUMBER = r"\s*(-?\d*)\s*"
_PART = re.compile(rf"{_NUMBER}(?:(:){_NUMBER}(?::{_NUMBER})?)?")


@dataclass(frozen=True)
class Taken:
    """Values that were read, and what that took.

    Parameters
    ----------
    values : ndarray or scalar
    requests, fetched_bytes : int
    check : str
        How they were verified, in words.
    """

    url: str
    path: str
    values: Any
    requests: int
    fetched_bytes: int
    check: str

    @property
    def summary(self) -> str:
        """What was read, in a line."""
        array = np.asarray(self.values)
        return (
            f"{self.path}: {array.dtype}, shape {array.shape}; {format_size(self.fetched_bytes)} "
            f"fetched by {self.requests} requests; {self.check}"
        )

    def save(self, place: str) -> None:
        """Write the values as ``.npy``; to standard output if the place is ``-``.

        Raises
        ------
        InvalidInputError
            They are of a type that has no such form.
        """
        array = np.asarray(self.values)
        if array.dtype.hasobject:
            raise InvalidInputError(
                f"{self.path} holds strings or references, which cannot be written as .npy."
            )
        if place == "-":
            np.save(sys.stdout.buffer, array, allow_pickle=False)
            return
        with Path(place).open("wb") as file:
            np.save(file, array, allow_pickle=False)

    def to_json(self, *, with_values: bool) -> dict[str, Any]:
        """Return it as a JSON-able mapping."""
        array = np.asarray(self.values)
        said: dict[str, Any] = {
            "url": self.url,
            "path": self.path,
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "requests": self.requests,
            "fetched_bytes": self.fetched_bytes,
            "check": self.check,
        }
        return {**said, "values": _plain(array.tolist())} if with_values else said


def _plain(value: Any) -> Any:
    """Write as text what HDF5 keeps as bytes; lists are gone through."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def parse_slice(text: str) -> tuple[str, tuple[int | slice, ...]]:
    """Split a dataset's path from what is wanted of it.

    Parameters
    ----------
    text : str
        ``/path``, or ``/path[parts]`` where each part is a number or ``begin:end:step``.

    Raises
    ------
    InvalidInputError
        It is nothing of that kind.
    """
    path, bracket, rest = text.partition("[")
    if bracket and not rest.endswith("]"):
        raise _unreadable(text)
    parts: list[int | slice] = []
    for word in rest[:-1].split(",") if bracket else ():
        match = _PART.fullmatch(word)
        if match is None or word.strip() in ("", "-") or "-" in match.groups():
            raise _unreadable(text)
        begin, is_range, end, step = (item or "" for item in match.groups())
        if not is_range:
            parts.append(int(begin))
        else:
            parts.append(slice(*(int(item) if item else None for item in (begin, end, step))))
    if not path.strip("/") or not path.startswith("/"):
        raise _unreadable(text)
    return path, tuple(parts)


def read_slice(address: str, wanted: str, *, unverified: bool = False) -> Taken:
    """Read a slice of a dataset, fetching no more of the file than it takes, if that can be.

    Parameters
    ----------
    address : str
        URL or path.
    wanted : str
        As of `parse_slice`.
    unverified : bool
        Whether nothing but an ETag needs to tie the bytes to the file.

    Raises
    ------
    InvalidInputError
        There is no such dataset, or no such slice of it.
    RecallError
        As `recallfs.partial.opening.open_h5`.
    """
    import h5py

    path, parts = parse_slice(wanted)
    try:
        opened = open_h5(address, UNVERIFIED if unverified else True)
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"there is no file {address}, here or on record.", kind="unknown-entry"
        ) from error
    except RecallError:
        raise
    except OSError as error:
        raise InvalidInputError(
            f"{address} cannot be opened as an HDF5 file: {error}", kind="not-hdf5"
        ) from error
    with opened as file:
        found = file.get(path)
        if not isinstance(found, h5py.Dataset):
            raise InvalidInputError(f"{address} has no dataset {path}.", kind="invalid-input")
        try:
            values = found[parts]
        except (IndexError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"{path} of shape {found.shape} has no slice {wanted.removeprefix(path)}: {error}."
            ) from error
        partly: PartialFile | None = file_of(file)
        if partly is None:
            return Taken(address, path, values, 0, 0, "the whole file is here")
        ranges = partly.ranges
        return Taken(address, path, values, ranges.requests, ranges.fetched_bytes, partly.check)


def _unreadable(text: str) -> InvalidInputError:
    return InvalidInputError(
        f"{text!r} is no slice of a dataset; write it like '/acquisition/e/data[0:30000, 3]'."
    )
