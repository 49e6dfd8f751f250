"""What has come of a download, counted by its streams and told by the thread that asked for it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Meter:
    """Counts for any number of threads; bytes that have to come twice are told once.

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
