"""Downloads: every fault of a server, and what is kept of an attempt that failed."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from faulty_server import Site, Thing
from recallfs.digest.stream import digest_file
from recallfs.errors import (
    AccessError,
    IntegrityError,
    NotRecallableError,
    RecallError,
    SourceError,
    SourceRateLimitError,
    SourceTimeoutError,
)
from recallfs.transfer.download import Downloaded, Limits, Wanted, discard, download
from recallfs.transfer.http import Client
from recallfs.transfer.remote import FsspecRemote, HttpRemote, Location, Remote
from recallfs.transfer.timing import Deadlines
from recallfs.values import BLOCK_BYTES

PATIENT = Deadlines(connect_s=10, answer_s=10, read_s=10)
QUICK = Deadlines(connect_s=1, answer_s=1, read_s=0.8)
SIZE = 2 * BLOCK_BYTES + 123_457
LARGE = 5 * BLOCK_BYTES + 5


@dataclass
class Desk:
    """A place to download to, the bytes that are wanted, and who has them."""

    base: Path
    site: Site
    client: Client
    content: bytes = b""
    told: list[int] = field(default_factory=list)

    def offer(self, size: int = SIZE, **faults: Any) -> Thing:
        """Put bytes on the server, and what goes wrong with them."""
        if len(self.content) != size or not size:
            self.content = os.urandom(size)
            (self.base / "original").write_bytes(self.content)
        thing = self.site.things["/x"] = Thing(self.content, **faults)
        return thing

    def remote(self, source: str = "lab", deadlines: Deadlines = PATIENT) -> Remote:
        """Return the object behind a URL."""
        return HttpRemote(
            self.client, lambda _: Location(self.site.url()), deadlines=deadlines, source=source
        )

    def wanted(self, *, blocks: bool = True) -> Wanted:
        """Return what is known of the bytes beforehand."""
        digests = digest_file(self.base / "original")
        return Wanted(digests.size_bytes, digests.blocks if blocks else b"")

    def get(self, *, blocks: bool = True, source: str = "lab", **options: Any) -> Downloaded:
        """Download them, or what `options` say."""
        options.setdefault("wanted", self.wanted(blocks=blocks))
        options.setdefault("deadlines", PATIENT)
        options.setdefault("remote", self.remote(source, options["deadlines"]))
        options.setdefault("target", self.base / "got")
        return download(
            options.pop("remote"),
            options.pop("wanted"),
            partials=self.base / "partials",
            key="k",
            progress=self.told.append,
            source=source,
            **options,
        )

    def gets_it(self, **options: Any) -> Downloaded:
        """Download, and make sure that all is right and nothing is left over."""
        self.told.clear()
        done = self.get(**options)
        expected = digest_file(self.base / "original")
        assert done.digests == expected
        assert digest_file(self.base / "got") == expected
        assert sum(self.told) == len(self.content)
        assert stat.S_IMODE((self.base / "got").stat().st_mode) == 0o600
        assert sorted(path.name for path in self.base.iterdir()) == ["got", "original", "partials"]
        assert list((self.base / "partials").iterdir()) == []
        (self.base / "got").unlink()
        return done

    def fails(self, **options: Any) -> RecallError:
        """Download, and return what it raises; nothing may be at the target."""
        with pytest.raises(RecallError) as caught:
            self.get(**options)
        assert not (self.base / "got").exists()
        assert str(caught.value).endswith(".")
        return caught.value

    @property
    def ranges(self) -> list[str | None]:
        """Return the Range of each request."""
        return [asked.headers.get("range") for asked in self.site.asked]


@pytest.fixture
def desk(tmp_path: Path, site: Site, client: Client) -> Desk:
    return Desk(tmp_path, site, client)


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, LARGE])
def test_all_sizes(desk: Desk, size: int, blocks: bool) -> None:
    """Files of any length come whole, with all digests; an empty one is asked for, too."""
    desk.offer(size, etag=lambda _: '"e"')
    done = desk.gets_it(blocks=blocks)
    assert (done.fetched_bytes, done.reused_bytes, done.retries) == (size, 0, 0)
    assert size == LARGE or len(desk.site.asked) == 1


def test_dandi_etag(desk: Desk) -> None:
    """DANDI's etag is made on the way where it is asked for."""
    desk.offer()
    wanted = Wanted(SIZE, dandi_etag=True)
    expected = digest_file(desk.base / "original", dandi_etag=True).dandi_etag
    assert desk.get(wanted=wanted).digests.dandi_etag == expected


