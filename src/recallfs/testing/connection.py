"""The connections of a loopback server: requests are read, answers sent, as the faults have it."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from recallfs.testing.messages import PIECE_BYTES, Answer, Refused, Request, parse_range
from recallfs.testing.misbehaviour import Exchange, Fault

if TYPE_CHECKING:
    from recallfs.testing.http import Server

FIRST_WINDOW_BYTES = 10 * 1460
"""What a connection that starts slowly sends before anything is acknowledged (RFC 6928)."""

HTML = b"<!DOCTYPE html>\n<html><body><h1>Please sign in to this network</h1></body></html>\n"


class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Takes connections for a server, each in a thread, and can end them all.

    Parameters
    ----------
    owner : Server
        Has the answers, the faults and the log.
    host : str
        Address to listen on.
    port : int
        0: one that is free.
    """

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
        """Shut down all connections, and wait until those that serve them are done."""
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
    server: Listener

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
            body=_Body(self.rfile, self.headers),
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

    def __init__(self, file: BufferedIOBase, headers: Any) -> None:
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
