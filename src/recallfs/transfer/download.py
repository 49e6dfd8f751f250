"""One object, downloaded: in parallel where that is faster, verified as it lands, resumable."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from recallfs.transfer.remote import Remote
from recallfs.transfer.timing import Deadlines
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
    raise NotImplementedError
