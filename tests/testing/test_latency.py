"""The server that is far away: its round trips, its rate, how its connections start."""

from __future__ import annotations

import http.client
import time
from pathlib import Path

import pytest

from recallfs.testing.latency import Distant

RTT_S = 0.06
SIZE = 100_000


def seconds_of(connection: http.client.HTTPConnection) -> float:
    """Fetch the file, and return how long that took."""
    begun = time.monotonic()
    connection.request("GET", "/a", headers={"Range": f"bytes=0-{SIZE - 1}"})
    assert len(connection.getresponse().read()) == SIZE
    return time.monotonic() - begun


@pytest.mark.parametrize("slow_start", [False, True])
def test_round_trips(tmp_path: Path, slow_start: bool) -> None:
    """A connection and a request each cost one; one that starts slowly costs two more, once."""
    (tmp_path / "a").write_bytes(bytes(SIZE))
    with Distant(tmp_path, rtt_s=RTT_S, bytes_per_s=10**9, slow_start=slow_start) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        first, second = seconds_of(connection), seconds_of(connection)
        connection.close()
        assert first >= (4 if slow_start else 2) * RTT_S
        assert second >= RTT_S
        assert first - second > (2.2 if slow_start else 0.5) * RTT_S
        while sum(item.sent_bytes for item in server.requests()) < 2 * SIZE:
            time.sleep(0.001)  # the server writes down what it sent after the client has it
        asked = server.requests()
        assert [item.range for item in asked] == [f"bytes=0-{SIZE - 1}"] * 2
        assert 0 < asked[0].at_s < asked[1].at_s
        assert {(item.connection, item.status, item.sent_bytes) for item in asked} == {
            (asked[0].connection, 206, SIZE)
        }
        assert server.traffic() == (2, 2 * SIZE)
        assert server.requests() == []
