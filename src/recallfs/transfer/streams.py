"""One thread's part of a download: span after span, each over as many requests as it takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blake3 import blake3

from recallfs.errors import SourceError
from recallfs.transfer.remote import Stream
from recallfs.values import BLOCK_BYTES

if TYPE_CHECKING:
    from recallfs.transfer.run import Run

PIECE_BYTES = 1024 * 1024
"""What is read at once; each stream holds so much."""


class ChangedError(SourceError):
    """The object is another one than a moment ago."""


class StoppedError(Exception):
    """The download is over; a stream need not say why it ended."""


class BadBlockError(Exception):
    """A block has another digest than it should."""


class Puller:
    """One thread's part of a run: span after span, each over as many connections as it takes."""

    def __init__(self, run: Run, descriptor: int) -> None:
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
        self._begin_at(start)
        self._stop = stop
        tries = 0
        is_done = False
        while not is_done:
            begun = self._position
            try:
                self._fetch()
                is_done = True
            except BadBlockError:
                self._run.meter.count_retry()
            except ChangedError:
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
                run.answered(waited_s)
            self._pour(stream)
        seconds = max(time.monotonic() - asked_at - waited_s, 1e-6)
        self._bytes_per_s = (self._came_bytes - came) / seconds

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
                raise StoppedError
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
        start = block * BLOCK_BYTES
        is_whole = self._position == run.spans.end_of(block)
        if digests and is_whole and self._hash.digest() != digests[32 * block : 32 * block + 32]:
            run.partial.note(block, 0, run.generation)
            run.meter.owe(self._position - start)
            self._begin_at(start)
            run.blame(block)
            raise BadBlockError
        run.partial.note(block, self._position - start, run.generation)
        if is_whole:
            run.landed(block)
            # In a span the next block; where a source gives all or nothing, the next missing one.
            self._begin_at(run.spans.next_claimed(block + 1))

    def _begin_at(self, position: int) -> None:
        """Go on from the first missing byte of a block."""
        self._position = position
        block, count = divmod(position, BLOCK_BYTES)
        if self._run.wanted.blocks and count:
            self._hash = self._run.partial.hash_of(self._descriptor, block, count)
        else:
            self._hash.reset()