def test_far_source_is_read_in_parallel(desk: Desk) -> None:
    """Where answers take long, more ranges are asked for while the first is still being read."""
    desk.offer(LARGE, delay_s=0.1, bytes_per_s=10e6)
    desk.gets_it()
    assert len(desk.ranges) > 3
    assert len({*desk.ranges}) == len(desk.ranges), "no range is asked for twice"


def test_streams_can_be_limited(desk: Desk) -> None:
    """With one stream allowed, there is one request at a time, far away or not."""
    desk.offer(LARGE, delay_s=0.1)
    desk.gets_it(limits=Limits(streams=1))
    assert desk.ranges == [None]


@pytest.mark.parametrize("size", [SIZE, LARGE])
def test_server_that_ignores_range(desk: Desk, size: int) -> None:
    """200 instead of 206 is taken from its start, by one stream."""
    desk.offer(size, ignores_range=True, delay_s=0.05)
    assert desk.gets_it().fetched_bytes == size
    assert len(desk.site.asked) == 1


@pytest.mark.parametrize("blocks", [True, False])
def test_resets_are_resumed_where_they_came(desk: Desk, blocks: bool) -> None:
    """After each reset the next request begins at the byte that was reached."""
    desk.offer(cut_at=lambda _: 3_000_000)
    done = desk.gets_it(blocks=blocks)
    assert done.retries == SIZE // 3_000_000
    assert done.fetched_bytes == SIZE
    assert desk.ranges[1] == f"bytes=3000000-{SIZE - 1}"


def test_short_body_is_resumed(desk: Desk) -> None:
    """A body that ends before its announced length is resumed as well."""
    desk.offer(short_at=lambda _: 3_000_001)
    assert desk.gets_it().fetched_bytes == SIZE


def test_resets_of_a_server_without_ranges(desk: Desk) -> None:
    """Where it must begin anew each time, what is here passes by, and is not written again."""
    desk.offer(ignores_range=True, cut_at=lambda a: 6_000_000 if a.number < 2 else None)
    done = desk.gets_it()
    assert (done.retries, done.fetched_bytes) == (2, 12_000_000 + SIZE)


def test_endless_resets_end(desk: Desk) -> None:
    """A server that never gets a byte through is given up after a few tries."""
    desk.offer(cut_at=lambda _: 0)
    error = desk.fails()
    assert isinstance(error, SourceError)
    assert len(desk.site.asked) == 5


@pytest.mark.parametrize("size", [3_000_000, SIZE + 1])
def test_size_that_lies(desk: Desk, size: int) -> None:
    """Another length than the one on record is told before a byte is read."""
    desk.offer(claimed_size=size)
    error = desk.fails()
    assert isinstance(error, IntegrityError)
    assert (error.details["expected"], error.details["actual"]) == (SIZE, size)
    assert desk.told == []


@pytest.mark.parametrize("given", [SIZE + 9, BLOCK_BYTES + 9])
def test_unannounced_size_that_lies(desk: Desk, given: int) -> None:
    """Where no length is announced, one that differs shows at the end."""
    desk.offer()
    wanted = desk.wanted(blocks=False)
    desk.site.things["/x"] = Thing(
        desk.content.ljust(given, b"x")[:given], ignores_range=True, length_header=False
    )
    assert isinstance(desk.fails(wanted=wanted), IntegrityError)
    desk.site.things["/x"].content = desk.content
    desk.gets_it()


@pytest.mark.parametrize(
    "range_header", ["", "bytes 1-{last}/{size}", "bytes 0-7/{size}", "items 0-{last}/{size}"]
)
def test_wrong_content_range(desk: Desk, range_header: str) -> None:
    """206 with other bytes than were asked for is refused, not believed."""
    desk.offer(LARGE)
    header = range_header.format(last=2 * BLOCK_BYTES - 1, size=LARGE)
    desk.site.answers["/x"] = lambda _: (206, {"Content-Range": header}, bytes(2 * BLOCK_BYTES))
    error = desk.fails()
    assert isinstance(error, SourceError)
    assert "other bytes than were asked for" in str(error)


