"""``rdk1``: what a derivation gave, written beside its files for other computers to find.

A record is JSON like a sidecar's: ``{"format": "rdk1", "digest": <BLAKE3 of the body's canonical
JSON>, "body": {…}}``. The byte-level page is docs/reference/formats/rdk1.md. It says what came of a
derivation key once; that a file can be made again so is said only by a proof.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from blake3 import blake3

from recallfs.catalog.sealed import body_digest, seal, unseal
from recallfs.errors import CatalogError, IntegrityError, RecallError
from recallfs.recipes.outputs import NAME_LENGTH, path_below
from recallfs.values import normalise_path

FORMAT = "rdk1"

_HEX = {length: re.compile(f"[0-9a-f]{{{length}}}") for length in (32, 40, 64)}


@dataclass(frozen=True)
class Output:
    """One file that a derivation gave.

    Parameters
    ----------
    path : str
        Its path in the store that it was made in; where a mirror by path keeps it.
    blocks : str
        BLAKE3 (hex) of the file's ``b3b1`` digests.
    """

    path: str
    size_bytes: int
    sha256: str
    sha1: str
    blocks: str


@dataclass(frozen=True)
class Result:
    """What a derivation gave on some computer.

    Parameters
    ----------
    environment : Mapping
        What the recipe ran in, as `recallfs.environment.capture` describes it.
    seed : int or None
        As of `recallfs.values.Derivation`, and so are the other fields.
    """

    key: str
    recipe: str
    version: str
    source_digest: str
    outputs: Mapping[str, Output]
    seed: int | None
    started_at: str
    threads: int
    seconds: float
    environment: Mapping[str, Any] = field(repr=False)

    @property
    def digests(self) -> dict[str, str]:
        """The sha256 of each output, by its name."""
        return {name: output.sha256 for name, output in self.outputs.items()}


def encode(result: Result) -> bytes:
    """Write a record's bytes; the same result gives the same bytes."""
    body = {
        "key": result.key,
        "recipe": result.recipe,
        "version": result.version,
        "source_digest": result.source_digest,
        "outputs": {name: vars(output) for name, output in sorted(result.outputs.items())},
        "seed": None if result.seed is None else f"{result.seed:032x}",
        "started_at": result.started_at,
        "threads": result.threads,
        "seconds": result.seconds,
        "environment": dict(result.environment),
    }
    return seal(FORMAT, body)


def decode(content: bytes, *, name: str = "record") -> Result:
    """Read a record's bytes.

    Parameters
    ----------
    name : str
        What to call it in an error.

    Raises
    ------
    IntegrityError
        Kind ``damaged-record``: torn, altered, or no such record.
    CatalogError
        Kind ``schema-version``: of a newer format.
    """
    try:
        found, digest, body = unseal(content)
    except ValueError as error:
        raise _damaged(name, "it is torn or no record of a derivation") from error
    if found != FORMAT:
        raise CatalogError(
            f"{name} has the format {str(found)[:20]!r}; this recallfs reads {FORMAT}.",
            kind="schema-version",
        )
    try:
        if body_digest(body) != digest:
            raise _damaged(name, "its digest is another one")
        return _result(body)
    except IntegrityError:
        raise
    except (RecallError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(name, f"a field is missing or malformed ({error})") from error


def blocks_digest(blocks: bytes) -> str:
    """Return the digest under which a record holds a file's ``b3b1`` digests."""
    return blake3(blocks).hexdigest()


def _damaged(name: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"{name} is damaged: {why}.", kind="damaged-record", details={"name": name}
    )


def _result(body: Mapping[str, Any]) -> Result:
    outputs = {}
    for name, item in body["outputs"].items():
        output = Output(**item)
        if not output.path or normalise_path(output.path) != output.path:
            raise ValueError("a path is none in a store")
        below = path_below(name)
        if normalise_path(below) != below or len(name) > NAME_LENGTH:
            raise ValueError("an output has a name that no recipe gives")
        if type(item["size_bytes"]) is not int or output.size_bytes < 0:
            raise ValueError("a size is none")
        for text, length in ((output.sha256, 64), (output.sha1, 40), (output.blocks, 64)):
            _check_hex(text, length)
        outputs[name] = output
    for key in ("key", "source_digest"):
        _check_hex(body[key], 64)
    if body["seed"] is not None:
        _check_hex(body["seed"], 32)
    _check_types(body)
    if not outputs:
        raise ValueError("there is no output")
    seed = None if body["seed"] is None else int(body["seed"], 16)
    return Result(**{**body, "outputs": outputs, "seed": seed})


def _check_types(body: Mapping[str, Any]) -> None:
    for key, kinds in (
        ("recipe", str),
        ("version", str),
        ("started_at", str),
        ("threads", int),
        ("seconds", (int, float)),
        ("environment", dict),
    ):
        if not isinstance(body[key], kinds):
            raise TypeError(f"{key} is of another type")
    datetime.fromisoformat(body["started_at"])
    if body["threads"] < 1 or body["seconds"] < 0:
        raise ValueError("a number is below what it can be")


def _check_hex(text: Any, length: int) -> None:
    if not isinstance(text, str) or not _HEX[length].fullmatch(text):
        raise ValueError(f"{length} hexadecimal digits are needed")
