"""Declared inputs: what a recipe reads beside files, such as rows of a database, by digest.

A recipe that reads more than its input files says so: ``declares={"settings": read_settings}``.
Before it runs, the function is asked for what is there now, and its answer is held against what was
there when the file was made.
"""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recallfs.errors import IntegrityError, InvalidInputError, RecallError, RecipeFailedError
from recallfs.recipes.model import Recipe
from recallfs.values import DeclaredInput, canonical_json

_KEPT_BYTES = 200
"""A part of a value that is longer is kept as a digest only."""

_KEPT_ITEMS = 64
_BRIEF_BYTES = 16384
_NAMED = 5


def observe_declared(recipe: Recipe, parameters: Mapping[str, Any]) -> tuple[DeclaredInput, ...]:
    """Read what a recipe declares beside its files, as it is now.

    Parameters
    ----------
    parameters : Mapping of str to JSON value
        As `recallfs.recipes.parameters.validate_parameters` returns them.

    Raises
    ------
    RecipeFailedError
        One of the functions failed, or returned what has no digest.
    """
    found = []
    for name, function in sorted(recipe.declares.items()):
        try:
            value = plain(function(dict(parameters)))
            digest = _digest(value)
        except Exception as error:  # it is the author's code, and may talk to a database
            said = error.message if isinstance(error, RecallError) else str(error).strip()
            line = said.splitlines()[0][:500] if said else ""
            raise RecipeFailedError(
                f"what the recipe {recipe.name!r} declares as {name!r} cannot be read "
                f"({type(error).__name__}: {line}).",
                details={"recipe": recipe.name, "declared": name},
            ) from error
        brief = _brief(value)
        is_small = len(canonical_json(brief)) <= _BRIEF_BYTES
        found.append(DeclaredInput(name, digest, brief if is_small else f"blake3:{digest}"))
    return tuple(found)


def digests_of(declared: Sequence[DeclaredInput]) -> dict[str, str]:
    """Return digests by name, as a derivation's key takes them."""
    return {item.name: item.digest for item in declared}


def check_declared(
    recipe_name: str, expected: Sequence[DeclaredInput], found: Sequence[DeclaredInput]
) -> None:
    """Hold what is there now against what was there when the file was made.

    What the recipe declares only since then is not looked at.

    Raises
    ------
    IntegrityError
        Kind ``input-changed``; names each change.
    """
    now = {item.name: item for item in found}
    changes: list[str] = []
    for item in expected:
        if item.name not in now:
            changes.append(f"{item.name} is no longer declared")
        elif now[item.name].digest != item.digest:
            named = [*_changes(item.name, item.value, now[item.name].value)]
            changes += named or [f"{item.name} changed"]
    if changes:
        more = f"; and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
        raise IntegrityError(
            f"what the recipe {recipe_name!r} reads beside its files is not what it was when the "
            f"file was made: {'; '.join(changes[:_NAMED])}{more}.",
            kind="input-changed",
            details={"recipe": recipe_name, "changes": changes},
        )


def plain(value: Any) -> Any:
    """Turn what databases and NumPy give into JSON, the same for the same content.

    Dates, decimals and UUIDs become text; bytes and arrays their digest; NaN and infinities text.

    Raises
    ------
    InvalidInputError
        If a value is of none of the types that are known here.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID, datetime.timedelta)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _data("bytes", (len(value),), bytes(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=canonical_json)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # of NumPy, which need not be loaded
        is_text = value.dtype.kind in "OSU" or value.dtype.names is not None
        if value.ndim == 0 or is_text or value.size <= _KEPT_ITEMS:
            return plain(value.tolist())
        little = value.astype(value.dtype.newbyteorder("<"))
        return _data(value.dtype.newbyteorder("=").name, value.shape, little.tobytes())
    raise InvalidInputError(
        f"a value of type {type(value).__name__} has no digest; return numbers, text, dates, "
        "bytes, arrays, or lists and dictionaries of them"
    )


def _data(kind: str, shape: Sequence[int], content: bytes) -> dict[str, Any]:
    import blake3

    digest = blake3.blake3(content).hexdigest()
    return {"type": kind, "shape": list(shape), "blake3": digest}


def _digest(value: Any) -> str:
    import blake3

    return blake3.blake3(canonical_json(value)).hexdigest()


def _brief(value: Any) -> Any:
    """Keep what is short, so that a change can be named; digests stand for what is long."""
    if len(canonical_json(value)) <= _KEPT_BYTES:
        return value
    if isinstance(value, dict) and len(value) <= _KEPT_ITEMS:
        return {key: _brief(item) for key, item in value.items()}
    if isinstance(value, list) and len(value) <= _KEPT_ITEMS:
        return [_brief(item) for item in value]
    return f"blake3:{_digest(value)}"


def _changes(place: str, before: Any, now: Any) -> Iterator[str]:
    """Name each place in which two values differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            below = f"{place}.{key}"
            if key not in now:
                yield f"{below} is gone"
            elif key not in before:
                yield f"{below} is new"
            else:
                yield from _changes(below, before[key], now[key])
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _changes(f"{place}[{number}]", one, other)
    elif isinstance(before, list) and isinstance(now, list):
        yield f"{place} had {len(before)} items, has {len(now)}"
    elif canonical_json(before) != canonical_json(now):  # to Python 1, 1.0 and True are one
        long = [str(value).startswith("blake3:") for value in (before, now)]
        yield f"{place} changed" if any(long) else f"{place} was {_shown(before)}, is {_shown(now)}"


def _shown(value: Any) -> str:
    text = canonical_json(value).decode()
    return text if len(text) <= _NAMED * 16 else f"{text[: _NAMED * 16]}…"
