"""One object, downloaded: in parallel where that is faster, verified as it lands, resumable."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from recallfs.transfer.meter import Meter
from recallfs.transfer.partial import discard, open_partial, sweep
from recallfs.transfer.remote import Remote
from recallfs.transfer.run import Run
from recallfs.transfer.streams import ChangedError
from recallfs.transfer.terms import Downloaded, Limits, Wanted
from recallfs.transfer.timing import Deadlines

__all__ = ["Downloaded", "Limits", "Wanted", "discard", "download", "sweep"]


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
    meter = Meter(progress)
    limits = limits or Limits()
    partial = open_partial(partials, key, wanted.size_bytes, target.parent)
    end = None if deadlines.total_s is None else time.monotonic() + deadlines.total_s
    is_second = False
    try:
        while True:
            run = Run(
                remote,
                wanted,
                partial,
                meter,
                limits=limits,
                deadlines=deadlines,
                source=source,
                cancelled=cancelled,
                end=end,
            )
            try:
                digests, reused_bytes = run.carry_out()
            except ChangedError:
                partial.start_over()
                meter.owe_all()
                # What an earlier process left may well be out of date; what changes now is not.
                if is_second and not run.is_resumed:
                    raise
                is_second = is_second or not run.is_resumed
            else:
                partial.finish(target)
                return Downloaded(target, digests, meter.fetched_bytes, reused_bytes, meter.retries)
    finally:
        partial.leave()
