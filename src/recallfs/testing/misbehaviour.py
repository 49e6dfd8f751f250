"""What a loopback server does wrong on purpose, and what it notes of each request."""

from __future__ import annotations

import dataclasses
import fnmatch
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What a server does wrong, to which requests and how often.

    Several faults may meet in one request; where they contradict each other, the one that was
    added first counts.

    Parameters
    ----------
    where : str, optional
        Pattern of the path (``*`` matches slashes, too); the query does not count.
    method : str, optional
        Only requests of this method.
    skip : int, optional
        So many matching requests pass unharmed first.
    times : int, optional
        So many requests are harmed, and then no more. Default: all.
    after_s : float, optional
        Seconds since `Server.fail` before the fault begins.
    delay_s : float, optional
        Seconds of added latency before the answer.
    stall : bool, optional
        Never answer, and keep the connection open.
    stall_at, reset_at, cut_at : int, optional
        After so many bytes of the body: send nothing more and keep the connection open; reset the
        connection; close it as if all had been sent.
    flip_at : tuple of int, optional
        Offsets in the file whose bytes are inverted. Only a request that is sent one of them
        counts for `skip` and `times`; such a fault does nothing else.
    status : int, optional
        Answer this status instead, with a short text.
    retry_after : str, optional
        ``Retry-After`` of that answer: seconds, or an HTTP date.
    html : bool, optional
        Answer 200 with a page of HTML, as a login wall does.
    redirect_to : str, optional
        Redirect there (302). ``"."`` redirects to the same URL: a loop.
    ignore_range : bool, optional
        Answer 200 with the whole file where a range was asked for.
    etag : str, optional
        ETag of the answer, instead of the right one.
    content_length : int, optional
        ``Content-Length`` of the answer, instead of the right one; the body stays as it is.
    content_range : str, optional
        ``Content-Range`` of a 206, instead of the right one.
    bytes_per_second : int, optional
        Rate of the body.
    window_s : float, optional
        A round trip of a connection that starts slowly: a window of bytes goes out in each, twice
        as many as in the one before, until that is as fast as `bytes_per_second`. Default: none.
    edit : mapping, optional
        Fields of a JSON answer that are replaced: a size that lies, another URL.
    """

    where: str = "*"
    method: str = ""
    skip: int = 0
    times: int | None = None
    after_s: float = 0.0
    delay_s: float = 0.0
    stall: bool = False
    stall_at: int | None = None
    reset_at: int | None = None
    cut_at: int | None = None
    flip_at: tuple[int, ...] = ()
    status: int = 0
    retry_after: str = ""
    html: bool = False
    redirect_to: str = ""
    ignore_range: bool = False
    etag: str = ""
    content_length: int | None = None
    content_range: str = ""
    bytes_per_second: int = 0
    window_s: float = 0.0
    edit: Mapping[str, Any] = field(default_factory=dict)


_NO_FAULT = Fault()


@dataclass
class Exchange:
    """One request as a server saw it.

    Parameters
    ----------
    method, path, query : str
        As asked for; the path is decoded, the query is not.
    range : str
        The ``Range`` header, or nothing.
    authorization : bool
        Whether an ``Authorization`` header came along.
    connection : int
        Number of the connection: requests over one kept-alive connection share it.
    began_s : float
        ``time.monotonic()`` when the request had come in, seconds.
    status : int
        Status that was answered; 0 as long as there is no answer.
    sent_bytes : int
        Bytes of the body that were handed to the system.
    """

    method: str
    path: str
    query: str = field(repr=False)  # where signatures are
    range: str
    authorization: bool
    connection: int
    began_s: float
    status: int = 0
    sent_bytes: int = 0


class Faults:
    """The faults of one server; safe to use from several threads."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Add a fault behind those that are there."""
        with self._lock:
            self._armed.append(_Armed(fault))

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._armed.clear()

    def take(self, exchange: Exchange, sent: range | None) -> Fault:
        """Faults of a request as one, counted down.

        Parameters
        ----------
        exchange : Exchange
            The request.
        sent : range or None
            Offsets in the file that will be sent; None before that is known. Faults that flip
            bytes are taken with it, all others without.
        """
        with self._lock:
            taken = [armed.fault for armed in self._armed if armed.take(exchange, sent)]
        merged: dict[str, Any] = {}
        for each in dataclasses.fields(Fault):
            harmless = getattr(_NO_FAULT, each.name)
            for fault in taken:
                if (value := getattr(fault, each.name)) != harmless:
                    merged.setdefault(each.name, value)
        merged["flip_at"] = tuple(offset for fault in taken for offset in fault.flip_at)
        return Fault(**merged)


class _Armed:
    """A fault with its counters."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._since_s = time.monotonic()
        self._skip = fault.skip
        self._left = fault.times

    def take(self, exchange: Exchange, sent: range | None) -> bool:
        fault = self.fault
        if bool(fault.flip_at) != (sent is not None):
            return False
        if sent is not None and not any(offset in sent for offset in fault.flip_at):
            return False
        if not fnmatch.fnmatchcase(exchange.path, fault.where):
            return False
        if fault.method and fault.method != exchange.method:
            return False
        if time.monotonic() - self._since_s < fault.after_s or self._left == 0:
            return False
        if self._skip:
            self._skip -= 1
            return False
        if self._left is not None:
            self._left -= 1
        return True
