"""A file server that is far away: round trips take their time, and bytes come at a rate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from recallfs.testing.http import Files
from recallfs.testing.misbehaviour import Fault


@dataclass(frozen=True)
class Asked:
    """One request as it reached the server.

    Parameters
    ----------
    at_s : float
        Seconds since the server was made, or `Distant.traffic` last asked.
    method, path, range : str
    connection : int
        Number of the connection.
    status : int
        0 as long as there is no answer.
    sent_bytes : int
        Of the body.
    """

    at_s: float
    method: str
    path: str
    range: str
    connection: int
    status: int
    sent_bytes: int


class Distant(Files):
    """Files behind a network of one latency and bandwidth.

    A connection takes a round trip, and so does each request; then the body comes at the rate of
    one connection. There is no TLS.

    Parameters
    ----------
    root : Path
        As of `Files`.
    rtt_s : float
        Of a round trip, seconds.
    bytes_per_s : int
        Of each connection.
    slow_start : bool
        Whether a connection begins with a window of ten segments (RFC 6928), which doubles with
        each round trip until the rate is reached, as TCP does. The window stays for the next
        request over the same connection.

    Examples
    --------
    >>> with Distant(Path("files"), rtt_s=0.1) as server:  # doctest: +SKIP
    ...     read(server.url)
    ...     print(server.traffic())
    """

    def __init__(
        self,
        root: Path,
        *,
        rtt_s: float = 0.1,
        bytes_per_s: int = 50_000_000,
        slow_start: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(root, host=host, port=port)
        self.connect_s = rtt_s
        window_s = rtt_s if slow_start else 0.0
        self.fail(Fault(delay_s=rtt_s, bytes_per_second=bytes_per_s, window_s=window_s))
        self._since_s = time.monotonic()

    def requests(self) -> list[Asked]:
        """Return the requests since `traffic` was last asked, in the order of arrival."""
        return [
            Asked(
                exchange.began_s - self._since_s,
                exchange.method,
                exchange.path,
                exchange.range,
                exchange.connection,
                exchange.status,
                exchange.sent_bytes,
            )
            for exchange in list(self.log)
        ]

    def traffic(self) -> tuple[int, int]:
        """Return how many requests came, and how many bytes went out, since this was last asked."""
        seen = list(self.log)
        del self.log[: len(seen)]
        self._since_s = time.monotonic()
        return len(seen), sum(exchange.sent_bytes for exchange in seen)