def test_encoded_bytes_are_refused(desk: Desk) -> None:
    """A server that compresses against our wish is told apart from one with wrong bytes."""
    desk.offer()
    desk.site.answers["/x"] = lambda _: (200, {"Content-Encoding": "gzip"}, b"x")
    assert "gzip" in str(desk.fails())


def test_page_instead_of_bytes(desk: Desk) -> None:
    """A login page with status 200 differs in length, and is not taken for the file."""
    desk.offer()
    desk.site.answers["/x"] = lambda _: (200, {"Content-Type": "text/html"}, b"<html>Sign in")
    assert isinstance(desk.fails(), IntegrityError)


def test_changing_object_is_started_over_once(desk: Desk) -> None:
    """An ETag that changes mid-way: all anew, nothing of the old bytes, no progress told twice."""
    desk.offer(
        etag=lambda n: '"old"' if n == 0 else '"new"',
        cut_at=lambda asked: 6_000_000 if asked.number == 0 else None,
        spoil=spoiled(5, 1),
    )
    assert desk.gets_it(blocks=False).fetched_bytes == SIZE + 6_000_000
    assert desk.ranges == [None, f"bytes=6000000-{SIZE - 1}", None]
    assert desk.site.asked[1].headers["if-range"] == '"old"'


def test_object_that_keeps_changing(desk: Desk) -> None:
    """One that changes again is given up."""
    desk.offer(etag=lambda n: f'"{n}"', cut_at=lambda _: 6_000_000)
    error = desk.fails(blocks=False)
    assert isinstance(error, SourceError)
    assert "changes" in str(error)


def test_etags_matter_not_where_blocks_are_known(desk: Desk) -> None:
    """Front ends with ETags of their own do no harm: each block is verified."""
    desk.offer(LARGE, etag=lambda n: f'"{n}"', cut_at=lambda _: 6_000_000)
    assert desk.gets_it().fetched_bytes == LARGE


def spoiled(offset: int, times: int) -> Callable[[int, int], list[int]]:
    """Return a fault: one byte is wrong, the first few times that it is sent."""
    left = [times]

    def spoil(start: int, stop: int) -> list[int]:
        if not start <= offset < stop or left[0] <= 0:
            return []
        left[0] -= 1
        return [offset]

    return spoil


def test_corrupt_block_is_fetched_again(desk: Desk) -> None:
    """A block that is wrong twice is right at the third try; the others are not asked for anew."""
    desk.offer(LARGE, spoil=spoiled(3 * BLOCK_BYTES + 7, 2))
    done = desk.gets_it()
    assert done.retries == 2
    assert done.fetched_bytes == LARGE + 2 * BLOCK_BYTES


def test_liar_is_named_and_the_next_source_finishes(desk: Desk) -> None:
    """A block that stays wrong is named; another source brings what is missing, and no more."""
    desk.offer(LARGE, spoil=spoiled(3 * BLOCK_BYTES + 7, 99), etag=lambda _: '"theirs"')
    error = desk.fails(source="liar", limits=Limits(streams=1))
    assert isinstance(error, IntegrityError)
    assert error.details["source"] == "liar"
    assert error.details["blocks"] == [3]
    assert "block 3" in str(error)
    honest = desk.offer(LARGE, etag=lambda _: '"another"')
    done = desk.gets_it(source="honest")
    assert honest.sent_bytes == LARGE - 3 * BLOCK_BYTES
    assert done.reused_bytes == 3 * BLOCK_BYTES
    assert done.fetched_bytes == LARGE - 3 * BLOCK_BYTES


def test_liar_costs_three_blocks(desk: Desk) -> None:
    """A source that has another file altogether is found out at its first block."""
    desk.offer(LARGE)
    wanted = desk.wanted()
    desk.site.things["/x"] = Thing(bytes(LARGE))
    assert isinstance(desk.fails(wanted=wanted, limits=Limits(streams=1)), IntegrityError)
    assert sum(desk.told) <= BLOCK_BYTES


