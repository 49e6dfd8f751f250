"""A loopback HTTP/1.1 server whose faults a test scripts.

What the Kachery and DANDI servers stand on; with `Files` it is a plain file server of its own.
Keep-alive, ``HEAD``, ranges, ETags and ``If-Range`` are as in RFC 9110. Bodies of files go out by
``sendfile``. Each request is kept in `Server.log`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from recallfs.errors import InvalidInputError
from recallfs.testing.misbehaviour import Exchange, Fault, Faults

PIECE_BYTES = 1 << 20
FIRST_WINDOW_BYTES = 10 * 1460
"""What a connection that starts slowly sends before anything is acknowledged (RFC 6928)."""

S = TypeVar("S", bound="Server")
HTML = b"<!DOCTYPE html>\n<html><body><h1>Please sign in to this network</h1></body></html>\n"


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
    body : file
        Ends where the body ends.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: IO[bytes]

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


class Server:
    """A threaded server on a loopback address; a context manager that starts and stops it.

    Parameters
    ----------
    host : str, optional
        ``127.0.0.1`` or ``::1``.
    port : int, optional
        0: one that is free.

    Attributes
    ----------
    log : list of Exchange
        Each request, in the order of arrival.
    connect_s : float
        How long a new connection takes before its first request is looked at, seconds.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        if host not in ("127.0.0.1", "::1"):
            raise InvalidInputError(f"a loopback server cannot listen on {host!r}: use 127.0.0.1.")
        self.log: list[Exchange] = []
        self.connect_s = 0.0
        self.stopping = threading.Event()
        self._host = host
        self._listener = _Listener(self, host, port)
        self._thread: threading.Thread | None = None
        self.faults = Faults()

    @property
    def port(self) -> int:
        """Port that the server listens on."""
        return int(self._listener.server_address[1])

    @property
    def url(self) -> str:
        """URL of the server's root, without a slash at its end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def answer(self, request: Request) -> Answer:
        """Answer a request; may raise `Refused`."""
        raise NotImplementedError

    def now_s(self) -> float:
        """Seconds since the epoch by the server's clock, which its answers are dated by."""
        return time.time()

    def start(self) -> None:
        """Serve from a thread until `stop`."""
        self._thread = threading.Thread(
            target=self._listener.serve_forever, args=(0.05,), name=f"serve {self.url}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End all connections and stop; requests that stall end, too."""
        self.stopping.set()
        if self._thread is not None:
            self._listener.shutdown()
            self._thread.join()
        self._listener.server_close()
        self._listener.end_connections()

    def __enter__(self: S) -> S:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def fail(self, fault: Fault) -> None:
        """Do wrong from now on, until `heal` or until the fault is used up."""
        self.faults.add(fault)

    def heal(self) -> None:
        """Forget all faults."""
        self.faults.clear()


class Files(Server):
    """A plain server of the files below a folder, with strong ETags.

    Parameters
    ----------
    root : Path
        Its files are served as they are when they are asked for.
    host, port : optional
        As of `Server`.
    """

    def __init__(self, root: Path, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host=host, port=port)
        self.root = root.resolve()

    def answer(self, request: Request) -> Answer:
        """Answer GET and HEAD."""
        if request.method not in ("GET", "HEAD"):
            return Answer(405, b"method not allowed\n")
        place = (self.root / request.path.lstrip("/")).resolve()
        if not place.is_relative_to(self.root) or not place.is_file():
            return Answer(404, b"not found\n")
        about = place.stat()
        etag = f"{about.st_ino:x}-{about.st_size:x}-{about.st_mtime_ns:x}"
        return Answer(
            body=place,
            content_type="application/octet-stream",
            etag=etag,
            headers={"Last-Modified": formatdate(about.st_mtime, usegmt=True)},
        )


def write_sparse(path: Path, size_bytes: int, marks: Mapping[int, bytes] | None = None) -> None:
    """Write a file of zeros that takes hardly any room, with other bytes at some offsets.

    Parameters
    ----------
    path : Path
        Written anew.
    size_bytes : int
        Size of the file.
    marks : mapping of int to bytes, optional
        Offset, and what is written there.
    """
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for offset, data in (marks or {}).items():
            file.seek(offset)
            file.write(data)


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


class _Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, owner: Server, host: str, port: int) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.owner = owner
        self.connections: dict[socket.socket, int] = {}
        self.change = threading.Condition()
        self.count = 0
        super().__init__((host, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about clients that left."""

    def end_connections(self) -> None:
        with self.change:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.change.wait_for(lambda: not self.connections, 5)


class _Left(Exception):  # noqa: N818 - nothing went wrong here
    """The connection is of no more use."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "recallfs-loopback"
    sys_version = ""
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        super().setup()
        with self.server.change:
            self.server.count += 1
            self.number = self.server.count
            self.server.connections[self.connection] = self.number
        self.window = FIRST_WINDOW_BYTES
        if self.server.owner.connect_s:
            self._wait(self.server.owner.connect_s)

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            with self.server.change:
                self.server.connections.pop(self.connection, None)
                self.server.change.notify_all()

    def handle(self) -> None:
        with contextlib.suppress(_Left, OSError):
            super().handle()
        self.close_connection = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Write the time as the server's clock has it."""
        return formatdate(
            self.server.owner.now_s() if timestamp is None else timestamp, usegmt=True
        )

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it has there
        """Print nothing: requests are in the server's log."""

    def _serve(self) -> None:
        owner = self.server.owner
        path, _, query = self.path.partition("?")
        exchange = Exchange(
            method=self.command,
            path=urllib.parse.unquote(path),
            query=query,
            range=self.headers.get("Range", ""),
            authorization="Authorization" in self.headers,
            connection=self.number,
            began_s=time.monotonic(),
        )
        owner.log.append(exchange)
        request = Request(
            method=self.command,
            path=exchange.path,
            query=dict(urllib.parse.parse_qsl(query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=_Body(self.rfile, self.headers),  # type: ignore[arg-type]
        )
        fault = owner.faults.take(exchange, None)
        if fault.delay_s:
            self._wait(fault.delay_s)
        if fault.stall:
            self._wait(None)
        answer = _faulty(fault, self.path)
        if answer is None:
            try:
                answer = owner.answer(request)
            except Refused as refused:
                answer = refused.answer
            except (AttributeError, KeyError, TypeError, ValueError):
                answer = Answer(400, b"bad request\n")
        with contextlib.suppress(ValueError):
            while request.body.read(PIECE_BYTES):
                pass
        if fault.edit and isinstance(answer.body, bytes) and answer.body.startswith(b"{"):
            answer.body = json.dumps({**json.loads(answer.body), **fault.edit}).encode()
        if isinstance(answer.body, Path):
            self._send_file(answer, exchange, fault)
        else:
            body = answer.body
            self._head(answer, exchange, len(body), fault)
            self._send(exchange, fault, len(body), lambda at, n: self._write(body[at : at + n]))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815 - as it is called

    def _send_file(self, answer: Answer, exchange: Exchange, fault: Fault) -> None:
        assert isinstance(answer.body, Path)
        owner = self.server.owner
        with answer.body.open("rb") as file:
            size = file.seek(0, 2)
            etag = fault.etag or answer.etag
            answer.headers |= {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
            if (wanted := self.headers.get("If-Match")) and f'"{etag}"' not in wanted:
                answer.status = 412
            if f'"{etag}"' in self.headers.get("If-None-Match", ""):
                answer.status = 304
            if answer.status in (304, 412):
                self._head(answer, exchange, 0, fault)
                return
            asked = parse_range(self.headers.get("Range", ""), size)
            if_range = self.headers.get("If-Range")
            if if_range not in (None, f'"{etag}"', answer.headers.get("Last-Modified")):
                asked = None
            if asked is None or answer.status != 200 or fault.ignore_range:
                asked = range(size)
            elif not asked:
                answer.status = 416
                answer.headers["Content-Range"] = f"bytes */{size}"
            else:
                answer.status = 206
                answer.headers["Content-Range"] = (
                    fault.content_range or f"bytes {asked.start}-{asked.stop - 1}/{size}"
                )
            flips: tuple[int, ...] = ()
            if asked and self.command != "HEAD":
                flips = owner.faults.take(exchange, asked).flip_at
            self._head(answer, exchange, len(asked), fault)
            self._send(
                exchange,
                fault,
                len(asked),
                lambda at, n: self._write_file(file, asked.start + at, n, flips),
            )

    def _head(self, answer: Answer, exchange: Exchange, length: int, fault: Fault) -> None:
        exchange.status = answer.status
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        lie = fault.content_length
        self.send_header("Content-Length", str(length if lie is None else lie))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if lie is not None and lie != length:
            self.close_connection = True
        self.end_headers()

    def _send(
        self, exchange: Exchange, fault: Fault, length: int, write: Callable[[int, int], int]
    ) -> None:
        if self.command == "HEAD" or exchange.status in (204, 304):
            return
        ends = [at for at in (fault.stall_at, fault.reset_at, fault.cut_at) if at is not None]
        stop = min([length, *ends])
        pace = self._pieces(fault)
        at = 0
        while at < stop:
            piece, wait_s = next(pace)
            sent = write(at, min(piece, stop - at))
            at += sent
            exchange.sent_bytes = at
            if wait_s and (at < stop or not fault.window_s):
                self._wait(wait_s * sent / piece)
        if fault.stall_at == stop:
            self._wait(None)
        if fault.reset_at == stop:
            self._reset()
        if stop < length:
            raise _Left

    def _pieces(self, fault: Fault) -> Iterator[tuple[int, float]]:
        """Iterate over how many bytes go out at once, and how long until the next may."""
        rate = fault.bytes_per_second
        while fault.window_s and (not rate or self.window / fault.window_s < rate):
            window, self.window = self.window, 2 * self.window
            yield window, fault.window_s
            if self.window > PIECE_BYTES * 64:
                break
        piece = max(1, min(PIECE_BYTES, rate // 20)) if rate else PIECE_BYTES
        while True:
            yield piece, piece / rate if rate else 0.0

    def _write(self, data: bytes) -> int:
        self.wfile.write(data)
        return len(data)

    def _write_file(self, file: IO[bytes], at: int, count: int, flips: tuple[int, ...]) -> int:
        wrong = [offset for offset in flips if at <= offset < at + count]
        if not wrong:
            return int(self.connection.sendfile(file, at, count))
        file.seek(at)
        data = bytearray(file.read(count))
        for offset in wrong:
            data[offset - at] ^= 0xFF
        return self._write(bytes(data))

    def _wait(self, seconds: float | None) -> None:
        if self.server.owner.stopping.wait(seconds):
            raise _Left

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Closed here, before anything shuts it down in an orderly way.
        self.rfile.close()
        with self.server.change:
            self.server.connections.pop(self.connection, None)
        self.connection.close()
        raise _Left


class _Body:
    """The body of a request, which ends where it was said to end."""

    def __init__(self, file: IO[bytes], headers: Any) -> None:
        self._file = file
        self._left = int(headers.get("Content-Length") or 0)
        self._chunks: Iterator[bytes] | None = None
        if "chunked" in headers.get("Transfer-Encoding", "").lower():
            self._chunks = self._chunked()

    def read(self, count: int = -1) -> bytes:
        if self._chunks is not None:
            if count < 0:
                return b"".join(self._chunks)
            return next(self._chunks, b"")
        data = self._file.read(self._left if count < 0 else min(count, self._left))
        self._left -= len(data)
        return data

    def _chunked(self) -> Iterator[bytes]:
        while size := int(self._file.readline().split(b";")[0], 16):
            yield self._file.read(size)
            self._file.readline()
        while self._file.readline().strip():
            pass


def _faulty(fault: Fault, url: str) -> Answer | None:
    if fault.status:
        wait = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        return Answer(fault.status, f"scripted fault: {fault.status}\n".encode(), headers=wait)
    if fault.html:
        return Answer(body=HTML, content_type="text/html; charset=utf-8")
    if fault.redirect_to:
        return Answer.redirect(url if fault.redirect_to == "." else fault.redirect_to)
    return None
