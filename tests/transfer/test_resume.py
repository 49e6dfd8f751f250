"""Downloads that are killed, stopped or huge: what the next one finds, and what it costs."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from faulty_server import Site, Thing
from processes import start
from recallfs.digest.stream import digest_file
from recallfs.errors import InvalidInputError, RecallError
from recallfs.transfer.download import Wanted, download, sweep
from recallfs.transfer.http import Client
from recallfs.transfer.partial import open_partial
from recallfs.transfer.remote import HttpRemote, Location
from recallfs.transfer.spans import Spans
from recallfs.transfer.timing import Deadlines
from recallfs.values import BLOCK_BYTES
from transfer_actors import fetch, fetch_measured

SIZE = 20 * BLOCK_BYTES + 77

HUGE = 6_000_000_000
HUGE_SHA256 = "cf6635ec0906c9b2dcc2fe374ca8adfde3b06c46d646714786d3dcbc71151bf8"
"""Of zeros, with ``end`` as the last three bytes."""


def wait_for(folder: Path, came_bytes: int) -> None:
    """Wait until so much of a download is on the disk, by the file system's own count."""
    data = folder / "partials" / "k" / "data"
    patience = time.monotonic() + 60
    while not data.exists() or data.stat().st_blocks * 512 < came_bytes:
        assert time.monotonic() < patience, "the download did not get so far"
        time.sleep(0.005)


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("streams", [1, 4])
def test_killed_download_is_gone_on_with(
    tmp_path: Path, site: Site, streams: int, blocks: bool
) -> None:
    """After SIGKILL at 60%, less than 45% of the bytes are sent again."""
    content = os.urandom(SIZE)
    original = tmp_path / "original"
    original.write_bytes(content)
    digests = digest_file(original)
    site.things["/x"] = Thing(
        content, etag=lambda _: '"e"', delay_s=0.05, bytes_per_s=60e6 / streams
    )
    known = digests.blocks if blocks else b""
    process = start(fetch, site.url(), str(tmp_path), SIZE, known)
    wait_for(tmp_path, int(0.6 * SIZE))
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "got").exists()
    again = site.things["/x"] = Thing(content, etag=lambda _: '"e"', delay_s=0.05)
    done = fetch(site.url(), str(tmp_path), SIZE, known, streams=streams)
    assert done.digests == digests
    assert again.sent_bytes < 0.45 * SIZE
    assert done.fetched_bytes + done.reused_bytes == SIZE
    assert list((tmp_path / "partials").iterdir()) == []