def test_wrong_bytes_without_blocks_are_left_to_the_caller(desk: Desk) -> None:
    """Where only the whole digest is known, it comes with the file, for the caller to compare."""
    desk.offer(spoil=spoiled(1234, 1))
    done = desk.get(blocks=False)
    assert done.digests.sha256 != digest_file(desk.base / "original").sha256


def test_without_blocks_only_the_same_object_is_gone_on_with(desk: Desk) -> None:
    """Another source, or another ETag, means all anew; the same one means going on."""
    for source, etag, reused in (
        ("lab", '"a"', True),
        ("lab", '"b"', False),
        ("other", '"a"', False),
    ):
        desk.offer(etag=lambda _: '"a"', stall_at=lambda _: 5_000_000)
        desk.fails(blocks=False, deadlines=QUICK)
        desk.offer(etag=lambda _, etag=etag: etag)
        done = desk.gets_it(blocks=False, source=source)
        assert done.reused_bytes == (5_000_000 if reused else 0), (source, etag)


def test_nothing_is_gone_on_with_that_cannot_be_told(desk: Desk) -> None:
    """Without blocks and without an ETag an earlier attempt is of no use."""
    desk.offer(stall_at=lambda _: 5_000_000)
    desk.fails(blocks=False, deadlines=QUICK)
    desk.offer()
    assert desk.gets_it(blocks=False).reused_bytes == 0


@pytest.mark.parametrize("at", [0, 3_000_000])
@pytest.mark.parametrize("size", [SIZE, LARGE])
def test_stall_costs_its_deadline_once(desk: Desk, at: int, size: int) -> None:
    """Silence, at once or mid-way, ends with the deadline, however many streams there are."""
    desk.offer(size, stall_at=lambda _: at, delay_s=0.05)
    began = time.monotonic()
    error = desk.fails(deadlines=QUICK)
    assert isinstance(error, SourceTimeoutError)
    assert time.monotonic() - began < 4 * QUICK.read_s, "it is tried up to five times"


def test_one_dead_connection_of_several(desk: Desk) -> None:
    """Where other streams go on, one that stalls is opened anew."""
    desk.offer(
        LARGE, delay_s=0.05, bytes_per_s=4e6, stall_at=lambda a: 9 if a.number == 2 else None
    )
    assert desk.gets_it(deadlines=QUICK).retries == 1


def test_total_deadline(desk: Desk) -> None:
    """A download that flows too slowly ends with its total deadline, and can be gone on with."""
    desk.offer(bytes_per_s=6e6)
    began = time.monotonic()
    error = desk.fails(deadlines=Deadlines(total_s=1))
    assert isinstance(error, SourceTimeoutError)
    assert time.monotonic() - began < SIZE / 6e6
    assert desk.gets_it().reused_bytes > 0


@pytest.mark.parametrize("fault", [{"stall_at": lambda _: 5_000_000}, {"bytes_per_s": 5e6}])
def test_cancelling(desk: Desk, fault: dict[str, Any]) -> None:
    """Who cancels gets the thread back quickly, flowing or stalled."""
    desk.offer(**fault)
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    began = time.monotonic()
    error = desk.fails(cancelled=cancelled, deadlines=Deadlines(read_s=30))
    assert "cancelled" in str(error)
    assert time.monotonic() - began < 5


def test_absent(desk: Desk) -> None:
    """404 is 'absent', asked once."""
    desk.offer()
    wanted = desk.wanted()
    desk.site.things.clear()
    assert isinstance(desk.fails(wanted=wanted), NotRecallableError)
    assert len(desk.site.asked) == 1
    assert list((desk.base / "partials").iterdir()) == []


@pytest.mark.parametrize("status", [401, 403, 410])
def test_expired_url_is_located_anew(desk: Desk, status: int) -> None:
    """A presigned URL that expires mid-way is asked for again, once for all streams."""
    desk.offer(LARGE, delay_s=0.03)
    fresh = desk.site.things["/x"]
    desk.site.answers["/old"] = lambda _: (status, {}, b"expired")
    asked = []

    def locate(again: bool) -> Location:
        asked.append(again)
        return Location(desk.site.url("/x" if again else "/old") + "?signature=sesame")

    remote = HttpRemote(desk.client, locate, deadlines=PATIENT, source="lab")
    assert desk.gets_it(remote=remote).fetched_bytes == fresh.size
    assert asked == [False, True]


