"""A folder behind HTTP on loopback that counts what it is asked, honours Range and can fall silent."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class HttpFolder:
    """What is served, and what was asked.

    Attributes
    ----------
    requests : list of (method, path, Range or "", Authorization or "")
    stalled : threading.Event
        While it is set, nothing is answered.
    sent : int
        Bytes of bodies.
    """

    url: str
    folder: Path
    requests: list[tuple[str, str, str, str]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    break_after: int | None = None


@contextmanager
def http_folder(folder: Path) -> Iterator[HttpFolder]:
    """Serve a folder until the context ends."""
    folder.mkdir(exist_ok=True)
    stopping = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Print nothing."""

        def do_HEAD(self) -> None:  # noqa: N802 - its name there
            self.answer()

        def do_GET(self) -> None:  # noqa: N802 - its name there
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path).lstrip("/")
            asked = self.headers.get("Range", "")
            with served.lock:
                authorization = self.headers.get("Authorization", "")
                served.requests.append((self.command, path, asked, authorization))
            while served.stalled.is_set() and not stopping.is_set():
                stopping.wait(0.05)
            place = served.folder / path
            if not place.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = place.read_bytes()
            etag = f'"{place.stat().st_mtime_ns:x}-{len(content)}"'
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
            if match and int(match[1]) >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if match:
                first = int(match[1])
                last = min(int(match[2] or len(content) - 1), len(content) - 1)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                content = content[first : last + 1]
            else:
                self.send_response(200)
            self.send_header("ETag", etag)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.send(content)

        def send(self, content: bytes) -> None:
            with served.lock:
                limit, served.break_after = served.break_after, None
                served.sent += min(len(content), limit or len(content))
            try:
                self.wfile.write(content[:limit])
            except OSError:
                return
            if limit is not None and limit < len(content):
                self.connection.shutdown(socket.SHUT_RDWR)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        served = HttpFolder(f"http://127.0.0.1:{server.server_port}", folder)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield served
        finally:
            stopping.set()
            server.shutdown()
            thread.join()


@dataclass
class BlackHole:
    """A port where connections are made and nothing is ever answered.

    Attributes
    ----------
    connections : list of socket
        Those that were made.
    """

    url: str
    connections: list[socket.socket] = field(default_factory=list)


@contextmanager
def black_hole() -> Iterator[BlackHole]:
    """Listen and never answer, until the context ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        hole = BlackHole(f"http://127.0.0.1:{listener.getsockname()[1]}")
        stopping = threading.Event()

        def accept() -> None:
            while not stopping.is_set():
                try:
                    hole.connections.append(listener.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield hole
        finally:
            stopping.set()
            thread.join()
            for connection in hole.connections:
                connection.close()


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until something holds."""
    tick = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        tick.wait(0.02)
    raise AssertionError("it did not come true")
