"""What a loopback server is asked, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

PIECE_BYTES = 1 << 20
"""How much of a body is handled at once."""


class Body(Protocol):
    """What a client sends, from its start to its end."""

    def read(self, count: int = -1, /) -> bytes:
        """Return the rest, or no more than so many bytes of it; none at its end."""


@dataclass(frozen=True)
class Request:
    """What a server answers; the body can be read once.

    Parameters
    ----------
    method, path : str
        The path is decoded.
    query : mapping of str to str
        Decoded; of repeated names, the last.
    headers : mapping of str to str
        Names in lower case.
    body : Body
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body

    def json(self) -> Any:
        """Body as JSON.

        Raises
        ------
        Refused
            Status 400, if it is none.
        """
        try:
            return json.loads(self.body.read())
        except ValueError:
            raise Refused(Answer.json({"detail": "JSON parse error"}, 400)) from None


@dataclass
class Answer:
    """What a server sends back.

    Parameters
    ----------
    status : int, optional
        HTTP status.
    body : bytes or Path, optional
        A file is sent in ranges where they are asked for.
    content_type : str, optional
        Media type of the body.
    etag : str, optional
        Without quotes.
    headers : dict of str to str, optional
        More headers.
    """

    status: int = 200
    body: bytes | Path = b""
    content_type: str = "text/plain; charset=utf-8"
    etag: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: object, status: int = 200) -> Answer:
        """Answer with JSON."""
        return cls(status, json.dumps(value).encode(), "application/json")

    @classmethod
    def redirect(cls, url: str, status: int = 302) -> Answer:
        """Answer with a redirect."""
        return cls(status, headers={"Location": url})


class Refused(Exception):  # noqa: N818 - an answer, not an error of this program
    """Ends a request with an answer, from wherever it is decided."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def parse_range(header: str, size_bytes: int) -> range | None:
    """Offsets that a ``Range`` header asks for.

    Parameters
    ----------
    header : str
        As it came.
    size_bytes : int
        Size of the file.

    Returns
    -------
    range or None
        None if the header is to be ignored (no byte range, or several); empty if nothing of it
        lies in the file.
    """
    unit, _, spec = header.partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not (first + last).isdigit():
        return None
    if not first:
        return range(max(0, size_bytes - int(last)), size_bytes)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size_bytes, int(last) + 1 if last else size_bytes))
