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
    SourceRateLimitError,
    SourceTimeoutError,
)
from recallfs.sources.base import Fetched, Found, Offer, RemoteSource, Request
from recallfs.values import BLOCK_BYTES, Digests

_ESCAPING = ("http", "https")
"""Protocols whose paths must be percent-encoded."""


class MirrorSource(RemoteSource):
    """Copies under a URL prefix.

    Parameters
    ----------
    settings : MirrorSettings
        Name, URL and fsspec options.
    """

    kind = "mirror"

    settings: MirrorSettings

    def __init__(self, settings: MirrorSettings) -> None:
        super().__init__(settings)
        self.name = f"mirror:{settings.name}"

    @property
    def protocol(self) -> str:
        """Name of the URL's protocol, as fsspec has it."""
        return urlsplit(_innermost(self.settings.url)).scheme or "file"

    @property
    def place(self) -> str:
        """URL and options."""
        return repr((self.settings.url, sorted(self.settings.options.items())))

    def look_up(self, store: Store, record: Record) -> Found:
        """Ask for the first address under which something lies."""
        for url, how in self.candidates(record):
            try:
                with self._open(url) as remote:
                    return Found(f"{how}, {url}", getattr(remote, "size", None))
            except Exception as error:  # fsspec back ends raise what they like
                mapped = self._mapped(error, url)
                if not isinstance(mapped, NotRecallableError):
                    raise mapped from error
        self._check_folder()
        raise NotRecallableError(f"{self.name} has no copy under {self.settings.url}.")

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
        folder = local_path(self.settings.url)
        if folder is not None:
            return disk_of(folder)
        return f"{self.protocol}:{urlsplit(_innermost(self.settings.url)).hostname or ''}"

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
        self._check_folder()
        raise NotRecallableError(f"{self.name} has no copy under {self.settings.url}.")

    def _check_folder(self) -> None:
        """Tell a folder whose disk is not mounted from one that has not the file."""
        folder = local_path(self.settings.url)
        if folder is not None and not folder.is_dir():
            raise SourceError(
                f"{self.name} is unavailable: its folder {folder} is not there; is its disk "
                "mounted?",
                details={"source": self.name, "url": self.settings.url},
            )

    def probe(self) -> None:
        """Ask for something that the mirror does not have; it answers if it is in reach.

        Raises
        ------
        RecallError
            If it could not be asked.
        """
        self._check_folder()
        url = f"{self.settings.url.rstrip('/')}/sha256/00/00/{'0' * 64}"
        try:
            self._open(url).close()
        except Exception as error:
            mapped = self._mapped(error, url)
            if not isinstance(mapped, NotRecallableError):
                raise mapped from error

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
        if _says_absent(error):
            return NotRecallableError(f"{self.name} has no {url}.")
        # fsspec's HTTP file system calls every failure 'not found'; the cause knows better.
        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        status = _http_status(error)
        if status == 429:
            return SourceRateLimitError(f"{self.name} asks to slow down, for {url}.")
        if status in (401, 403) or isinstance(error, PermissionError):
            return AccessError(f"{self.name} refused access to {url}: {error}.")
        if isinstance(error, TimeoutError):
            return SourceTimeoutError(f"{self.name} did not answer in time for {url}.")
        if isinstance(error, ImportError):
            return SourceError(f"{self.name} needs a package that is not installed: {error}.")
        return SourceError(
            f"{self.name} is unavailable ({type(error).__name__}: {error}) for {url}.",
            details={"source": self.name, "url": url},
        )


def _says_absent(error: Exception) -> bool:
    """Tell a clear 'not there' from an outage that a back end reports in the same words."""
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        return True
    if not isinstance(error, FileNotFoundError):
        return False
    cause = error.__cause__
    # A KeyError is how back ends that keep a table (memory, reference, zip) learn it.
    if cause is None or isinstance(cause, (FileNotFoundError, KeyError)):
        return True
    return _http_status(cause) in (404, 410)


def _http_status(error: BaseException) -> int | None:
    """Return the HTTP status that an exception of a back end carries."""
    response = getattr(error, "response", None)  # botocore's errors hold the answer in a mapping
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    status = getattr(error, "status", None) or metadata.get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def disk_of(path: Path) -> str:
    """Name the disk that a local path is on, whether or not the path exists yet."""
    for place in (path, *path.parents):
        try:
            return f"disk:{place.stat().st_dev}"
        except OSError:
            continue
    return "disk:?"


def local_path(url: str) -> Path | None:
    """Return the real path that a ``file:`` URL names, or None for any other."""
    url = _innermost(url)
    scheme = urlsplit(url).scheme
    if scheme not in ("", "file", "local"):
        return None
    # As fsspec reads it: '#' and '?' are parts of the name, and nothing is percent-encoded.
    path = url.removeprefix(f"{scheme}:") if scheme else url
    return Path(os.path.realpath(f"/{path.lstrip('/')}"))


def _innermost(url: str) -> str:
    """Return where the bytes of a chained URL (``simplecache::file:///data``) lie."""
    return url.rpartition("::")[2]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
