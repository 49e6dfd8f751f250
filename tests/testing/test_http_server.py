"""The loopback server speaks HTTP rightly, and wrongly exactly where it is told to."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asking import ask, connect, target
from recallfs.errors import InvalidInputError
from recallfs.testing.http import Files, write_sparse
from recallfs.testing.messages import parse_range
from recallfs.testing.misbehaviour import Fault


@pytest.fixture
def files(data: Path) -> Iterator[Files]:
    """Serve the folder of the data file."""
    with Files(data.parent) as server:
        yield server


@pytest.fixture
def url(files: Files) -> str:
    """URL of the data file."""
    return f"{files.url}/data.nwb"


def test_a_file_and_its_ranges_come_as_they_are(files: Files, url: str, data: Path) -> None:
    """GET, HEAD, first, middle, last and suffix ranges give the bytes, and 416 beyond the end."""
    whole = data.read_bytes()
    reply = ask(url)
    assert (reply.status, reply.body) == (200, whole)
    assert reply.headers["Accept-Ranges"] == "bytes"
    head = ask(url, "HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "3000000")
    for asked, first, last in [("0-9", 0, 9), ("1000-2999", 1000, 2999), ("-5", 2999995, 2999999)]:
        part = ask(url, headers={"Range": f"bytes={asked}"})
        assert part.status == 206
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/3000000"
        assert part.body == whole[first : last + 1]
    beyond = ask(url, headers={"Range": "bytes=3000000-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, "bytes */3000000")
    assert ask(f"{files.url}/nothing").status == 404
    assert ask(f"{files.url}/../../etc/passwd").status == 404
    assert [each.sent_bytes for each in files.log[:2]] == [3_000_000, 0]


@pytest.mark.parametrize("header", ["bytes=5-2", "lines=1-2", "bytes=0-1,4-5", "bytes=-", "x"])
def test_a_range_that_is_none_is_ignored(header: str) -> None:
    """Malformed, other and several ranges are as no range."""
    assert parse_range(header, 100) is None


def test_conditions_are_kept(url: str) -> None:
    """If-Range with another ETag gives the whole file, If-None-Match 304, If-Match 412."""
    etag = ask(url, "HEAD").headers["ETag"]
    part = {"Range": "bytes=10-19"}
    assert ask(url, headers={**part, "If-Range": etag}).status == 206
    assert ask(url, headers={**part, "If-Range": '"other"'}).status == 200
    assert ask(url, headers={"If-None-Match": etag}).status == 304
    assert ask(url, headers={"If-Match": '"other"'}).status == 412


def test_connections_are_kept(files: Files, url: str) -> None:
    """Requests over one connection are answered over it, and the log tells."""
    connection = connect(url)
    for _ in range(3):
        connection.request("GET", target(url), headers={"Range": "bytes=0-9"})
        assert len(connection.getresponse().read()) == 10
    connection.close()
    ask(url, headers={"Authorization": "token x"})
    assert [each.connection for each in files.log] == [1, 1, 1, 2]
    assert [each.authorization for each in files.log] == [False, False, False, True]
    assert files.log[0].range == "bytes=0-9"


def test_offsets_past_4_gib_are_served(tmp_path: Path) -> None:
    """The end of a sparse file of 6 GB has the bytes that were marked."""
    write_sparse(tmp_path / "big", 6 * 10**9, {5 * 10**9: b"here"})
    with Files(tmp_path) as server:
        part = ask(f"{server.url}/big", headers={"Range": "bytes=4999999999-5000000004"})
    assert part.body == b"\0here\0"
    assert part.headers["Content-Range"].endswith("/6000000000")


def test_ipv6(data: Path) -> None:
    """A server on ::1 is reached by the URL that it tells; other addresses are refused."""
    with Files(data.parent, host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert ask(f"{server.url}/data.nwb", "HEAD").status == 200
    with pytest.raises(InvalidInputError):
        Files(data.parent, host="0.0.0.0")  # noqa: S104 - that it is refused is the point


def test_status_faults_count_and_end(files: Files, url: str) -> None:
    """A fault passes the first, harms the next two and no more; heal ends one that never would."""
    files.fail(Fault(status=429, retry_after="7", skip=1, times=2))
    replies = [ask(url, "HEAD") for _ in range(4)]
    assert [each.status for each in replies] == [200, 429, 429, 200]
    assert replies[1].headers["Retry-After"] == "7"
    files.fail(Fault(status=500))
    assert ask(url).status == 500
    files.heal()
    assert ask(url).status == 200


def test_faults_are_aimed(files: Files, url: str) -> None:
    """Other paths, other methods and times before it begins are not harmed."""
    files.fail(Fault(where="/other/*", status=500))
    files.fail(Fault(method="PUT", status=500))
    files.fail(Fault(after_s=0.3, status=503))
    assert ask(url, "HEAD").status == 200
    time.sleep(0.35)
    assert ask(url, "HEAD").status == 503


def test_stalls(files: Files, url: str) -> None:
    """Nothing comes, or nothing more after so many bytes; stopping the server ends both."""
    files.fail(Fault(stall=True, times=1))
    files.fail(Fault(stall_at=1000))
    with pytest.raises(TimeoutError):
        ask(url, timeout_s=0.3)
    connection = connect(url, 0.5)
    connection.request("GET", target(url))
    response = connection.getresponse()
    assert len(response.read(1000)) == 1000
    with pytest.raises(TimeoutError):
        response.read(1)
    connection.close()
    began = time.monotonic()
    files.stop()
    assert time.monotonic() - began < 10


def test_broken_bodies(files: Files, url: str) -> None:
    """A reset, a short body and a length that lies are what a client sees."""
    files.fail(Fault(reset_at=2_000_000, times=1))
    with pytest.raises(ConnectionResetError):
        ask(url)
    files.fail(Fault(cut_at=1000, times=1))
    with pytest.raises(http.client.IncompleteRead) as short:
        ask(url)
    assert len(short.value.partial) == 1000
    files.fail(Fault(content_length=3_000_001, times=1))
    with pytest.raises(http.client.IncompleteRead):
        ask(url)
    files.fail(Fault(content_length=500, times=1))
    assert len(ask(url).body) == 500
    assert [each.sent_bytes for each in files.log[:3]] == [2_000_000, 1000, 3_000_000]


def test_flipped_bytes(files: Files, url: str, data: Path) -> None:
    """One byte is wrong, and only requests that are sent it count."""
    whole = data.read_bytes()
    files.fail(Fault(flip_at=(1_500_000,), times=1))
    assert ask(url, headers={"Range": "bytes=0-9"}).body == whole[:10]
    wrong = ask(url).body
    assert [at for at in range(len(whole)) if wrong[at] != whole[at]] == [1_500_000]
    assert ask(url).body == whole


def test_lies_about_what_it_is(files: Files, url: str, data: Path) -> None:
    """An ignored range, a changed ETag, HTML, a redirect loop and a wrong Content-Range."""
    part = {"Range": "bytes=10-19"}
    files.fail(Fault(ignore_range=True, times=1))
    whole = ask(url, headers=part)
    assert (whole.status, len(whole.body)) == (200, 3_000_000)
    files.fail(Fault(etag="changed", times=1))
    assert ask(url, "HEAD").headers["ETag"] == '"changed"'
    files.fail(Fault(content_range="bytes 20-29/3000000", times=1))
    assert ask(url, headers=part).headers["Content-Range"] == "bytes 20-29/3000000"
    files.fail(Fault(html=True, times=1))
    html = ask(url, headers=part)
    assert (html.status, html.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert html.body.startswith(b"<!DOCTYPE html>")
    files.fail(Fault(redirect_to="."))
    loop = ask(f"{url}?a=b")
    assert (loop.status, loop.headers["Location"]) == (302, "/data.nwb?a=b")


def test_slow_and_far(files: Files, url: str) -> None:
    """A rate and a latency are kept, and both meet in one request."""
    files.fail(Fault(delay_s=0.2))
    files.fail(Fault(bytes_per_second=10_000_000))
    began = time.monotonic()
    assert len(ask(url).body) == 3_000_000
    assert 0.45 < time.monotonic() - began < 10


def test_as_a_process(tmp_path: Path, data: Path) -> None:
    """The Kachery server serves a folder from a process of its own, with a fault and a log."""
    root = tmp_path / "root"
    root.mkdir()
    os.link(data, root / "data.nwb")
    log = tmp_path / "log"
    fault = '{"server": "gateway", "status": 503, "times": 1}'
    command = [sys.executable, "-m", "recallfs.testing.kachery", "--root", str(root)]
    with subprocess.Popen(
        [*command, "--fault", fault, "--log", str(log)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        replies = [ask(f"{url}/api/gateway", "POST", json_body={}) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert [each.status for each in replies] == [503, 400]
    assert [json.loads(line)["status"] for line in log.read_text().splitlines()] == [503, 400]
    done = subprocess.run([*command, "--fault", "{"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not a fault" in done.stderr
