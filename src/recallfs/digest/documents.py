"""JSON files: by their value, with keys left out that differ each time."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from recallfs.errors import InvalidInputError
from recallfs.values import canonical_json

NAMES = (".json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")
"""How the names of JSON files end."""

_MOST_BYTES = 256 * 1024 * 1024


def read_document(path: Path, ignored: Collection[str] = ()) -> tuple[Any, bytes] | None:
    """Read a JSON file.

    Parameters
    ----------
    ignored : collection of str
        Keys that are left out at any depth.

    Returns
    -------
    value, canonical : Any, bytes
        Its value, and canonical JSON of that. Numbers that JSON has not, such as NaN, are objects
        with a NUL character as their key.
    None
        It is not JSON: not UTF-8, a key twice in one object, or above 256 MiB.
    """
    if path.stat().st_size > _MOST_BYTES:
        return None
    try:
        value = json.loads(
            path.read_bytes().decode("utf-8"),
            parse_constant=_odd_number,
            parse_float=_number,
            object_pairs_hook=lambda pairs: _mapping(pairs, ignored),
        )
        return value, canonical_json(value)
    except (ValueError, RecursionError, InvalidInputError):
        return None


def _number(text: str) -> Any:
    value = float(text)
    return value if math.isfinite(value) else _odd_number(text)


def _odd_number(text: str) -> dict[str, str]:
    return {"\0": text}


def _mapping(pairs: list[tuple[str, Any]], ignored: Collection[str]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return {key: value for key, value in found.items() if key not in ignored}
