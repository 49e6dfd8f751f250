"""A loopback HTTP/1.1 server whose faults a test scripts.

What the Kachery and DANDI servers stand on; with `Files` it is a plain file server of its own.
Keep-alive, ``HEAD``, ranges, ETags and ``If-Range`` are as in RFC 9110. Bodies of files go out by
``sendfile``. Each request is kept in `Server.log`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from recallfs.errors import InvalidInputError
from recallfs.testing.connection import Listener
from recallfs.testing.messages import Answer, Request
from recallfs.testing.misbehaviour import Exchange, Fault, Faults

S = TypeVar("S", bound="Server")


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
        self._listener = Listener(self, host, port)
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
