"""The cache as a source: files that were brought before, by their digest."""

from __future__ import annotations

import fcntl
import os
import stat

from recallfs.cache.cache import Cache, Found
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import CacheSettings
from recallfs.digest.stream import StreamDigester, digest_descriptor
from recallfs.errors import NotRecallableError, RecallError, SourceError
from recallfs.sources.base import Fetched, Offer, Request, Source
from recallfs.values import BLOCK_BYTES, Digests

_CLONE = 0x40049409
"""Linux' FICLONE: the copy shares the blocks until either is written to."""


class CacheSource(Source):
    """Files in the caller's own cache and in the one that a computer's users share.

    They are copied, never linked: who writes to the store later must not change the cache. The
    copy is what is hashed, so it does not matter who owns the file or what they do to it.

    Parameters
    ----------
    settings : CacheSettings
    """

    name = "cache"
    kind = "cache"

    def __init__(self, settings: CacheSettings) -> None:
        self.settings = settings

    def offer(self, store: Store, record: Record) -> Offer | None:
        """Offer to copy while there is a file with the digest."""
        for found in Cache(self.settings).candidates(record.entry, record.accepted):
            return Offer(self.name, f"copy from {_whose(found)}")
        return None

    def fetch(self, request: Request) -> Fetched:
        """Copy the first file that turns out to have the bytes, digesting the copy."""
        cache, record = Cache(self.settings), request.record
        unreadable: OSError | None = None
        for found in cache.candidates(record.entry, record.accepted):
            try:
                digests = self._copy(found, request, cache)
            except OSError as error:
                if isinstance(error, RecallError):
                    raise
                unreadable = unreadable or error
                continue
            if digests is not None:
                cache.note_use(found)
                return Fetched(request.scratch / "data", digests, f"from {_whose(found)}")
        if unreadable is not None:
            raise SourceError(
                f"the cache has a file that cannot be copied: {unreadable.strerror} "
                f"({unreadable.filename or request.scratch}).",
                details={"source": self.name},
            )
        raise NotRecallableError("the cache has no file with this digest.")

    def _copy(self, found: Found, request: Request, cache: Cache) -> Digests | None:
        """Copy one file; None if it is not what its name says."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(found.path, "rb", opener=lambda path, _: os.open(path, flags)) as source:
            status = os.fstat(source.fileno())
            # One that was found wrong, and was not touched since, is not read again.
            if not stat.S_ISREG(status.st_mode) or cache.notes.verdict(found.path, status) is False:
                return None
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            copy = os.open(request.scratch / "data", flags, 0o600)
            try:
                digests = _transfer(source.fileno(), copy, request)
            finally:
                os.close(copy)
        if digests.sha256 in request.record.accepted:
            return digests
        cache.notes.write(found.path, status, is_right=False)
        cache.refuse(found)
        return None


def _transfer(source: int, copy: int, request: Request) -> Digests:
    progress = request.progress
    try:
        fcntl.ioctl(copy, _CLONE, source)
    except OSError:
        pass  # another disk, or a file system that shares no blocks
    else:
        return digest_descriptor(copy, progress=progress)
    with StreamDigester() as digester:
        while block := os.read(source, BLOCK_BYTES):
            if request.cancelled.is_set():
                raise SourceError("the copy from the cache was cancelled.")
            view = memoryview(block)
            while view:
                view = view[os.write(copy, view) :]
            digester.update(block)
            if progress is not None:
                progress(len(block))
        return digester.finish()


def _whose(found: Found) -> str:
    return "your cache" if found.is_own else "the shared cache"