def test_refused_for_good(desk: Desk) -> None:
    """403 that a new URL does not mend is told as missing rights."""
    desk.offer()
    desk.site.answers["/x"] = lambda _: (403, {}, b"")
    assert isinstance(desk.fails(), AccessError)
    assert len(desk.site.asked) <= 2


def test_rate_limit_is_honoured(desk: Desk) -> None:
    """429 with a short Retry-After is waited for, a long one is told."""
    desk.offer()
    desk.site.answers["/y"] = lambda _: (429, {"Retry-After": "1"}, b"")
    moments = []
    content = desk.content

    def answer(asked: Any) -> tuple[int, dict[str, str], bytes]:
        moments.append(time.monotonic())
        return (429, {"Retry-After": "1"}, b"") if asked.number == 0 else (200, {}, content)

    desk.site.answers["/x"] = answer
    desk.gets_it()
    assert moments[1] - moments[0] >= 1
    desk.site.answers["/x"] = lambda _: (503, {"Retry-After": "3600"}, b"")
    error = desk.fails()
    assert isinstance(error, SourceRateLimitError)
    assert error.details["retry_after_s"] == 3600


def test_server_errors_are_ridden_out(desk: Desk) -> None:
    """500 twice, and the third request goes on."""
    desk.offer()
    content = desk.content
    desk.site.answers["/x"] = lambda a: (500 if a.number < 2 else 200, {}, content)
    assert desk.gets_it().retries == 2


def test_bandwidth_is_shared(desk: Desk) -> None:
    """Two downloads of one source together keep to its limit."""
    desk.offer(2 * BLOCK_BYTES)
    wanted = desk.wanted()
    began = time.monotonic()

    def get(number: int) -> None:
        download(
            desk.remote("slow"),
            wanted,
            partials=desk.base / "partials",
            key=f"k{number}",
            target=desk.base / f"got{number}",
            deadlines=PATIENT,
            limits=Limits(bandwidth=10e6),
            source="slow",
        )

    threads = [threading.Thread(target=get, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    assert 4 * BLOCK_BYTES / 10e6 - 0.6 < seconds < 4 * BLOCK_BYTES / 10e6 + 6


def test_fsspec_remote(desk: Desk) -> None:
    """Any fsspec URL is downloaded, gone on with by another, and told if it is not there."""
    desk.offer(LARGE, stall_at=lambda _: 5_000_000)
    desk.fails(limits=Limits(streams=1), deadlines=QUICK)

    def by_url(url: str) -> dict[str, Any]:
        remote = FsspecRemote(url, {}, deadlines=PATIENT, source="files")
        return {"source": "files", "remote": remote}

    done = desk.gets_it(**by_url(f"file://{desk.base / 'original'}"))
    assert done.reused_bytes == 5_000_000
    assert desk.gets_it(**by_url(str(desk.base / "original"))).retries == 0
    desk.offer(LARGE)
    desk.gets_it(**by_url(desk.site.url("/x")))
    missing = desk.fails(**by_url(f"file://{desk.base / 'none'}"))
    assert isinstance(missing, NotRecallableError)


def test_fsspec_back_end_that_hangs(desk: Desk) -> None:
    """A back end without deadlines of its own is left alone when it hangs."""
    desk.offer(stall_at=lambda _: 5_000_000)
    remote = FsspecRemote(desk.site.url("/x?s=sesame"), {}, deadlines=QUICK, source="files")
    began = time.monotonic()
    error = desk.fails(remote=remote, deadlines=QUICK)
    assert isinstance(error, SourceTimeoutError)
    assert "sesame" not in str(error)
    assert time.monotonic() - began < 5


def test_discard(desk: Desk) -> None:
    """What an attempt left can be thrown away."""
    desk.offer(stall_at=lambda _: 5_000_000)
    desk.fails(deadlines=QUICK)
    assert (desk.base / "partials" / "k").is_dir()
    discard(desk.base / "partials", "k")
    assert list((desk.base / "partials").iterdir()) == []
