"""Mirrors: any fsspec URL prefix that holds copies, by digest or by path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import MirrorSettings
from recallfs.digest.stream import StreamDigester
from recallfs.errors import (
    AccessError,
    IntegrityError,
    NotRecallableError,
    RecallError,
    SourceError,
    SourceTimeoutError,
)
from recallfs.sources.base import Fetched, Offer, Request, Source
from recallfs.values import BLOCK_BYTES, Digests

_ESCAPING = ("http", "https")
"""Protocols whose paths must be percent-encoded."""


class MirrorSource(Source):
    """Copies under a URL prefix.

    Parameters
    ----------
    settings : MirrorSettings
        Name, URL and fsspec options.
    """

    kind = "mirror"

    def __init__(self, settings: MirrorSettings) -> None:
        self.settings = settings
        self.name = f"mirror:{settings.name}"

    @property
    def protocol(self) -> str:
        """Name of the URL's protocol, as fsspec has it."""
        return urlsplit(self.settings.url).scheme or "file"

    def candidates(self, record: Record) -> list[tuple[str, str]]:
        """Return the URLs where an entry may lie, and how each is addressed."""
        prefix = self.settings.url.rstrip("/")
        path = record.entry.path
        if self.protocol in _ESCAPING:
            path = quote(path)
        by_digest = [
            (f"{prefix}/sha256/{sha256[:2]}/{sha256[2:4]}/{sha256}", "by digest")
            for sha256 in sorted(record.accepted)
        ]
        return [*by_digest, (f"{prefix}/{path}", "by path")]

    def failure_domain(self) -> str:
        """Return what fails together with this mirror."""
        if self.settings.failure_domain:
            return self.settings.failure_domain
        parts = urlsplit(self.settings.url)
        if self.protocol in ("file", "local"):
            return disk_of(Path(parts.path))
        return f"{self.protocol}:{parts.hostname or ''}"

    def offer(self, store: Store, record: Record) -> Offer | None:
        """Offer to look under both addresses."""
        return Offer(self.name, f"look under {self.settings.url} by digest, then by path")

    def fetch(self, request: Request) -> Fetched:
        """Copy the first candidate that is there, digesting as it streams."""
        wrong: IntegrityError | None = None
        for url, how in self.candidates(request.record):
            try:
                return self._copy(url, how, request)
            except NotRecallableError:
                continue
            except IntegrityError as error:
                wrong = wrong or error
        if wrong is not None:
            raise wrong
        raise NotRecallableError(f"{self.name} has no copy under {self.settings.url}.")

    def digest_of(self, url: str) -> Digests:
        """Read a copy whole and digest it, keeping nothing.

        Raises
        ------
        RecallError
            If it is not there or cannot be read.
        """
        try:
            with self._open(url) as remote, StreamDigester() as digester:
                while block := remote.read(BLOCK_BYTES):
                    digester.update(block)
                return digester.finish()
        except RecallError:
            raise
        except Exception as error:  # fsspec back ends raise what they like
            raise self._mapped(error, url) from error

    def _copy(self, url: str, how: str, request: Request) -> Fetched:
        entry = request.record.entry
        staged = request.scratch / "data"
        try:
            with self._open(url) as remote, StreamDigester() as digester:
                size = getattr(remote, "size", None)
                if size is not None and size != entry.size_bytes:
                    raise self._mismatch(url, f"{size} bytes", f"{entry.size_bytes} bytes", how)
                with open(staged, "wb", opener=_private) as local:
                    while block := remote.read(BLOCK_BYTES):
                        if request.cancelled.is_set():
                            raise SourceError("the download was cancelled.")
                        local.write(block)
                        digester.update(block)
                        if request.progress is not None:
                            request.progress(len(block))
                digests = digester.finish()
        except RecallError:
            raise
        except Exception as error:  # fsspec back ends raise what they like
            raise self._mapped(error, url) from error
        if digests.sha256 not in request.record.accepted:
            raise self._mismatch(url, f"sha256 {digests.sha256}", f"sha256 {entry.sha256}", how)
        return Fetched(staged, digests, how)

    def _open(self, url: str) -> Any:
        import fsspec

        return fsspec.open(url, "rb", **dict(self.settings.options)).open()

    def _mismatch(self, url: str, actual: str, expected: str, how: str) -> IntegrityError:
        return IntegrityError(
            f"{self.name} holds other bytes ({how}, {url}): {actual}, on record are {expected}.",
            details={"expected": expected, "actual": actual, "url": url, "source": self.name},
        )

    def _mapped(self, error: Exception, url: str) -> RecallError:
        """Say what a back end's exception means; only a clear 'not there' is 'absent'."""
        if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
            return NotRecallableError(f"{self.name} has no {url}.")
        if isinstance(error, PermissionError):
            return AccessError(f"{self.name} refused access to {url}: {error}.")
        if isinstance(error, TimeoutError):
            return SourceTimeoutError(f"{self.name} did not answer in time for {url}.")
        if isinstance(error, ImportError):
            return SourceError(f"{self.name} needs a package that is not installed: {error}.")
        return SourceError(
            f"{self.name} is unavailable ({type(error).__name__}: {error}) for {url}.",
            details={"source": self.name, "url": url},
        )


def disk_of(path: Path) -> str:
    """Name the disk that a local path is on, whether or not the path exists yet."""
    for place in (path, *path.parents):
        try:
            return f"disk:{place.stat().st_dev}"
        except OSError:
            continue
    return "disk:?"


def local_folder(settings: MirrorSettings) -> Path | None:
    """Return the real folder of a ``file:`` mirror, or None for any other."""
    parts = urlsplit(settings.url)
    if parts.scheme not in ("", "file", "local"):
        return None
    return Path(os.path.realpath(parts.path))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
