"""Objects elsewhere: what is said of them before a byte is read."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from faulty_server import Site, Thing
from recallfs.errors import AccessError, NotRecallableError, SourceError, SourceTimeoutError
from recallfs.transfer.http import Client
from recallfs.transfer.remote import FsspecRemote, HttpRemote, Location, Remote, Stat
from recallfs.transfer.timing import Deadlines

PATIENT = Deadlines(connect_s=10, answer_s=10, read_s=10)
QUICK = Deadlines(connect_s=0.5, answer_s=0.5, read_s=0.5)


def behind(client: Client, url: str) -> Remote:
    return HttpRemote(client, lambda _: Location(url), deadlines=PATIENT, source="lab")


def test_stat_over_http(client: Client, site: Site) -> None:
    """Size, validator and ranges come from a GET of one byte, since presigned URLs refuse HEAD."""
    site.things["/x"] = Thing(b"content", etag=lambda _: '"e"')
    site.things["/weak"] = Thing(b"content", etag=lambda _: 'W/"e"')
    site.things["/whole"] = Thing(b"content", ignores_range=True)
    site.things["/empty"] = Thing(b"")
    stats = {path: behind(client, site.url(path)).stat() for path in site.things}
    assert stats == {
        "/x": Stat(7, '"e"', True),
        "/weak": Stat(7, None, True),
        "/whole": Stat(7, None, False),
        "/empty": Stat(0, None, False),
    }
    assert {asked.method for asked in site.asked} == {"GET"}


def test_stat_of_what_is_not_there(client: Client, site: Site) -> None:
    """404 is 'absent', 403 is missing rights, a closed port an outage."""
    with pytest.raises(NotRecallableError):
        behind(client, site.url("/none")).stat()
    site.answers["/x"] = lambda _: (403, {}, b"")
    with pytest.raises(AccessError):
        behind(client, site.url("/x")).stat()
    with pytest.raises(SourceError, match="refused"):
        behind(client, "http://127.0.0.1:1/x").stat()


def test_stat_through_fsspec(tmp_path: Path) -> None:
    """A local file and a missing one, a folder, a protocol that does not exist."""
    (tmp_path / "x").write_bytes(b"content")

    def remote(url: str) -> FsspecRemote:
        return FsspecRemote(url, {}, deadlines=PATIENT, source="files")

    stat = remote(f"file://{tmp_path / 'x'}").stat()
    assert (stat.size_bytes, stat.accepts_ranges) == (7, True)
    assert stat.validator is not None
    for name in ("none", "."):
        with pytest.raises(NotRecallableError):
            remote(f"file://{tmp_path / name}").stat()
    with pytest.raises(SourceError):
        remote("nosuch://host/x").stat()


def test_fsspec_stat_that_hangs(site: Site) -> None:
    """A back end that hangs is left alone after the deadline."""
    site.answers["/x"] = lambda _: (0, {}, b"")
    began = time.monotonic()
    with pytest.raises(SourceTimeoutError):
        FsspecRemote(site.url("/x"), {}, deadlines=QUICK, source="files").stat()
    assert time.monotonic() - began < 5


def test_fsspec_errors_are_told_apart(site: Site) -> None:
    """Over HTTP, too, an outage is not 'absent', nor a refusal an outage."""

    def answer(status: int) -> None:
        site.answers["/x"] = lambda _: (status, {}, b"")
        FsspecRemote(site.url("/x"), {}, deadlines=PATIENT, source="files").stat()

    for status, expected in ((404, NotRecallableError), (403, AccessError), (500, SourceError)):
        with pytest.raises(expected):
            answer(status)
