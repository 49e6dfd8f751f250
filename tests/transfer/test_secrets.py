"""Nothing that could let somebody in is shown, logged or kept in an exception."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from faulty_server import Answer, Site, Thing
from recallfs.errors import RecallError
from recallfs.transfer.addresses import shown
from recallfs.transfer.download import Wanted, download
from recallfs.transfer.http import Client
from recallfs.transfer.remote import FsspecRemote, HttpRemote, Location, Remote
from recallfs.transfer.timing import Deadlines

QUICK = Deadlines(connect_s=0.3, answer_s=0.4, read_s=0.3)
SIZE = 6_000_000
FAULTS: dict[str, Answer] = {
    "500": lambda _: (500, {}, b"sesame"),
    "403": lambda _: (403, {}, b"sesame"),
    "404": lambda _: (404, {}, b"sesame"),
    "429": lambda _: (429, {"Retry-After": "99"}, b"sesame"),
    "reset": lambda _: (-1, {}, b""),
    "silence": lambda _: (0, {}, b""),
    "garbage": lambda _: (0, {}, b"sesame"),
    "page": lambda _: (200, {}, b"<html>sesame"),
    "range": lambda _: (206, {"Content-Range": "bytes 5-9/7"}, b"sesame"),
    "loop": lambda asked: (302, {"Location": f"{asked.path}?{asked.query}"}, b""),
    "astray": lambda _: (302, {"Location": "http://me:sesame@127.0.0.1:1/x?sig=sesame"}, b""),
    "nowhere": lambda _: (302, {"Location": "http://[sesame/x?sig=sesame"}, b""),
}


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://me:sesame@host:8/a/b?sig=sesame#sesame", "https://host:8/a/b"),
        ("s3://bucket/key?versionId=sesame", "s3://bucket/key"),
        ("simplecache::https://me:sesame@host/x?sesame", "simplecache::https://host/x"),
        ("zip://in.nwb::https://host/x?sesame", "zip://in.nwb::https://host/x"),
        ("file:///a/b", "file:///a/b"),
        ("/a/b", "/a/b"),
        ("simplecache::/a/b", "simplecache::/a/b"),
        ("http://[::1]:80/x?sesame", "http://[::1]:80/x"),
        ("http://me:sesame@[bad/x", "http:…"),
        ("http://h/\x1b[31m", "http://h/\N{REPLACEMENT CHARACTER}[31m"),
    ],
)
def test_shown(url: str, safe: str) -> None:
    """What is shown of a URL is host and path."""
    assert shown(url) == safe


def everything(error: BaseException) -> str:
    """Return all that a log, a report or another process could get to see of an exception."""
    texts = ["".join(traceback.format_exception(error)), repr(error), str(vars(error))]
    seen: list[BaseException | None] = [error]
    while (below := seen[-1] and (seen[-1].__cause__ or seen[-1].__context__)) is not None:
        texts.append(f"{below!r} {vars(below)}")
        seen.append(below)
    if isinstance(error, RecallError):
        texts.append(str(error.to_json()))
        texts.append(str(vars(pickle.loads(pickle.dumps(error)))))  # noqa: S301 - our own
    return "\n".join(texts)


def remotes(client: Client, url: str) -> list[Remote]:
    headers = {"Authorization": "Bearer sesame"}
    return [
        HttpRemote(client, lambda _: Location(url, headers), deadlines=QUICK, source="lab"),
        FsspecRemote(url, {"headers": headers}, deadlines=QUICK, source="files"),
    ]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_secret_gets_out(
    fault: str,
    tmp_path: Path,
    client: Client,
    site: Site,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not by messages, exceptions below them, representations, or logs at their most talkative."""
    caplog.set_level(logging.DEBUG)
    site.answers["/x"] = FAULTS[fault]
    url = site.url("/x?sig=sesame").replace("http://", "http://me:sesame@")

    def look_up() -> object:
        return client.json(
            "GET", url, headers={"X-Key": "sesame"}, deadlines=QUICK, source="lab"
        ).status

    def get(remote: Remote) -> Callable[[], object]:
        return lambda: download(
            remote, Wanted(SIZE), partials=tmp_path / "p", key="k", target=tmp_path / "t",
            deadlines=QUICK, source="lab",
        )  # fmt: skip

    for work in (look_up, get(remotes(client, url)[0])):
        try:
            result = repr(work())
        except RecallError as error:
            result = everything(error)
        assert "sesame" not in result
    assert "sesame" not in caplog.text


def test_no_secret_gets_out_of_a_back_end(tmp_path: Path, client: Client, site: Site) -> None:
    """What fsspec's back ends raise with the URL in it is not passed on."""
    for fault in ("500", "403", "404", "reset"):
        site.answers["/x"] = FAULTS[fault]
        remote = remotes(client, site.url("/x?sig=sesame"))[1]
        with pytest.raises(RecallError) as caught:
            remote.stat()
        assert "sesame" not in everything(caught.value)


def test_no_secret_in_representations(client: Client, site: Site) -> None:
    """Nor do objects that hold secrets print them."""
    site.things["/x"] = Thing(b"content")
    location = Location("https://host/x?sig=sesame", {"Authorization": "Bearer sesame"})
    remote = remotes(client, site.url("/x?sig=sesame"))[0]
    with remote.read(0, None) as stream:
        texts = [repr(location), repr(remote), remote.describe, repr(stream), repr(stream.stat)]
    assert "sesame" not in " ".join(texts)
    assert remote.describe == site.url("/x")
