"""One object, downloaded: in parallel where that is faster, verified as it lands, resumable."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from recallfs.digest.stream import StreamDigester
from recallfs.errors import (
    IntegrityError,
    SourceError,
    SourceRateLimitError,
    SourceTimeoutError,
)
from recallfs.transfer.bandwidth import bucket_of
from recallfs.transfer.failures import UNREACHED
from recallfs.transfer.http import back_off_s
from recallfs.transfer.partial import Partial, open_partial
from recallfs.transfer.remote import Remote, Stat, Stream
from recallfs.transfer.spans import Spans
from recallfs.transfer.timing import Deadlines
from recallfs.values import BLOCK_BYTES, Digests

PIECE_BYTES = 1024 * 1024
"""What is read at once; each stream holds so much."""

PROBE_BLOCKS = 2
"""What the first request asks for, if the file is more than twice as long: it tells how far away
the source is, and whether more streams would help."""

FAR_S = 0.01
"""Answers that take longer come from far enough for several streams to be faster."""

SLOW_BYTES_PER_S = 100e6
"""One stream that is faster needs no help: digesting takes its time, too."""

MOST_BLOCKS = 16
"""Longest span of one stream among several."""

TRIES = 5
"""Requests in a row that may fail without a single byte."""

BLOCK_TRIES = 3
"""How often a block may come with wrong bytes from one source."""

MOST_WAIT_S = 60.0
"""Longest wait that a source may ask for in the midst of a download; else it is left alone."""


@dataclass(frozen=True)
class Wanted:
    """What is known of the bytes beforehand.

    Parameters
    ----------
    size_bytes : int
    blocks : bytes
        ``b3b1``, or empty if not known: then a corrupt block is found only at the end.
    dandi_etag : bool
        Whether the digests shall have one.
    """

    size_bytes: int
    blocks: bytes = field(default=b"", repr=False)
    dandi_etag: bool = False


@dataclass(frozen=True)
class Limits:
    """What a download may take.

    Parameters
    ----------
    streams : int
        Ranges read at once, at most.
    bandwidth : float, optional
        Bytes per second, for all downloads of the source in this process.
    """

    streams: int = 4
    bandwidth: float | None = None


@dataclass(frozen=True)
class Downloaded:
    """What a download gave.

    Parameters
    ----------
    path : Path
        The `target`, synced.
    digests : Digests
        Of all bytes. Nobody has compared the sha256 yet.
    fetched_bytes, reused_bytes : int
        How many came now, and how many an earlier attempt had left.
    retries : int
        Requests that had to be repeated.
    """

    path: Path
    digests: Digests
    fetched_bytes: int
    reused_bytes: int
    retries: int


def download(
    remote: Remote,
    wanted: Wanted,
    *,
    partials: Path,
    key: str,
    target: Path,
    deadlines: Deadlines,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
    cancelled: threading.Event | None = None,
    source: str,
) -> Downloaded:
    """Download an object to `target`, going on with what an earlier attempt left.

    Parameters
    ----------
    partials : Path
        Folder for downloads in progress, on the file system of `target`; made if need be, private.
    key : str
        Names the bytes in that folder, such as their sha256. Where `wanted.blocks` is known, what
        one source began another can go on with.
    target : Path
        Appears only when all bytes are there and synced. Must not exist.
    progress : callable, optional
        Called in this thread with the number of bytes since the last call; reused ones count.
    cancelled : threading.Event, optional
        Ends the download soon after it is set; what came is kept.

    Raises
    ------
    NotRecallableError
        The object is not there.
    IntegrityError
        It has another size, or blocks that differ, again after a second and third try:
        ``details['blocks']`` names them. Good blocks are kept for the next source.
    SourceTimeoutError
        Silence for `Deadlines.read_s`, or not done within `Deadlines.total_s`.
    SourceRateLimitError, AccessError
    SourceError
        Cancelled, unreachable, an object that keeps changing; kind ``no-space``.

    Notes
    -----
    Whoever finds that `Downloaded.digests` are wrong has the bytes in `target`: nothing of them is
    left in `partials`.
    """
    meter = Meter(progress)
    limits = limits or Limits()
    partial = open_partial(partials, key, wanted.size_bytes, target.parent)
    end = None if deadlines.total_s is None else time.monotonic() + deadlines.total_s
    is_second = False
    try:
        while True:
            run = _Run(remote, wanted, partial, meter, limits, deadlines, source, cancelled, end)
            try:
                digests, reused_bytes = run.carry_out()
            except _ChangedError:
                partial.start_over()
                meter.owe_all()
                # What an earlier process left may well be out of date; what changes now is not.
                if is_second and not run.is_resumed:
                    raise
                is_second = is_second or not run.is_resumed
            else:
                partial.finish(target)
                return Downloaded(target, digests, meter.fetched_bytes, reused_bytes, meter.retries)
    finally:
        partial.leave()


class Meter:
    """What has come, counted by streams, told by the thread that asked for the download.

    Parameters
    ----------
    progress : callable, optional
        Called by `tell` with the number of bytes that came for the first time since the last call.
    """

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._new_bytes = 0
        self._told_bytes = 0
        self._owed_bytes = 0  # told, and lost since: they are not told again
        self.fetched_bytes = 0
        self.retries = 0

    def count(self, new_bytes: int, fetched_bytes: int) -> None:
        """Count bytes that are here now, and bytes that came over the wire."""
        with self._lock:
            self.fetched_bytes += fetched_bytes
            paid = min(new_bytes, self._owed_bytes)
            self._owed_bytes -= paid
            self._new_bytes += new_bytes - paid

    def count_retry(self) -> None:
        """Count a request that has to be repeated."""
        with self._lock:
            self.retries += 1

    def owe(self, lost_bytes: int) -> None:
        """Say that counted bytes turned out to be of no use."""
        with self._lock:
            self._owed_bytes += lost_bytes

    def owe_all(self) -> None:
        """Say that all counted bytes turned out to be of no use."""
        with self._lock:
            self._owed_bytes = self._told_bytes + self._new_bytes

    def tell(self) -> None:
        """Call `progress` if there is something to tell."""
        with self._lock:
            new_bytes, self._new_bytes = self._new_bytes, 0
            self._told_bytes += new_bytes
        if new_bytes and self._progress is not None:
            self._progress(new_bytes)


class _ChangedError(SourceError):
    """The object is another one than a moment ago."""


class _StoppedError(Exception):
    """The download is over; a stream need not say why it ended."""


class _BadBlockError(Exception):
    """A block has another digest than it should."""


class _Run:
    """One go at a download: streams that fetch, and this thread, which digests what is there."""

    def __init__(
        self,
        remote: Remote,
        wanted: Wanted,
        partial: Partial,
        meter: Meter,
        limits: Limits,
        deadlines: Deadlines,
        source: str,
        cancelled: threading.Event | None,
        end: float | None,
    ) -> None:
        self.remote = remote
        self.wanted = wanted
        self.partial = partial
        self.meter = meter
        self.limits = limits
        self.deadlines = deadlines
        self.source = source
        self.bucket = bucket_of(source, limits.bandwidth) if limits.bandwidth else None
        self.is_resumed = False
        self.stopped = threading.Event()
        self._cancelled = cancelled
        self._end = end
        self._changed = threading.Condition()
        # All below is guarded by `_changed`.
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._planned = 1  # how many streams there are, or are about to be
        self._active = 0  # of them, how many are not done
        self._waiting = 0  # streams that pause before they ask again
        self._heard_at = time.monotonic()
        self._has_heard = False
        self._is_confirmed = False  # whether what is here belongs to what the source has now
        self._validator: str | None = None
        self._wrong: dict[int, int] = {}  # how often each block came with the wrong bytes
        self._probed_s: float | None = None

    # What the thread of the caller does.

    def carry_out(self) -> tuple[Digests, int]:
        """Fetch what is missing; return the digests and how many bytes were here before."""
        here = self._what_is_here()
        self.spans = Spans(self.wanted.size_bytes, here)
        reused_bytes = sum(self.spans.end_of(block) - block * BLOCK_BYTES for block in here)
        self.is_resumed = bool(here)
        self._validator = self.partial.validator if here else None
        self._is_confirmed = bool(self.wanted.blocks) or not self.spans.unclaimed_blocks
        try:
            if self.spans.unclaimed_blocks or not self.wanted.size_bytes:
                self._start_stream()
            return self._digest(reused_bytes), reused_bytes
        finally:
            self.stopped.set()
            for thread in self._threads:
                # One that hangs is left alone: it touches nothing any more, and ends some time.
                thread.join(0.2)

    def _what_is_here(self) -> list[int]:
        if self.wanted.blocks:
            return self.partial.verified(self.wanted.blocks, self._check)
        here = self.partial.here()
        known = self.partial.validator is not None and self.partial.source == self.source
        if here and not known and len(here) < self._count:
            self.partial.start_over()
            return []
        return here

    @property
    def _count(self) -> int:
        return -(-self.wanted.size_bytes // BLOCK_BYTES)

    def _digest(self, reused_bytes: int) -> Digests:
        size_bytes = self.wanted.size_bytes
        descriptor = self.partial.descriptor()
        buffer = memoryview(bytearray(PIECE_BYTES))
        done = 0
        has_told_reused = False
        try:
            with StreamDigester(
                dandi_etag=self.wanted.dandi_etag, size_bytes=size_bytes
            ) as digester:
                while True:
                    with self._changed:
                        if self._is_idle(done):
                            self._changed.wait(0.05)
                        prefix = self.spans.prefix_bytes if self._is_confirmed else 0
                        is_over = prefix == size_bytes and not self._active
                    self._check()
                    if self._is_confirmed and not has_told_reused:
                        has_told_reused = True
                        self.meter.count(reused_bytes, 0)
                    self.meter.tell()
                    # No more at a time than takes a moment, since `_check` must not wait.
                    stop = min(prefix, done + 8 * PIECE_BYTES)
                    while done < stop:
                        length = os.preadv(descriptor, [buffer[: stop - done]], done)
                        if length == 0:
                            raise SourceError(
                                "the download was cut short by another program; try again."
                            )
                        digester.update(buffer[:length])
                        done += length
                    if is_over and done == size_bytes:
                        return digester.finish()
        finally:
            os.close(descriptor)

    def _is_idle(self, done: int) -> bool:
        return self._error is None and not (self._is_confirmed and self.spans.prefix_bytes > done)

    def _check(self) -> None:
        """Raise what ends the download."""
        if self._cancelled is not None and self._cancelled.is_set():
            raise SourceError(
                f"the download from {self.source} was cancelled.",
                details={"source": self.source, "url": self.remote.describe},
            )
        if self._error is not None:
            raise self._error
        now = time.monotonic()
        if self._end is not None and now >= self._end:
            raise SourceTimeoutError(
                f"{self.source} had not sent all after {self.deadlines.total_s:g} s "
                f"({self.remote.describe}).",
                details={"source": self.source, "url": self.remote.describe},
            )
        # HTTP streams notice it themselves, and earlier; other back ends just hang.
        patience_s = self.deadlines.read_s + self.deadlines.connect_s
        if self._active and not self._waiting and now - self._heard_at > patience_s:
            raise self._silence()

    def _silence(self) -> SourceTimeoutError:
        return SourceTimeoutError(
            f"{self.source} fell silent for {self.deadlines.read_s:g} s ({self.remote.describe}).",
            details={"source": self.source, "url": self.remote.describe},
        )

    # What streams do, and have done to them.

    def _start_stream(self) -> None:
        with self._changed:
            descriptor = self.partial.descriptor()
            thread = threading.Thread(
                target=self._stream, args=(descriptor,), name="recallfs-transfer", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                os.close(descriptor)
                if self._threads:
                    return  # fewer will do
                raise SourceError("no thread can be started for a download.") from error
            self._threads.append(thread)
            self._active += 1
            self._heard_at = time.monotonic()

    def _stream(self, descriptor: int) -> None:
        try:
            _Stream(self, descriptor).run()
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller must get it
            with self._changed:
                self._error = self._error or error
            self.stopped.set()
        finally:
            os.close(descriptor)
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def span_blocks(self, bytes_per_s: float | None) -> int | None:
        """Return how many blocks a stream should ask for at once; None for all there are."""
        if not self._may_parallel():
            return None
        if self._probed_s is None:
            return PROBE_BLOCKS
        if self._planned == 1:
            return None
        # A second's worth: what a request costs is small against it, and all end together.
        fair = -(-self.spans.unclaimed_blocks // self._planned)
        second = int((bytes_per_s or 0) // BLOCK_BYTES)
        return max(1, min(fair, second, MOST_BLOCKS))

    def _may_parallel(self) -> bool:
        return (
            self.remote.can_parallel
            and self.limits.streams > 1
            and self.wanted.size_bytes > 2 * PROBE_BLOCKS * BLOCK_BYTES
        )

    def probed(self, waited_s: float, bytes_per_s: float | None) -> None:
        """Decide whether more streams would help, by how the first one fares.

        Parameters
        ----------
        waited_s : float
            From its request to the first byte.
        bytes_per_s : float or None
            None while nothing but `waited_s` is known.
        """
        if not self._may_parallel() or self._planned > 1:
            return
        left_bytes = self.spans.unclaimed_blocks * BLOCK_BYTES
        if bytes_per_s is None:
            is_far = waited_s > FAR_S
            if not is_far:
                return
        else:
            self._probed_s = waited_s
            limit = self.limits.bandwidth
            if limit is not None and bytes_per_s > 0.7 * limit:
                return
            is_far = bytes_per_s < SLOW_BYTES_PER_S and left_bytes / bytes_per_s > 0.25
        if is_far:
            self._probed_s = waited_s
            self._planned = min(self.limits.streams, left_bytes // BLOCK_BYTES + 1)
            for _ in range(self._planned - 1):
                self._start_stream()

    def admit(self, stat: Stat) -> None:
        """Check that what a stream is about to give belongs to what is here and is wanted.

        Raises
        ------
        IntegrityError
            It has another size.
        _ChangedError
        """
        wanted_bytes = self.wanted.size_bytes
        if stat.size_bytes not in (None, wanted_bytes):
            raise self.wrong_size(f"{stat.size_bytes} bytes", stat.size_bytes)
        with self._changed:
            self.heard(0)
            if not self.wanted.blocks:
                is_first = self._validator is None and not self._is_confirmed
                if not is_first and stat.validator != self._validator:
                    raise _ChangedError(
                        f"{self.source} changes {self.remote.describe} while it is downloaded; "
                        "try again later.",
                        details={"source": self.source, "url": self.remote.describe},
                    )
                self._validator = stat.validator
            if wanted_bytes > BLOCK_BYTES:  # else there is nothing to go on with
                self.partial.describe(self.source, stat.validator)
            self._is_confirmed = True

    def wrong_size(self, words: str, actual: int | None) -> IntegrityError:
        """Say that the object is not as long as what is on record."""
        return IntegrityError(
            f"{self.source} has {words} at {self.remote.describe}, on record are "
            f"{self.wanted.size_bytes}.",
            details={
                "source": self.source,
                "url": self.remote.describe,
                "expected": self.wanted.size_bytes,
                "actual": actual,
            },
        )

    @property
    def validator(self) -> str | None:
        """What later answers must have, too."""
        return self._validator

    @property
    def is_alone(self) -> bool:
        """Whether no other stream runs."""
        return self._active < 2

    def heard(self, length_bytes: int) -> None:
        """Note that the source is alive."""
        self._heard_at = time.monotonic()
        self._has_heard = self._has_heard or length_bytes > 0

    def landed(self, block: int) -> None:
        """Note that a block is here, and right as far as that is known."""
        self.partial.mark(block)
        self.spans.done(block)
        with self._changed:
            self._changed.notify_all()

    def blame(self, block: int) -> None:
        """Note that a block came with wrong bytes.

        Raises
        ------
        IntegrityError
            Not for the first time; see `BLOCK_TRIES`.
        """
        with self._changed:
            self._wrong[block] = self._wrong.get(block, 0) + 1
            if self._wrong[block] < BLOCK_TRIES:
                return
            blocks = sorted(b for b, times in self._wrong.items() if times == BLOCK_TRIES)
        raise IntegrityError(
            f"{self.source} has wrong bytes at {self.remote.describe}: block {block} of "
            f"{self._count} (4 MiB each) differs from what is on record, {BLOCK_TRIES} times over.",
            details={"source": self.source, "url": self.remote.describe, "blocks": blocks},
        )

    def pause(self, error: SourceError, tries: int) -> None:
        """Wait before a request is repeated.

        Raises
        ------
        SourceError
            `error`, if there is no point in that.
        """
        if not self._is_worth_it(error, tries):
            raise error
        wait_s = back_off_s(tries, 0.2)
        if isinstance(error, SourceRateLimitError):
            named = error.details.get("retry_after_s")
            wait_s = wait_s if named is None else float(named) + 0.1 * wait_s
            left_s = MOST_WAIT_S if self._end is None else self._end - time.monotonic()
            if wait_s > min(left_s, MOST_WAIT_S):
                raise error
        self.meter.count_retry()
        self.rest(wait_s)

    def _is_worth_it(self, error: SourceError, tries: int) -> bool:
        if error.kind == "no-space" or error.details.get("is_final") or tries >= TRIES:
            return False
        if error.details.get("stage") == UNREACHED and not self._has_heard:
            return False
        if isinstance(error, SourceTimeoutError) and error.details.get("stage") != UNREACHED:
            # Other streams go on: this one's connection is dead. Else it is the source.
            return time.monotonic() - self._heard_at < 0.9 * self.deadlines.read_s
        return True

    def rest(self, seconds: float) -> None:
        """Let a stream do nothing for a while.

        Raises
        ------
        _StoppedError
        """
        with self._changed:
            self._waiting += 1
        try:
            if self.stopped.wait(seconds):
                raise _StoppedError
        finally:
            with self._changed:
                self._waiting -= 1
                self._heard_at = time.monotonic()


class _Stream:
    """One thread's part of a run: span after span, each over as many connections as it takes."""

    def __init__(self, run: _Run, descriptor: int) -> None:
        self._run = run
        self._descriptor = descriptor
        self._buffer = memoryview(bytearray(PIECE_BYTES))
        self._position = 0  # of the next byte to write
        self._stop = 0  # where the span ends
        self._hash = blake3(max_threads=1)  # of the current block, up to the position
        self._came_bytes = 0
        self._bytes_per_s: float | None = None

    def run(self) -> None:
        """Fetch until nothing is unclaimed."""
        if not self._run.wanted.size_bytes:
            self._fetch_span(0, 0)  # whether it is there at all
        while span := self._run.spans.take(self._run.span_blocks(self._bytes_per_s)):
            self._fetch_span(*span)

    def _fetch_span(self, start: int, stop: int) -> None:
        self._position, self._stop = start, stop
        self._hash.reset()
        tries = 0
        is_done = False
        while not is_done:
            begun = self._position
            try:
                self._fetch()
                is_done = True
            except _BadBlockError:
                self._run.meter.count_retry()
            except _ChangedError:
                raise
            except SourceError as error:
                tries = 1 if self._position > begun else tries + 1
                self._run.pause(error, tries)

    def _fetch(self) -> None:
        """Ask once, from the position on, and take what comes."""
        run = self._run
        asked_at = time.monotonic()
        is_whole = self._position == 0 and self._stop == run.wanted.size_bytes
        came = self._came_bytes
        with run.remote.read(
            self._position, None if is_whole else self._stop, validator=run.validator
        ) as stream:
            run.admit(stream.stat)
            waited_s = time.monotonic() - asked_at
            if not stream.stat.accepts_ranges and not is_whole:
                if not run.is_alone:
                    raise SourceError(
                        f"{run.source} no longer gives parts of {run.remote.describe}.",
                        details={"source": run.source, "url": run.remote.describe},
                    )
                # It gives all or nothing: what is here already passes by.
                run.spans.take_rest()
                self._stop = run.wanted.size_bytes
            elif stream.stat.accepts_ranges:
                run.probed(waited_s, None)
            self._pour(stream)
        seconds = max(time.monotonic() - asked_at - waited_s, 1e-6)
        self._bytes_per_s = (self._came_bytes - came) / seconds
        run.probed(waited_s, self._bytes_per_s)

    def _pour(self, stream: Stream) -> None:
        """Take bytes until the span's end; those that are here already pass by."""
        run, buffer = self._run, self._buffer
        size_bytes = run.wanted.size_bytes
        offset = stream.start
        while offset < self._stop:
            block = offset // BLOCK_BYTES
            room = min(run.spans.end_of(block), self._stop) - offset
            length = stream.readinto(buffer[: min(len(buffer), room)])
            if run.stopped.is_set():
                raise _StoppedError
            if length == 0:
                break
            run.heard(length)
            new = max(0, offset + length - max(offset, self._position))
            run.meter.count(new, length)
            self._came_bytes += length
            offset += length
            if new:
                self._land(buffer[length - new : length], block)
            pause_s = 0.0 if run.bucket is None else run.bucket.take(length)
            if pause_s:
                run.rest(pause_s)
        has_no_size = stream.stat.size_bytes is None
        if offset < self._stop:
            if has_no_size and stream.start == 0:
                raise run.wrong_size(f"{offset} bytes", offset)
            raise SourceError(
                f"{run.source} stopped at byte {offset} of {size_bytes} ({run.remote.describe}).",
                details={"source": run.source, "url": run.remote.describe},
            )
        if has_no_size and offset == size_bytes and stream.readinto(buffer[:1]):
            raise run.wrong_size("more bytes", None)

    def _land(self, data: memoryview, block: int) -> None:
        """Write bytes at the position; at a block's end, see whether it is right."""
        run = self._run
        run.partial.write(self._descriptor, data, self._position)
        self._position += len(data)
        digests = run.wanted.blocks
        if digests:
            self._hash.update(data)
        if self._position < run.spans.end_of(block):
            return
        if digests:
            digest = self._hash.digest()
            self._hash.reset()
            if digest != digests[32 * block : 32 * block + 32]:
                start = block * BLOCK_BYTES
                run.meter.owe(self._position - start)
                self._position = start
                run.blame(block)
                raise _BadBlockError
        run.landed(block)
        # In a span that is the next block; where a source gives all or nothing, the next missing.
        self._position = run.spans.next_claimed(block + 1)
