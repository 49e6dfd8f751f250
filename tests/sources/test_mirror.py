"""Mirrors: copies under a URL prefix, on a disk or behind a real server."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from conftest import Lab, sha256
from mirrored import CONTENT, configure_mirror, released_file
from recallfs.config import MirrorSettings
from recallfs.errors import (
    IntegrityError,
    IntegrityWarning,
    NotRecallableError,
    RecallError,
    SourceError,
)
from recallfs.resolve.recall import recall
from recallfs.resolve.wish import Recalled
from recallfs.sources.disks import local_path
from recallfs.sources.mirror import MirrorSource


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Print nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a folder over HTTP on the loopback interface."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def by_digest(folder: Path, content: bytes = CONTENT) -> Path:
    """Return where a mirror keeps these bytes by their digest."""
    digest = hashlib.sha256(content).hexdigest()
    return folder / "sha256" / digest[:2] / digest[2:4] / digest


def get(lab: Lab, path: str = "far.bin") -> Recalled:
    return recall(lab.stores, lab.store, path)


def assert_absent_and_clean(lab: Lab, path: str = "far.bin") -> None:
    assert not (lab.root / path).exists()
    assert not lab.staged
    assert lab.entry(path).state.value == "released"


def test_copy_by_digest(lab: Lab) -> None:
    """A copy under its digest is found, whatever the file is called now."""
    digest = released_file(lab, "far.bin")
    found = get(lab)
    assert (found.source, found.method) == ("mirror:copies", "by digest")
    assert sha256(lab.root / "far.bin") == digest


def test_copy_by_path(lab: Lab) -> None:
    """A copy under the file's path is found, with odd characters in it."""
    name = "sub é/a #1 b%20c.bin"
    digest = released_file(lab, name)
    folder = configure_mirror(lab)
    (folder / name).parent.mkdir()
    by_digest(folder).rename(folder / name)
    assert get(lab, name).method == "by path"
    assert sha256(lab.root / name) == digest


@pytest.mark.parametrize("wrong", [b"", CONTENT[:-1], CONTENT + b"x", b"X" + CONTENT[1:]])
def test_wrong_bytes_at_one_address_and_right_ones_at_the_other(lab: Lab, wrong: bytes) -> None:
    """A damaged copy is passed over for a right one, with one warning that says where it is."""
    digest = released_file(lab, "far.bin")
    folder = configure_mirror(lab)
    by_digest(folder).write_bytes(wrong)
    (folder / "far.bin").write_bytes(CONTENT)
    with pytest.warns(IntegrityWarning, match="holds other bytes .by digest") as said:
        assert get(lab).method == "by path"
    assert len(said) == 1
    assert sha256(lab.root / "far.bin") == digest


@pytest.mark.parametrize("wrong", [b"", CONTENT[:-1], b"X" + CONTENT[1:]])
def test_wrong_bytes_alone_are_never_served(lab: Lab, wrong: bytes) -> None:
    """A damaged copy is an IntegrityError that names the mirror; nothing is committed."""
    released_file(lab, "far.bin")
    by_digest(configure_mirror(lab)).write_bytes(wrong)
    with pytest.raises(IntegrityError, match="mirror:copies holds other bytes") as caught:
        get(lab)
    details = caught.value.details
    assert details.get("blocks") or details["expected"] != details["actual"]
    assert caught.value.details["answers"]["mirror:copies"]["kind"] == "digest-mismatch"
    assert_absent_and_clean(lab)


def test_missing_copy_is_absent(lab: Lab) -> None:
    """A mirror that is there and has nothing answers 'absent'."""
    released_file(lab, "far.bin")
    folder = configure_mirror(lab)
    by_digest(folder).unlink()
    with pytest.raises(NotRecallableError, match="mirror:copies has no copy"):
        get(lab)
    assert_absent_and_clean(lab)


def test_missing_folder_is_an_outage(lab: Lab) -> None:
    """A mirror whose own folder is gone is a disk that is not mounted, not an absence."""
    released_file(lab, "far.bin")
    folder = configure_mirror(lab)
    folder.rename(lab.base / "unmounted")
    with pytest.raises(SourceError, match="mounted"):
        get(lab)
    assert_absent_and_clean(lab)


