"""One go at a download: streams fetch, the thread that asked for it digests what has landed."""

from __future__ import annotations

import functools
import os
import threading
import time

from recallfs.digest.stream import StreamDigester
from recallfs.errors import IntegrityError, SourceError, SourceRateLimitError, SourceTimeoutError
from recallfs.transfer.bandwidth import bucket_of
from recallfs.transfer.failures import UNREACHED
from recallfs.transfer.http import back_off_s
from recallfs.transfer.meter import Meter
from recallfs.transfer.partial import Partial
from recallfs.transfer.remote import Remote, Stat
from recallfs.transfer.spans import Spans
from recallfs.transfer.streams import PIECE_BYTES, ChangedError, Puller, StoppedError
from recallfs.transfer.terms import Limits, Wanted
from recallfs.transfer.timing import Deadlines
from recallfs.values import BLOCK_BYTES, Digests

PROBE_BLOCKS = 2
"""What the first request asks for, if the file is more than twice as long: it tells how far away
the source is."""

FAR_S = 0.02
"""A first answer that takes longer comes from far enough for several streams to be faster."""

MOST_BLOCKS = 16
"""Longest span of one stream among several."""

TRIES = 5
"""Requests in a row that may fail without a single byte."""

BLOCK_TRIES = 3
"""How often a block may come with wrong bytes from one source."""

PATIENCE_S = 0.2
"""How long streams are waited for when a download has failed."""

MOST_WAIT_S = 60.0
"""Longest wait that a source may ask for in the midst of a download; else it is left alone."""


class Run:
    """One go at a download: streams that fetch, and this thread, which digests what is there."""

    def __init__(
        self,
        remote: Remote,
        wanted: Wanted,
        partial: Partial,
        meter: Meter,
        *,
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
        self._is_admitted = False  # whether there was an answer that fits
        self._validator: str | None = None
        self._wrong: dict[int, int] = {}  # how often each block came with the wrong bytes
        self._has_answer = False

    # What the thread of the caller does.

    def carry_out(self) -> tuple[Digests, int]:
        """Fetch what is missing; return the digests and how many bytes were here before."""
        here = self._what_is_here()
        self.generation = self.partial.generation
        self.spans = Spans(self.wanted.size_bytes, here)
        reused_bytes = sum(here.values())
        self.is_resumed = bool(here)
        # What another source calls its object means nothing to this one: asked 'if it is still
        # that', it would send everything.
        is_own = self.partial.source == self.source
        self._validator = self.partial.validator if here and is_own else None
        # Of an empty file nothing is missing, and yet nothing was seen of it before.
        is_whole = bool(here) and not self.spans.unclaimed_blocks
        self._is_confirmed = bool(self.wanted.blocks) or is_whole
        try:
            if self.spans.unclaimed_blocks or not self.wanted.size_bytes:
                self._start_stream()
            return self._digest(reused_bytes), reused_bytes
        finally:
            self.stopped.set()
            patience = time.monotonic() + PATIENCE_S
            for thread in self._threads:
                # One that hangs is left alone: it touches nothing any more, and ends some time.
                thread.join(max(0.0, patience - time.monotonic()))

    def _what_is_here(self) -> dict[int, int]:
        if self.wanted.blocks:
            return self.partial.verified(self.wanted.blocks, self._check)
        here = self.partial.filled()
        known = self.partial.validator is not None and self.partial.source == self.source
        if here and not known:
            self.partial.start_over()
            return {}
        return here

    @property
    def _count(self) -> int:
        return -(-self.wanted.size_bytes // BLOCK_BYTES)

    def _digest(self, reused_bytes: int) -> Digests:
        size_bytes = self.wanted.size_bytes
        descriptor = self.partial.descriptor()
        done = 0
        has_told_reused = False
        try:
            with StreamDigester(
                dandi_etag=self.wanted.dandi_etag,
                size_bytes=size_bytes,
                blocks=self.wanted.blocks or None,
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
                        length = digester.take(
                            functools.partial(_read, descriptor, done, stop - done)
                        )
                        if length == 0:
                            raise SourceError(
                                "the download was cut short by another program; try again."
                            )
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
            Puller(self, descriptor).run()
        except StoppedError:
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
        if not self._has_answer:
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

    def answered(self, waited_s: float) -> None:
        """Start more streams if the first answer came from afar: only there are they faster."""
        if self._has_answer or not self._may_parallel():
            return
        self._has_answer = True
        if waited_s > FAR_S:
            self._planned = min(self.limits.streams, self.spans.unclaimed_blocks + 1)
            for _ in range(self._planned - 1):
                self._start_stream()

    def admit(self, stat: Stat) -> None:
        """Check that what a stream is about to give belongs to what is here and is wanted.

        Raises
        ------
        IntegrityError
            It has another size.
        ChangedError
        """
        wanted_bytes = self.wanted.size_bytes
        if stat.size_bytes not in (None, wanted_bytes):
            raise self.wrong_size(f"{stat.size_bytes} bytes", stat.size_bytes)
        with self._changed:
            if self.stopped.is_set():
                raise StoppedError
            self.heard(0)
            if not self.wanted.blocks:
                is_known = self._validator is not None or self._is_admitted
                if is_known and stat.validator != self._validator:
                    raise ChangedError(
                        f"{self.source} changes {self.remote.describe} while it is downloaded; "
                        "try again later.",
                        details={"source": self.source, "url": self.remote.describe},
                    )
                self._validator = stat.validator
            if wanted_bytes > BLOCK_BYTES:  # else there is nothing to go on with
                self.partial.describe(self.source, stat.validator)
            self._is_admitted = self._is_confirmed = True

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
        StoppedError
        """
        with self._changed:
            self._waiting += 1
        try:
            if self.stopped.wait(seconds):
                raise StoppedError
        finally:
            with self._changed:
                self._waiting -= 1
                self._heard_at = time.monotonic()


def _read(descriptor: int, start: int, most: int, buffer: memoryview) -> int:
    return os.preadv(descriptor, [buffer[:most]], start)
