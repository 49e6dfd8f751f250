"""Which requests fetch the bytes that are wanted: few, and none much larger than need be."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from recallfs.partial.index import Index

FIRST_LATENCY_S = 0.05
FIRST_BYTES_PER_S = 25e6
"""What is assumed of a source before anything was measured."""

_GAP_BYTES = (4 * 1024, 1024 * 1024)
"""Bounds of the gap that is read over rather than asking once more."""

_LONGEST_BYTES = 64 * 1024 * 1024
"""A longer request is cut: what was fetched is verified and kept before the next."""

_PARALLEL_BYTES = 16 * 1024 * 1024
"""A request is cut for several connections only if each has so much to do."""

_SMOOTHING = 0.4


@dataclass(frozen=True)
class Span:
    """One request: bytes `start` to `stop`, and the wanted units among them, ascending."""

    start: int
    stop: int
    units: tuple[int, ...]


class Pace:
    """How far away a source is, and how fast its bytes come, by what was measured.

    Notes
    -----
    For any number of threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.latency_s = FIRST_LATENCY_S
        self.bytes_per_s = FIRST_BYTES_PER_S
        self._is_known = [False, False]

    def note(self, waited_s: float, size_bytes: int, seconds: float) -> None:
        """Take one answer into account: how long it took to begin, and then to come."""
        with self._lock:
            self.latency_s = self._mixed(0, self.latency_s, waited_s)
            if size_bytes >= 256 * 1024 and seconds > 0:
                self.bytes_per_s = self._mixed(1, self.bytes_per_s, size_bytes / seconds)

    @property
    def gap_bytes(self) -> int:
        """How many unwanted bytes take no longer than one more request."""
        low, high = _GAP_BYTES
        return int(min(high, max(low, self.latency_s * self.bytes_per_s)))

    def _mixed(self, which: int, known: float, new: float) -> float:
        if not self._is_known[which]:
            self._is_known[which] = True
            return new
        return (1 - _SMOOTHING) * known + _SMOOTHING * new


def plan_requests(
    index: Index, units: Sequence[int], gap_bytes: int, streams: int = 1
) -> list[Span]:
    """Join units into requests. Pure: the same units give the same requests.

    Parameters
    ----------
    units : sequence of int
        Ascending.
    gap_bytes : int
        Gaps of at most so many bytes are read over, as long as all that is read over in a request
        is no more than what is wanted of it.
    streams : int
        Into how many requests long ones are cut at least.
    """
    total = sum(index.stop_of(unit) - index.start_of(unit) for unit in units)
    share = max(_PARALLEL_BYTES, -(-total // max(1, streams)))
    most = min(_LONGEST_BYTES, share)
    spans: list[Span] = []
    run: list[int] = []
    start = stop = wanted = 0
    for unit in units:
        begin, end = index.start_of(unit), index.stop_of(unit)
        read_over = begin - start - wanted
        if run and begin - stop <= gap_bytes and read_over <= wanted and end - start <= most:
            run.append(unit)
        else:
            if run:
                spans.append(Span(start, stop, tuple(run)))
            run, start, wanted = [unit], begin, 0
        stop = end
        wanted += end - begin
    if run:
        spans.append(Span(start, stop, tuple(run)))
    return spans


class Ahead:
    """How far to read ahead: the further, the longer the reads follow one another."""

    def __init__(self, most_bytes: int = 8 * 1024 * 1024) -> None:
        self._most_bytes = most_bytes
        self._next = -1
        self._bytes = 0

    def after(self, first: int, last: int, size_bytes: int) -> int:
        """Tell how many more bytes to fetch with units `first` to `last` (their numbers).

        Parameters
        ----------
        size_bytes : int
            Of these units.
        """
        is_next = first == self._next
        self._bytes = min(self._most_bytes, max(2 * self._bytes, size_bytes)) if is_next else 0
        self._next = last + 1
        return self._bytes

    def went(self, last: int) -> None:
        """Take note of what was fetched ahead."""
        self._next = last + 1