def test_stopped_download_harms_nobody(tmp_path: Path, site: Site) -> None:
    """While a stopped process holds a download, another goes its own way; both end right."""
    content = os.urandom(SIZE)
    (tmp_path / "original").write_bytes(content)
    digests = digest_file(tmp_path / "original")
    site.things["/x"] = Thing(content, etag=lambda _: '"e"', bytes_per_s=30e6)
    process = start(fetch, site.url(), str(tmp_path), SIZE, digests.blocks)
    wait_for(tmp_path, SIZE // 4)
    os.kill(process.pid or 0, signal.SIGSTOP)
    held = (tmp_path / "partials" / "k" / "data").stat().st_ino
    site.things["/x"].bytes_per_s = None
    done = fetch(site.url(), str(tmp_path), SIZE, digests.blocks, name="mine")
    assert done.digests == digests
    assert done.reused_bytes == 0
    assert (tmp_path / "mine").stat().st_ino != held
    os.kill(process.pid or 0, signal.SIGCONT)
    process.join(30)
    assert process.exitcode == 0
    assert (tmp_path / "got").stat().st_ino == held
    assert digest_file(tmp_path / "got") == digest_file(tmp_path / "mine") == digests
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_corruption_at_rest_is_found(tmp_path: Path, site: Site) -> None:
    """Bytes that changed on the disk since are fetched again where blocks are known."""
    content = os.urandom(SIZE)
    (tmp_path / "original").write_bytes(content)
    digests = digest_file(tmp_path / "original")
    site.things["/x"] = Thing(content, short_at=lambda _: 0)
    with pytest.raises(RecallError):
        fetch(site.url(), str(tmp_path), SIZE, digests.blocks)
    partial = open_partial(tmp_path / "partials", "k", SIZE, tmp_path)
    partial.describe("lab", None)
    descriptor = partial.descriptor()
    partial.write(descriptor, memoryview(content), 0)
    os.pwrite(descriptor, b"wrong", 2 * BLOCK_BYTES + 5)
    os.close(descriptor)
    for block in range(9):
        partial.note(block, BLOCK_BYTES)
    partial.leave()
    site.things["/x"] = Thing(content)
    done = fetch(site.url(), str(tmp_path), SIZE, digests.blocks)
    assert done.digests == digests
    assert done.reused_bytes == 8 * BLOCK_BYTES


def test_offsets_past_4_gb(tmp_path: Path, site: Site) -> None:
    """Spans, notes and requests beyond 4 GB name the bytes they mean."""
    original = tmp_path / "original"
    with original.open("wb") as file:
        file.seek(HUGE - 3)
        file.write(b"end")
    site.things["/x"] = Thing(original)
    partial = open_partial(tmp_path / "partials", "k", HUGE, tmp_path)
    last = (HUGE - 1) // BLOCK_BYTES
    spans = Spans(HUGE, {**dict.fromkeys(range(last), BLOCK_BYTES), last: 1000})
    start, stop = spans.take() or (0, 0)
    assert (start, stop) == (last * BLOCK_BYTES + 1000, HUGE)
    remote = HttpRemote(
        Client(), lambda _: Location(site.url()), deadlines=Deadlines(), source="lab"
    )
    buffer = memoryview(bytearray(BLOCK_BYTES))
    descriptor = partial.descriptor()
    with remote.read(start, stop) as stream:
        assert (stream.start, stream.stat.size_bytes) == (start, HUGE)
        while length := stream.readinto(buffer):
            partial.write(descriptor, buffer[:length], start)
            start += length
    partial.note(last, HUGE - last * BLOCK_BYTES)
    assert partial.filled() == {last: HUGE - last * BLOCK_BYTES}
    assert os.pread(descriptor, 99, HUGE - 4) == b"\0end"
    os.close(descriptor)
    partial.leave()


@pytest.mark.services  # digesting 6 GB takes a while, and sparse files are not for every disk
def test_huge_sparse_file_is_resumed_past_4_gb(tmp_path: Path, site: Site) -> None:
    """Of 6 GB only the end is missing, and only that is asked for."""
    original = tmp_path / "original"
    with original.open("wb") as file:
        file.seek(HUGE - 3)
        file.write(b"end")
    site.things["/x"] = Thing(original, etag=lambda _: '"e"')
    partial = open_partial(tmp_path / "partials", "k", HUGE, tmp_path)
    partial.describe("lab", '"e"')
    last = (HUGE - 1) // BLOCK_BYTES
    for block in range(last - 1):
        partial.note(block, BLOCK_BYTES)
    partial.note(last - 1, 1000)
    partial.leave()
    done = fetch(site.url(), str(tmp_path), HUGE, b"")
    assert done.digests.sha256 == HUGE_SHA256
    assert done.reused_bytes == (last - 1) * BLOCK_BYTES + 1000
    assert site.asked[0].headers["range"] == f"bytes={done.reused_bytes}-{HUGE - 1}"
    assert (tmp_path / "got").stat().st_blocks * 512 < 50_000_000, "it stays sparse"


def test_memory_is_bounded(tmp_path: Path, site: Site) -> None:
    """A file of 200 MB, in four streams, needs no more memory than buffers."""
    original = tmp_path / "original"
    with original.open("wb") as file:
        file.truncate(200_000_000)
    site.things["/x"] = Thing(original, delay_s=0.05)
    process = start(
        fetch_measured, site.url(), str(tmp_path), 200_000_000, str(tmp_path / "growth")
    )
    process.join(100)
    assert process.exitcode == 0
    assert int((tmp_path / "growth").read_text()) < 40_000_000


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"version": 99}', '{"version": 1, "size_bytes": 5}', ""]
)
def test_torn_state_means_starting_over(tmp_path: Path, damage: str) -> None:
    """A state file that is torn or foreign is no error, and nothing of its download is used."""
    partial = open_partial(tmp_path / "p", "k", SIZE, tmp_path)
    partial.describe("lab", '"e"')
    partial.note(0, BLOCK_BYTES)
    partial.leave()
    partial = open_partial(tmp_path / "p", "k", SIZE, tmp_path)
    assert partial.filled() == {0: BLOCK_BYTES}
    partial.leave()
    (tmp_path / "p" / "k" / "state.json").write_text(damage)
    partial = open_partial(tmp_path / "p", "k", SIZE, tmp_path)
    assert partial.filled() == {}
    assert partial.source is None
    partial.leave()


