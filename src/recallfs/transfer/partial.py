"""Downloads in progress that outlive their process."""

from __future__ import annotations

from pathlib import Path

ABANDONED_S = 7 * 86400.0
"""How long an unfinished download is kept for somebody to go on with it."""


def sweep(folder: Path, older_than_s: float = ABANDONED_S) -> int:
    """Remove downloads that nobody holds and nobody went on with for so long; return how many."""
    raise NotImplementedError


def discard(folder: Path, key: str) -> None:
    """Forget what was downloaded under a key, unless a process is at it."""
    raise NotImplementedError
