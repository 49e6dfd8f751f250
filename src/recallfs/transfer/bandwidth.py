"""A limit on bytes per second that all downloads of a source share."""

from __future__ import annotations

import os
import threading
import time

BURST_S = 0.25
"""What may be taken at once after a pause, in seconds of the allowed rate."""


class Bucket:
    """Room for so many bytes per second, for any number of threads.

    Parameters
    ----------
    bytes_per_s : float
        Above 0.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def take(self, length_bytes: int) -> float:
        """Take room for bytes that have come, and return for how many seconds to pause then."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - BURST_S) + length_bytes / self.bytes_per_s
            return max(0.0, self._free_at - now)


_lock = threading.Lock()
_buckets: dict[str, Bucket] = {}


def bucket_of(source: str, bytes_per_s: float) -> Bucket:
    """Return the bucket that this process' downloads of a source share; the last rate counts."""
    with _lock:
        bucket = _buckets.get(source)
        if bucket is None or bucket.bytes_per_s != bytes_per_s:
            bucket = _buckets[source] = Bucket(bytes_per_s)
        return bucket


def _forget() -> None:
    """Start anew in a forked child: a thread of the parent may have held a lock."""
    global _lock  # noqa: PLW0603 - see above
    _lock = threading.Lock()
    _buckets.clear()


os.register_at_fork(after_in_child=_forget)
