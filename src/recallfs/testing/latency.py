"""A file server that is far away: round trips take their time, and bytes come at a rate."""

from __future__ import annotations

from pathlib import Path

from recallfs.testing.http import Files
from recallfs.testing.misbehaviour import Fault


class Distant(Files):
    """Files behind a network of one latency and bandwidth.

    A connection takes a round trip, and so does each request; then the body comes at the rate of
    one connection. There is no TLS and no slow start.

    Parameters
    ----------
    root : Path
        As of `Files`.
    rtt_s : float
        Of a round trip, seconds.
    bytes_per_s : int
        Of each connection.

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
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(root, host=host, port=port)
        self.connect_s = rtt_s
        self.fail(Fault(delay_s=rtt_s, bytes_per_second=bytes_per_s))

    def traffic(self) -> tuple[int, int]:
        """Return how many requests came, and how many bytes went out, since this was last asked."""
        seen = list(self.log)
        del self.log[: len(seen)]
        return len(seen), sum(exchange.sent_bytes for exchange in seen)
