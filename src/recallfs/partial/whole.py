"""From parts to the whole: what is missing is fetched, and the file goes to the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recallfs.cache.cache import Cache
from recallfs.catalog import records
from recallfs.digest.stream import digest_file
from recallfs.errors import AccessError, IntegrityError, SourceError
from recallfs.partial.blocks import key_of, open_blocks
from recallfs.partial.index import PAGES, of_pages
from recallfs.partial.opening import Parts
from recallfs.resolve.caching import is_shared
from recallfs.resolve.stores import Stores
from recallfs.values import format_size


@dataclass(frozen=True)
class Completed:
    """What became of a file that was fetched whole.

    Parameters
    ----------
    place : Path or None
        Where it is; None if it is not kept: the cache is full, or cannot be written to.
    requests, fetched_bytes : int
    """

    place: Path | None
    requests: int
    fetched_bytes: int


def complete(parts: Parts) -> Completed:
    """Fetch what is missing of a file, and put it into the cache as a whole one.

    Returns
    -------
    Completed

    Raises
    ------
    IntegrityError
        All parts are here, and they are not the file.
    SourceError
        Kind ``no-space``: the cache may not have so much; nothing is fetched.
    RecallError
        As `recallfs.partial.reading.PartialFile.complete`.
    """
    entry, cache = parts.entry, parts.cache
    place = cache.find(entry, parts.record.accepted)
    if place is not None:
        return Completed(place, 0, 0)
    if entry.size_bytes > cache.blocks.limit:
        raise SourceError(
            f"{parts.url} ({format_size(entry.size_bytes)}) is larger than what files in parts may "
            f"take of the cache, {format_size(cache.blocks.limit)}; raise cache.limit.",
            kind="no-space",
            details={"path": entry.path},
        )
    pages = None
    if parts.kind == PAGES and parts.outline is None:
        # All of it is verified in the end, so that its parts need not be.
        pages = open_blocks(cache, key_of("whole", parts.key), of_pages(entry.size_bytes))
    with parts.open(blocks=pages) as file:
        file.complete()
        blocks = file.blocks
        if blocks is None or not blocks.is_whole:
            return Completed(None, file.ranges.requests, file.ranges.fetched_bytes)
        share = is_shared(parts.stores, parts.store, entry, cache)
        with cache.lock(entry), cache.staging(0, share=share) as staging:
            place = cache.find(entry, parts.record.accepted)
            if place is not None:  # another process did it meanwhile
                return Completed(place, file.ranges.requests, file.ranges.fetched_bytes)
            staged = staging / "data"
            blocks.move_to(staged)
            digests = records.with_etag(digest_file(staged), parts.record, staged)
            if not parts.record.accepts(digests):
                expected, actual = parts.record.mismatch(digests)
                raise IntegrityError(
                    f"the parts of {parts.url} make another file: {actual}, on record is "
                    f"{expected}. They are gone; try again.",
                    details={"expected": expected, "actual": actual},
                )
            place = cache.keep(entry, staged, digests.sha256)
    cache.trim()
    return Completed(place, file.ranges.requests, file.ranges.fetched_bytes)


def complete_behind(stores: Stores, words: Sequence[str]) -> Path:
    """Have another process run ``recall warm``; it outlives this one.

    Parameters
    ----------
    words : sequence of str
        What follows ``recall warm``.

    Returns
    -------
    Path
        Of its log.

    Raises
    ------
    AccessError
        The cache cannot be written to.

    Notes
    -----
    It keeps what it fetches in the same place as all who read the file, and nobody fetches
    anything twice.
    """
    folder = Cache(stores.config.cache).folder
    written = folder / "warm.log"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        output = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise AccessError(f"the log {written} cannot be written: {error.strerror}.") from error
    process = subprocess.Popen(
        [sys.executable, "-m", "recallfs", "warm", *words],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    os.close(output)
    process.returncode = 0  # it is not ours to wait for
    return written
