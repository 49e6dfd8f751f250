"""An HTTP client that keeps its deadlines and its secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recallfs.transfer.timing import Deadlines


@dataclass(frozen=True)
class Reply:
    """The answer to a small look-up.

    Parameters
    ----------
    status : int
        2xx, or 404 or 410: all others are raised.
    body : JSON value
        None if there was none; with 404 and 410 also if it was no JSON.
    headers : Mapping
        By lower-case name.
    url : str
        Where the answer came from, after redirects. It may hold secrets: show it with
        `recallfs.transfer.addresses.shown` only.
    """

    status: int
    body: Any = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    url: str = field(repr=False)


class Body:
    """The body of an answer, as it arrives; a context manager.

    Attributes
    ----------
    status : int
    headers : Mapping
        By lower-case name.
    url : str
        Where it comes from, after redirects. It may hold secrets.
    """

    status: int
    headers: Mapping[str, str]
    url: str

    def readinto(self, buffer: memoryview) -> int:
        """Wait for bytes, at most as many as `buffer` holds; 0 at the end."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the connection back, if the body was read to its end; else drop it."""
        raise NotImplementedError


class Client:
    """HTTP with pooled connections, for any number of threads; usable after a fork.

    Notes
    -----
    Proxies come from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; trusted certificates from
    SSL_CERT_FILE, SSL_CERT_DIR or REQUESTS_CA_BUNDLE. No netrc is read.

    Headers that the caller gives, and a user and password in the URL, are sent to the scheme, host
    and port of that URL only: a redirect to another gets none of them.
    """

    def json(
        self,
        method: str,
        url: str,
        *,
        payload: Any = None,
        headers: Mapping[str, str] | None = None,
        deadlines: Deadlines,
        source: str,
        idempotent: bool | None = None,
    ) -> Reply:
        """Ask a small question and wait for its answer in JSON.

        Parameters
        ----------
        method : str
            ``GET``, ``POST``, ...
        payload : JSON value, optional
            Sent as the request's body.
        headers : Mapping, optional
            May hold secrets (``Authorization``); see the class.
        deadlines : Deadlines
            `Deadlines.answer_s` bounds it all: names, redirects, repetitions, a server that
            trickles.
        source : str
            Who is asked, for messages.
        idempotent : bool, optional
            Whether it may be asked again after a failure; by default if it is no POST or PATCH.

        Raises
        ------
        AccessError
            401 and 403.
        SourceTimeoutError
            No answer within `answer_s`.
        SourceRateLimitError
            429, or 503 with Retry-After; ``details['retry_after_s']`` is a number or None.
        SourceError
            Everything else: DNS, refused, TLS, 5xx, 4xx (``details['status']``), HTML, a redirect
            loop, a body above 32 MB.
        """
        raise NotImplementedError

    def open(
        self,
        url: str,
        *,
        start: int = 0,
        stop: int | None = None,
        headers: Mapping[str, str] | None = None,
        deadlines: Deadlines,
        source: str,
    ) -> Body:
        """GET bytes `start` to `stop` (not included) of a URL; it is asked once.

        Without either, no Range is asked for. 200, 206, 404, 410 and 416 are returned; the caller
        must compare Content-Range with what it asked for.

        Raises
        ------
        AccessError, SourceTimeoutError, SourceRateLimitError, SourceError
            As `json`.
        """
        raise NotImplementedError
