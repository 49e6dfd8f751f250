"""From parts to the whole: what is missing is fetched, and the file goes to the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recallfs.catalog import records
from recallfs.digest.stream import digest_file
from recallfs.errors import IntegrityError
from recallfs.partial.opening import Parts
from recallfs.resolve.caching import is_shared


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
    RecallError
        As `recallfs.partial.reading.PartialFile.complete`.
    """
    entry, cache = parts.entry, parts.cache
    with parts.open() as file:
        file.complete()
        blocks = file.blocks
        if blocks is None or not blocks.is_whole:
            return Completed(None, file.ranges.requests, file.ranges.fetched_bytes)
        share = is_shared(parts.stores, parts.store, entry, cache)
        with cache.lock(entry), cache.staging(0, share=share) as staging:
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
