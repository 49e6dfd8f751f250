"""JSON that carries its own digest: ``{"format": …, "digest": …, "body": {…}}``.

The digest is the BLAKE3 of the body's canonical JSON (`recallfs.values.canonical_json`).
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from blake3 import blake3

from recallfs.values import canonical_json


class Sealed(NamedTuple):
    """What such a document says; nothing of it is checked."""

    format: Any
    digest: Any
    body: Any


def seal(name: str, body: Any) -> bytes:
    """Write a body of the format `name` as a document; the same body gives the same bytes."""
    document = {"format": name, "digest": body_digest(body), "body": body}
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def unseal(content: bytes) -> Sealed:
    """Take a document apart; ValueError if it is torn or none."""
    try:
        document = json.loads(content)
        return Sealed(document["format"], document["digest"], document["body"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no sealed document: {error!r}") from error


def body_digest(body: Any) -> str:
    """Return the digest that a document with this body carries.

    Raises
    ------
    InvalidInputError
        The body is not JSON.
    """
    return blake3(canonical_json(body)).hexdigest()
