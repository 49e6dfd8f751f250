"""What a download is to bring, what it may take, and what it gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from recallfs.values import Digests


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
