"""An HTTP client that keeps its deadlines and its secrets."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import urllib3
import urllib3.exceptions

from recallfs.errors import RecallError, SourceError, SourceRateLimitError, SourceTimeoutError
from recallfs.transfer.addresses import credentials, origin, redirected, shown, split
from recallfs.transfer.connections import OutOfTimeError, Pools, abandonable, request
from recallfs.transfer.failures import UNREACHED, mapped, refused
from recallfs.transfer.timing import Deadlines

MAX_REDIRECTS = 5
MAX_ANSWER_BYTES = 32_000_000
"""Largest answer of a look-up."""

BACK_OFF_S = 0.1
"""Wait before the second try of a look-up; it doubles with each."""

_REDIRECTS = (301, 302, 303, 307, 308)
_AGAIN = (500, 502, 503, 504)
_ABSENT = (404, 410)
_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
_PIECE_BYTES = 65536

_FAILURES = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)


def back_off_s(tries: int, base_s: float = BACK_OFF_S, most_s: float = 5.0) -> float:
    """Return how long to wait after so many tries: twice as long each time, and never in step."""
    return float(min(most_s, base_s * 2 ** (tries - 1)) * random.uniform(0.5, 1.0))  # noqa: S311 - no secret


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
    length_bytes : int or None
        How many bytes `readinto` will give; None if the server does not say.

    Notes
    -----
    For one thread.
    """

    def __init__(
        self, response: urllib3.BaseHTTPResponse, *, url: str, source: str, read_s: float
    ) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self.url = url
        self._response = response
        self._source = source
        self._read_s = read_s
        # urllib3 has no way to read into a buffer what one system call gives, no more and no less;
        # what it wraps has. So what came before a reset is not lost, and nothing is copied.
        self._raw: http.client.HTTPResponse = response._fp  # type: ignore[attr-defined]
        self._left = self._raw.length
        self.length_bytes = self._left

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def readinto(self, buffer: memoryview) -> int:
        """Wait for bytes, at most as many as `buffer` holds; 0 at the end.

        Raises
        ------
        SourceTimeoutError
            Silence.
        SourceError
            The connection broke, also if it ended before the announced length.
        """
        failure: RecallError
        try:
            return self._read(buffer)
        except _FAILURES as error:
            failure = mapped(error, url=self.url, source=self._source, read_s=self._read_s)
        raise failure

    def _read(self, buffer: memoryview) -> int:
        raw = self._raw
        if self._left is None:  # chunked, or until the connection ends
            if raw.isclosed():
                return 0
            piece = raw.read1(len(buffer))
            buffer[: len(piece)] = piece
            return len(piece)
        wanted = min(len(buffer), self._left)
        if wanted == 0:
            return 0
        length = int(raw.fp.readinto1(buffer[:wanted]))
        if length == 0:
            raise http.client.IncompleteRead(b"", self._left)
        self._left -= length
        return length

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it."""
        if self._left == 0:
            self._raw.close()
            self._response.release_conn()
        else:
            self._response.close()


class Client:
    """HTTP with pooled connections, for any number of threads; usable after a fork.

    Notes
    -----
    Proxies come from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; trusted certificates from
    SSL_CERT_FILE, SSL_CERT_DIR or REQUESTS_CA_BUNDLE. No netrc is read.

    Headers that the caller gives, and a user and password in the URL, are sent to the scheme, host
    and port of that URL only: a redirect to another gets none of them. Nothing that is asked
    reaches a log, urllib3's own included.

    Parameters
    ----------
    agent : str
        What the client calls itself.
    """

    def __init__(self, agent: str = "recallfs") -> None:
        self._agent = agent
        self._pools = Pools()

    def close(self) -> None:
        """Drop all idle connections; the client can still be used."""
        self._pools.close()

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
        question = _Question(
            method=method.upper(),
            url=url,
            body=None if payload is None else json.dumps(payload).encode(),
            own={
                "Accept": "application/json",
                **({} if payload is None else {"Content-Type": "application/json"}),
            },
            secret=dict(headers or {}),
            source=source,
        )
        may_repeat = question.method in _IDEMPOTENT if idempotent is None else idempotent
        end = time.monotonic() + deadlines.answer_s
        given_up = threading.Event()
        try:
            return abandonable(
                lambda: self._ask(question, deadlines, end, may_repeat, given_up),
                deadlines.answer_s,
            )
        except OutOfTimeError:
            given_up.set()
        raise SourceTimeoutError(
            f"{source} did not answer within {round(deadlines.answer_s, 1):g} s ({shown(url)}).",
            details={"source": source, "url": shown(url)},
        )

    def open(
        self,
        url: str,
        *,
        start: int = 0,
        stop: int | None = None,
        headers: Mapping[str, str] | None = None,
        if_range: str | None = None,
        deadlines: Deadlines,
        source: str,
    ) -> Body:
        """GET bytes `start` to `stop` (not included) of a URL; it is asked once.

        Without either, no Range is asked for. 200, 206, 404, 410 and 416 are returned; the caller
        must compare Content-Range with what it asked for.

        Parameters
        ----------
        if_range : str, optional
            A strong ETag: if the object has another one now, it comes whole.

        Raises
        ------
        AccessError, SourceTimeoutError, SourceRateLimitError, SourceError
            As `json`.
        """
        own = {"Accept": "*/*"}
        if start or stop is not None:
            own["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            if if_range is not None:
                own["If-Range"] = if_range
        question = _Question(
            method="GET", url=url, body=None, own=own, secret=dict(headers or {}), source=source
        )
        body = self._follow(question, deadlines.connect_s, deadlines.read_s)
        if body.status in (200, 206, 416, *_ABSENT):
            encoding = body.headers.get("content-encoding", "identity")
            if encoding == "identity":
                return body
            body.close()
            raise SourceError(
                f"{source} sends {shown(url)} encoded ({encoding[:20]}), though it was asked for "
                "the bytes as they are.",
                details={"source": source, "url": shown(url), "is_final": True},
            )
        body.close()
        raise refused(body.status, body.headers, url=body.url, source=source)

    def _ask(
        self,
        question: _Question,
        deadlines: Deadlines,
        end: float,
        may_repeat: bool,
        given_up: threading.Event,
    ) -> Reply:
        """Ask until there is an answer, or no point in asking again."""
        tries = 0
        while True:
            tries += 1
            left_s = end - time.monotonic()
            failure: RecallError
            try:
                body = self._follow(question, min(deadlines.connect_s, left_s), left_s)
                with body:
                    answer = _read_answer(body, question.source, end, given_up)
                if body.status < 300 or body.status in _ABSENT:
                    return answer
                failure = refused(body.status, body.headers, url=body.url, source=question.source)
            except (SourceTimeoutError, SourceRateLimitError):
                raise
            except SourceError as error:
                failure = error
            wait_s = self._wait_s(failure, tries)
            if not may_repeat or wait_s is None or time.monotonic() + wait_s >= end:
                raise failure
            if given_up.wait(wait_s):
                raise failure

    @staticmethod
    def _wait_s(failure: RecallError, tries: int) -> float | None:
        """Return how long to wait before asking again; None if that is of no use."""
        if isinstance(failure, SourceRateLimitError):
            named = failure.details.get("retry_after_s")
            return back_off_s(tries) if named is None else float(named)
        if not isinstance(failure, SourceError) or failure.details.get("stage") == UNREACHED:
            return None
        status = failure.details.get("status")
        if failure.details.get("is_final") or (status is not None and status not in _AGAIN):
            return None
        return back_off_s(tries)

    def _follow(self, question: _Question, connect_s: float, read_s: float) -> Body:
        """Send a request, and again wherever it is redirected to."""
        url, method, body = question.url, question.method, question.body
        secret: Mapping[str, str] = question.secret
        userinfo = credentials(url)
        if userinfo is not None and "authorization" not in {name.lower() for name in secret}:
            secret = {
                **secret,
                "Authorization": f"Basic {b64encode(userinfo.encode()).decode()}",
            }
        seen = [_bare(url)]
        while True:
            answer = self._send(
                method,
                seen[-1],
                {
                    "User-Agent": self._agent,
                    "Accept-Encoding": "identity",
                    **question.own,
                    **secret,
                },
                body,
                connect_s=connect_s,
                read_s=read_s,
                source=question.source,
            )
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            answer.close()
            target = redirected(seen[-1], location)
            if origin(target) != origin(seen[-1]):
                secret = {}
            if _bare(target) in seen or len(seen) > MAX_REDIRECTS:
                loops = _bare(target) in seen
                chain = [shown(each) for each in (*seen, target)]
                raise SourceError(
                    f"{question.source} redirects {'in a circle' if loops else 'too often'}: "
                    f"{' -> '.join(chain)}.",
                    details={
                        "source": question.source, "url": chain[0], "redirects": chain,
                        "is_final": True,
                    },
                )  # fmt: skip
            seen.append(_bare(target))
            if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
                method, body = "GET", None

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        connect_s: float,
        read_s: float,
        source: str,
    ) -> Body:
        failure: RecallError
        try:
            response = request(
                self._pools, method, url,
                headers=headers, body=body, connect_s=connect_s, read_s=read_s,
            )  # fmt: skip
            return Body(response, url=url, source=source, read_s=read_s)
        except RecallError:
            raise
        except _FAILURES as error:
            failure = mapped(error, url=url, source=source, read_s=read_s)
        # Not from inside the handler: the exception's own chain would hold the whole URL.
        raise failure


@dataclass(frozen=True)
class _Question:
    method: str
    url: str = field(repr=False)
    body: bytes | None = field(repr=False)
    own: Mapping[str, str]
    secret: Mapping[str, str] = field(repr=False)
    source: str


def _bare(url: str) -> str:
    """Return a URL as it is asked for: without user, password and fragment."""
    parts = split(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def _read_answer(body: Body, source: str, end: float, given_up: threading.Event) -> Reply:
    """Read a small body whole and take it for JSON."""
    content = bytearray()
    buffer = memoryview(bytearray(_PIECE_BYTES))
    details = {"source": source, "url": shown(body.url), "is_final": True}
    while length := body.readinto(buffer):
        content += buffer[:length]
        if len(content) > MAX_ANSWER_BYTES:
            raise SourceError(
                f"{source} answered with more than {MAX_ANSWER_BYTES // 10**6} MB from "
                f"{shown(body.url)}; that is no answer to a look-up.",
                details=details,
            )
        if given_up.is_set() or time.monotonic() > end:
            raise SourceTimeoutError(f"{source} answered too slowly ({shown(body.url)}).")
    value: Any = None
    is_json = True
    if content:
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            is_json = False
    if not is_json and body.status < 300:
        what = "a web page" if content.lstrip()[:1] == b"<" else "something that is no JSON"
        raise SourceError(
            f"{source} answered with {what} instead of JSON ({shown(body.url)}); is the address "
            "right, and is no login page or proxy in between?",
            details=details,
        )
    return Reply(body.status, value, body.headers, body.url)