class _Answer(Exception):  # noqa: N818 - stands for what a library raises
    """An answer with an HTTP status, as aiohttp's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (_Answer(404), "not-recallable"),
        (_Answer(410), "not-recallable"),
        (FileNotFoundError("x"), "not-recallable"),
        (KeyError("x"), "not-recallable"),
        (_Answer(403), "access-denied"),
        (_Answer(429), "source-rate-limited"),
        (_Answer(500), "source-unavailable"),
        (ConnectionRefusedError(111, "refused"), "source-unavailable"),
        (socket.gaierror(-2, "unknown name"), "source-unavailable"),
        (TimeoutError(), "source-timeout"),
    ],
    ids=repr,
)
def test_what_a_back_end_says_is_told_apart(cause: Exception, kind: str) -> None:
    """A FileNotFoundError that hides an outage, as fsspec's HTTP raises it, is an outage."""
    opened: list[str] = []

    class Failing(MemoryFileSystem):  # type: ignore[misc] # fsspec is untyped
        protocol = "failing"
        cachable = False

        def info(self, path: str, **options: Any) -> Any:
            opened.append(path)
            raise FileNotFoundError(path) from cause

    fsspec.register_implementation("failing", Failing, clobber=True)
    source = MirrorSource(MirrorSettings(name="m", url="failing://x"))
    if kind == "not-recallable":
        assert source.derivation("0" * 64) is None
    else:
        with pytest.raises(RecallError) as caught:
            source.derivation("0" * 64)
        assert caught.value.kind == kind
    assert opened


def test_http_mirror(lab: Lab, server: tuple[str, Path]) -> None:
    """A copy behind HTTP comes back exactly, with a space and other scripts in its path."""
    url, folder = server
    name = "sub 1/größe 100%.bin"
    digest = released_file(lab, name)
    configure_mirror(lab, f"{url}/base dir".replace(" ", "%20"))
    (folder / "base dir/sub 1").mkdir(parents=True)
    (folder / "base dir" / name).write_bytes(CONTENT)
    assert get(lab, name).method == "by path"
    assert sha256(lab.root / name) == digest


def test_outage_is_unavailable(lab: Lab) -> None:
    """A closed port is a SourceError, never 'not recallable'."""
    released_file(lab, "far.bin")
    configure_mirror(lab, f"http://127.0.0.1:{closed_port()}/x")
    with pytest.raises(SourceError) as caught:
        get(lab)
    assert not isinstance(caught.value, FileNotFoundError)
    assert "mirror:copies cannot be reached" in str(caught.value)
    assert_absent_and_clean(lab)


def test_unknown_protocol_is_unavailable(lab: Lab) -> None:
    """A protocol that fsspec does not know is a SourceError that says so."""
    released_file(lab, "far.bin")
    configure_mirror(lab, "nosuch://host/x")
    with pytest.raises(SourceError, match="nosuch"):
        get(lab)
    assert_absent_and_clean(lab)


def test_outage_falls_through_to_recompute(lab: Lab) -> None:
    """With the mirror unreachable the recipe brings the file back."""
    digest = lab.released()
    configure_mirror(lab, "nosuch://host/x")
    found = get(lab, "derived.h5")
    assert found.source == "recompute"
    assert sha256(lab.root / "derived.h5") == digest


def test_second_mirror_is_asked(lab: Lab) -> None:
    """Mirrors are asked in order; an outage, a damaged copy and an absence do not end it."""
    digest = released_file(lab, "far.bin")
    good, damaged, empty = lab.base / "mirror", lab.base / "damaged", lab.base / "empty"
    damaged.mkdir()
    (damaged / "far.bin").write_bytes(b"X" + CONTENT[1:])
    tables = [("down", "nosuch://x"), ("damaged", damaged), ("empty", empty), ("good", good)]
    lab.write_config(
        "".join(f'[[sources.mirror]]\nname = "{name}"\nurl = "{url}"\n' for name, url in tables)
    )
    with pytest.warns(IntegrityWarning, match="mirror:damaged holds other bytes"):
        assert get(lab).source == "mirror:good"
    assert sha256(lab.root / "far.bin") == digest


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("/data/a #1?b", "/data/a #1?b"),
        ("file:///data/a#1", "/data/a#1"),
        ("local:///data/a", "/data/a"),
        ("simplecache::file:///data/a", "/data/a"),
        ("https://host/data", None),
        ("s3://bucket/data", None),
    ],
)
def test_local_folders_are_recognised(url: str, folder: str | None) -> None:
    """However a folder is written, it is known as one: a copy beside the file is no backup."""
    settings = MirrorSettings(name="m", url=url)
    found = local_path(settings.url)
    assert (None if found is None else str(found)) == folder
    domain = MirrorSource(settings).failure_domain()
    root = os.stat("/").st_dev  # noqa: PTH116 - a number, not a path
    expected = (
        f"disk:{root}" if folder else urlsplit(url)._replace(path="").geturl().replace("//", "")
    )
    assert domain == expected
