"""What a caller of a recall wants beside the file, and what it is told in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recallfs.resolve.chain import EVERY_SOURCE, Limits
from recallfs.sources.base import Progress
from recallfs.values import Level


@dataclass(frozen=True)
class Recalled:
    """How a file came to be at its path.

    Parameters
    ----------
    source : str
        ``resident`` if it was there, ``another process`` if somebody else brought it while we
        waited, ``cache`` if it was in the caller's cache, else the name of the source.
    is_cached : bool
        Whether `path` is in the caller's cache, because the caller may not write to the store.
    """

    url: str
    path: Path
    size_bytes: int
    sha256: str
    source: str
    method: str
    seconds: float
    level: str = Level.EXACT.value
    is_cached: bool = False


@dataclass(frozen=True)
class Wish:
    """What a caller wants beside the file itself.

    Parameters
    ----------
    limits : Limits
        Which sources may be asked.
    progress : callable, optional
    announce : callable, optional
        Told in one sentence what is about to be done, each time something is.
    warn : callable, optional
        Told in one sentence of a source that gave wrong bytes; else Python's `warnings` are.
    chain : tuple of str
        Addresses whose recall asked for this one, outermost first.
    runs : tuple of str
        Leases of the runs of recipes that asked for this file.
    """

    limits: Limits = EVERY_SOURCE
    progress: Progress | None = None
    announce: Callable[[str], None] | None = None
    warn: Callable[[str], None] | None = None
    chain: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