@pytest.mark.parametrize("name", ["data", "blocks"])
def test_planted_link_is_not_written_through(tmp_path: Path, name: str) -> None:
    """A link in the place of one of our files is replaced, and its target left alone."""
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(SIZE))
    partial = open_partial(tmp_path / "p", "k", SIZE, tmp_path)
    partial.describe("lab", '"e"')
    partial.leave()
    (tmp_path / "p" / "k" / name).unlink()
    (tmp_path / "p" / "k" / name).symlink_to(victim)
    partial = open_partial(tmp_path / "p", "k", SIZE, tmp_path)
    descriptor = partial.descriptor()
    partial.write(descriptor, memoryview(b"ours"), 0)
    partial.note(0, 4)
    os.close(descriptor)
    partial.leave()
    assert victim.read_bytes() == bytes(SIZE)


def test_all_is_private(tmp_path: Path) -> None:
    """Nobody else can read a download in progress, whatever the umask."""
    old = os.umask(0)
    try:
        partial = open_partial(tmp_path / "p", "k", SIZE, tmp_path)
        partial.describe("lab", '"e"')
    finally:
        os.umask(old)
    places = [tmp_path / "p", *(tmp_path / "p").rglob("*")]
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in places}
    assert modes == {
        "p": "0o700", "k": "0o700",
        "lock": "0o600", "data": "0o600", "blocks": "0o600", "state.json": "0o600",
    }  # fmt: skip
    state = json.loads((tmp_path / "p" / "k" / "state.json").read_bytes())
    assert state == {"version": 1, "size_bytes": SIZE, "source": "lab", "validator": '"e"'}
    partial.leave()


def test_sweep_removes_what_nobody_wants(tmp_path: Path) -> None:
    """Old downloads go; young ones, and those that a process holds, stay."""
    held = open_partial(tmp_path / "p", "held", SIZE, tmp_path)
    for name in ("old", "young"):
        partial = open_partial(tmp_path / "p", name, SIZE, tmp_path)
        partial.describe("lab", '"e"')
        partial.leave()
    for name in ("old", "held"):
        for path in (tmp_path / "p" / name, *(tmp_path / "p" / name).iterdir()):
            os.utime(path, (1, 1))
    assert sweep(tmp_path / "p", older_than_s=3600) == 1
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["held", "young"]
    held.leave()
    assert sweep(tmp_path / "nowhere") == 0


def test_key_is_a_plain_name(tmp_path: Path) -> None:
    """A key cannot lead out of the folder."""
    for key in ("../x", "", ".", "a/b", "x" * 200):
        with pytest.raises(InvalidInputError):
            open_partial(tmp_path / "p", key, 1, tmp_path)


def test_folder_that_cannot_be_used(tmp_path: Path, site: Site) -> None:
    """Where downloads cannot be kept, they are made in the target's folder, and leave nothing."""
    (tmp_path / "partials").write_text("a file in its place")
    site.things["/x"] = Thing(b"content")
    fetch(site.url(), str(tmp_path), 7, b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["got", "partials"]


def test_no_secret_in_state(tmp_path: Path, site: Site) -> None:
    """Neither tokens nor presigned URLs are written down anywhere."""
    # Silent for good: what went on by 5 MB at each try would arrive in the end.
    site.things["/x"] = Thing(
        bytes(SIZE), etag=lambda _: '"e"', stall_at=lambda asked: 0 if asked.number else 5_000_000
    )
    deadlines = Deadlines(read_s=0.3)
    remote = HttpRemote(
        Client(),
        lambda _: Location(site.url("/x?sig=sesame"), {"Authorization": "Bearer sesame"}),
        deadlines=deadlines,
        source="lab",
    )
    with pytest.raises(RecallError):
        download(
            remote, Wanted(SIZE), partials=tmp_path / "p", key="k", target=tmp_path / "t",
            deadlines=deadlines, source="lab",
        )  # fmt: skip
    for name in ("state.json", "lock", "blocks"):
        assert b"sesame" not in (tmp_path / "p" / "k" / name).read_bytes()
