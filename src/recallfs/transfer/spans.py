"""Which blocks of a file are here, which are being fetched, and which to fetch next."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from recallfs.values import BLOCK_BYTES

_MISSING, _CLAIMED, _HERE = b"\0", b"\1", b"\2"


class Spans:
    """The blocks of one file, shared by the streams that fetch them.

    Parameters
    ----------
    size_bytes : int
        Length of the file.
    filled : Mapping of int to int
        How many bytes of a block are here already, from its start on; 0 if not named.

    Notes
    -----
    For any number of threads. All offsets are in bytes. A span begins with the first missing byte
    of a block, and has no other block of which something is here.
    """

    def __init__(self, size_bytes: int, filled: Mapping[int, int]) -> None:
        self.size_bytes = size_bytes
        self._lock = threading.Lock()
        self._states = bytearray(-(-size_bytes // BLOCK_BYTES))
        self._filled: dict[int, int] = {}
        self._prefix = 0  # blocks at the start that are all here
        self._low = 0  # before it, none is missing
        for block, count in filled.items():
            if block * BLOCK_BYTES + count == self.end_of(block):
                self._states[block : block + 1] = _HERE
            else:
                self._filled[block] = count
        self._missing = self._states.count(_MISSING)
        self._advance()

    def end_of(self, block: int) -> int:
        """Return where a block ends."""
        return min((block + 1) * BLOCK_BYTES, self.size_bytes)

    def take(self, most_blocks: int | None = None) -> tuple[int, int] | None:
        """Claim the first blocks that nobody has claimed: where they start and end, or None."""
        with self._lock:
            first = self._states.find(_MISSING, self._low)
            if first < 0:
                return None
            most = len(self._states) - first if most_blocks is None else most_blocks
            run = self._states[first : first + most]
            length = len(run) - len(run.lstrip(_MISSING))
            begun = (block for block in range(first + 1, first + length) if block in self._filled)
            length = next(begun, first + length) - first
            self._states[first : first + length] = _CLAIMED * length
            self._missing -= length
            self._low = first + length
            return self._start_of(first), self.end_of(first + length - 1)

    def take_rest(self) -> None:
        """Claim all that nobody has claimed, wherever it is."""
        with self._lock:
            self._states = self._states.replace(_MISSING, _CLAIMED)
            self._missing, self._low = 0, len(self._states)

    def done(self, block: int) -> None:
        """Say that a block is here."""
        with self._lock:
            self._states[block : block + 1] = _HERE
            self._advance()

    def next_claimed(self, block: int) -> int:
        """Return the first missing byte of claimed blocks from `block` on, or the file's end."""
        with self._lock:
            found = self._states.find(_CLAIMED, block)
            return self.size_bytes if found < 0 else self._start_of(found)

    @property
    def unclaimed_blocks(self) -> int:
        """How many blocks nobody has begun to fetch."""
        return self._missing

    @property
    def prefix_bytes(self) -> int:
        """How many bytes from the file's start on are here."""
        return min(self._prefix * BLOCK_BYTES, self.size_bytes)

    def _start_of(self, block: int) -> int:
        return block * BLOCK_BYTES + self._filled.get(block, 0)

    def _advance(self) -> None:
        rest = self._states.find(_MISSING, self._prefix), self._states.find(_CLAIMED, self._prefix)
        self._prefix = min((each for each in rest if each >= 0), default=len(self._states))
