"""The far end, in a process of its own: files, a Kachery gateway and an archive, all a way off.

    python -m suite.servers '{"root": …}'

prints a line of JSON with its URLs, then answers each line it is given with the traffic since the
last one. `Far` starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

BYTES_PER_S = 50_000_000
FOLDER = Path(__file__).resolve().parent.parent

# What a packet holds on an Ethernet; loopback's own are 64 KB, and their number says nothing.
SEGMENT_BYTES = 1448
# tcpi_segs_out and tcpi_segs_in of Linux' struct tcp_info (linux/tcp.h)
SEGMENTS_AT = 136


class Packets:
    """Counts the TCP segments of all connections that a server takes; Linux tells."""

    def __init__(self, listener: Any) -> None:
        self.is_known = sys.platform == "linux"
        self._live: set[socket.socket] = set()
        self._ended = [0, 0]
        if not self.is_known:
            return
        listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        accept, close = listener.get_request, listener.shutdown_request

        def get_request() -> Any:
            connection, address = accept()
            self._live.add(connection)
            return connection, address

        def shutdown_request(connection: socket.socket) -> None:
            for way, count in enumerate(self._of(connection)):
                self._ended[way] += count
            self._live.discard(connection)
            close(connection)

        listener.get_request, listener.shutdown_request = get_request, shutdown_request

    @staticmethod
    def _of(connection: socket.socket) -> tuple[int, int]:
        with contextlib.suppress(OSError):
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            return struct.unpack_from("II", told, SEGMENTS_AT)
        return (0, 0)

    def counts(self) -> tuple[int, int]:
        """Return how many went out and came in so far."""
        live = [self._of(connection) for connection in list(self._live)]
        sent, received = (self._ended[way] + sum(each[way] for each in live) for way in (0, 1))
        return sent, received


class Far:
    """Starts the servers and asks them; a context manager.

    Parameters
    ----------
    root : Path
        Its files are served.
    rtt_s : float
        Of a round trip, seconds.
    port : int
        Of the plain file server.
    kachery, dandi : Path, optional
        A file that a gateway, or an archive, holds.
    """

    def __init__(
        self,
        root: Path,
        *,
        rtt_s: float,
        port: int,
        kachery: Path | None = None,
        dandi: Path | None = None,
    ) -> None:
        wanted = {
            "root": str(root),
            "rtt_s": rtt_s,
            "port": port,
            "kachery": str(kachery) if kachery else None,
            "dandi": str(dandi) if dandi else None,
        }
        command = [sys.executable, "-m", "suite.servers", json.dumps(wanted)]
        self._process = subprocess.Popen(
            command,
            cwd=FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server of the benchmarks ended; its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def traffic(self) -> dict[str, float]:
        """Return requests, bytes and packets since this was last asked."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Far:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()


def main(wanted: dict[str, Any]) -> None:
    """Serve until the standard input ends."""
    from recallfs.testing.latency import Distant
    from recallfs.testing.misbehaviour import Fault

    distant = Distant(
        Path(wanted["root"]),
        rtt_s=wanted["rtt_s"],
        bytes_per_s=BYTES_PER_S,
        port=wanted["port"],
        slow_start=True,
    )
    servers: list[Any] = [distant]
    about: dict[str, Any] = {"url": distant.url}
    with contextlib.ExitStack() as stack:
        stack.enter_context(distant)
        if wanted["kachery"]:
            from recallfs.testing.kachery import KacheryServer

            gateway = stack.enter_context(KacheryServer())
            about["sha1"] = gateway.add_file(Path(wanted["kachery"]))
            about["gateway"] = gateway.url
            servers += [gateway, gateway.bucket]
        if wanted["dandi"]:
            from recallfs.testing.dandi import DandiServer

            archive = stack.enter_context(DandiServer())
            dandiset = archive.add_dandiset()
            archive.add_asset(dandiset, "sub-1/file.nwb", Path(wanted["dandi"]))
            about |= {
                "api": archive.api_url,
                "dandiset": dandiset,
                "version": archive.publish(dandiset),
            }
            servers += [archive, archive.bucket]
        for server in servers[1:]:
            server.connect_s = wanted["rtt_s"]
            far = {"delay_s": wanted["rtt_s"], "window_s": wanted["rtt_s"]}
            server.fail(Fault(**far, bytes_per_second=BYTES_PER_S))
        counters = [Packets(server._listener) for server in servers]
        print(json.dumps(about), flush=True)
        before = [0, 0]
        for _ in sys.stdin:
            seen = []
            for server in servers:
                new = list(server.log)
                del server.log[: len(new)]
                seen += new
            answer: dict[str, Any] = {
                "number_of_http_requests": len(seen),
                "amount_downloaded_in_bytes": sum(exchange.sent_bytes for exchange in seen),
                "number_of_connections": len({exchange.connection for exchange in seen}),
            }
            if all(counter.is_known for counter in counters):
                now = [sum(each[way] for each in map(Packets.counts, counters)) for way in (0, 1)]
                down, up = (new - old for new, old in zip(now, before, strict=True))
                before = now
                answer |= {
                    "amount_downloaded_in_number_of_packets": down,
                    "amount_uploaded_in_number_of_packets": up,
                    "total_transfer_in_number_of_packets": down + up,
                }
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(json.loads(sys.argv[1]))
    os._exit(0)
