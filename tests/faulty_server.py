"""A tiny HTTP server for tests of transfers: real sockets, and every fault that is asked for."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PIECE = 512 * 1024


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    number: int
    """How many requests for this path came before."""

    @property
    def span(self) -> tuple[int, int | None] | None:
        """Start and stop of the Range, if one was asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return None if match is None else (int(match[1]), int(match[2]) + 1 if match[2] else None)


@dataclass
class Thing:
    """Bytes at a path, and what goes wrong with them."""

    content: bytes | Path
    etag: Callable[[int], str] | None = None
    ignores_range: bool = False
    length_header: bool = True
    claimed_size: int | None = None
    delay_s: float = 0.0
    """Before each answer."""

    bytes_per_s: float | None = None
    """Of each connection."""

    cut_at: Callable[[Asked], int | None] = lambda _: None
    """After how many bytes the connection is reset."""

    short_at: Callable[[Asked], int | None] = lambda _: None
    """After how many bytes the connection ends as if that were all."""

    stall_at: Callable[[Asked], int | None] = lambda _: None
    """After how many bytes nothing comes any more."""

    spoil: Callable[[int, int], list[int]] = lambda _start, _stop: []
    """Offsets between start and stop of bytes to change."""

    sent_bytes: int = 0
    """Of this one: what an earlier one at its path still sends to nobody is not counted."""

    def read(self, start: int, stop: int) -> bytes | bytearray | memoryview:
        """Return bytes as they should be."""
        if isinstance(self.content, bytes):
            return memoryview(self.content)[start:stop]
        with self.content.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    @property
    def size(self) -> int:
        """Return the length in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


Answer = Callable[["Asked"], "tuple[int, dict[str, str], bytes]"]


@dataclass
class Site:
    """What a server serves, and what it saw."""

    things: dict[str, Thing] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    host: str = "127.0.0.1"
    scheme: str = "http"
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/x") -> str:
        """Return the address of a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{path}"

    def count(self, path: str) -> int:
        """Return how many requests there were for a path."""
        return sum(asked.path == path for asked in self.asked)


class _Handler(socketserver.StreamRequestHandler):
    site: Site
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while self.one():
                pass

    def one(self) -> bool:
        line = self.rfile.readline().decode("latin-1").split()
        if len(line) != 3:
            return False
        headers = {}
        while (text := self.rfile.readline().decode("latin-1").strip()) != "":
            name, _, value = text.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", 0)))
        path, _, query = line[1].partition("?")
        with self.site.lock:
            asked = Asked(line[0], path, query, headers, body, self.site.count(path))
            self.site.asked.append(asked)
        if path in self.site.answers:
            status, more, content = self.site.answers[path](asked)
            if status == 0:  # silence, or drops
                if content:
                    self.trickle(content)
                else:
                    self.site.closing.wait(60)
                return False
            if status < 0:
                self.reset()
                return False
            self.head(status, {"Content-Length": str(len(content)), **more})
            self.wfile.write(content)
            return True
        thing = self.site.things.get(path)
        if thing is None:
            self.head(404, {"Content-Length": "0"})
            return True
        return self.serve(thing, asked)

    def trickle(self, content: bytes) -> None:
        for each in content:
            self.wfile.write(bytes([each]))
            if self.site.closing.wait(0.2):
                return

    def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def reset(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()

    def serve(self, thing: Thing, asked: Asked) -> bool:
        if thing.delay_s:
            time.sleep(thing.delay_s)
        size = thing.size if thing.claimed_size is None else thing.claimed_size
        headers: dict[str, str] = {}
        etag = None
        if thing.etag is not None:
            etag = headers["ETag"] = thing.etag(asked.number)
        start, stop, status = 0, size, 200
        changed = asked.headers.get("if-range") not in (None, etag)
        if asked.span is not None and not thing.ignores_range and not changed:
            start, end = asked.span
            if start >= size:
                self.head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
                return True
            stop = size if end is None else min(end, size)
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        if thing.length_header:
            headers["Content-Length"] = str(stop - start)
        else:
            headers["Transfer-Encoding"] = "chunked"
        self.head(status, headers)
        cut, short, stall = thing.cut_at(asked), thing.short_at(asked), thing.stall_at(asked)
        last = min([stop, *(start + at for at in (cut, short, stall) if at is not None)])
        self.send(thing, start, last)
        if last == stop:
            if not thing.length_header:
                self.wfile.write(b"0\r\n\r\n")
            return True
        if cut is not None:
            time.sleep(0.05)  # else the reset overtakes what was sent
            self.reset()
        elif stall is not None:
            self.site.closing.wait(60)
        return False

    def send(self, thing: Thing, start: int, stop: int) -> None:
        """Send bytes, at the speed and with the errors that are asked for."""
        began = time.monotonic()
        while start < stop:
            piece = thing.read(start, min(start + PIECE, stop))
            for at in thing.spoil(start, start + len(piece)):
                piece = bytearray(piece)
                piece[at - start] ^= 0xFF
            if thing.length_header:
                self.wfile.write(piece)
            else:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)))
            start += len(piece)
            with self.site.lock:
                thing.sent_bytes += len(piece)
            if thing.bytes_per_s:
                lag = len(piece) / thing.bytes_per_s
                time.sleep(max(0.0, lag - (time.monotonic() - began)))
                began = time.monotonic()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextlib.contextmanager
def serving(site: Site | None = None, *, tls: Any = None) -> Iterator[Site]:
    """Serve a site from threads of this process."""
    site = site or Site()
    handler = type("Handler", (_Handler,), {"site": site})
    server = (_Server6 if ":" in site.host else _Server)((site.host, 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        site.scheme = "https"
    site.port = server.server_address[1]
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield site
    finally:
        site.closing.set()
        server.shutdown()
        server.server_close()
