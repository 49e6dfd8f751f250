"""Objects somewhere else that can be read from any byte on."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from recallfs.errors import (
    AccessError,
    IntegrityError,
    NotRecallableError,
    RecallError,
    SourceError,
    SourceRateLimitError,
    SourceTimeoutError,
)
from recallfs.transfer.addresses import shown
from recallfs.transfer.connections import OutOfTimeError, abandonable
from recallfs.transfer.failures import UNREACHED
from recallfs.transfer.http import Body, Client
from recallfs.transfer.timing import Deadlines

_CONNECTED = ("sftp", "ssh", "ftp", "smb", "arrow_hdfs", "hdfs")
"""Protocols of fsspec that hold one connection, and do not renew it."""


@dataclass(frozen=True)
class Stat:
    """What a remote says of its object.

    Parameters
    ----------
    size_bytes : int or None
        None if it does not say.
    validator : str or None
        Changes when the bytes do: a strong ETag, or the time of the last change with the size.
    accepts_ranges : bool
        Whether reading can begin anywhere.
    """

    size_bytes: int | None
    validator: str | None
    accepts_ranges: bool


class Stream(ABC):
    """Bytes of an object, from `start` on; a context manager.

    Attributes
    ----------
    start : int
        Of the first byte that `readinto` gives. 0 instead of what was asked for means that the
        remote cannot begin anywhere else.
    stat : Stat
        Of the whole object, as far as this answer tells.
    """

    start: int
    stat: Stat

    @abstractmethod
    def readinto(self, buffer: memoryview) -> int:
        """Wait for bytes, at most as many as `buffer` holds; 0 at the end."""

    @abstractmethod
    def close(self) -> None:
        """End it; no error if it has ended."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class Remote(ABC):
    """One object somewhere, which can be read by range.

    Attributes
    ----------
    source : str
        Name of the source, for messages.
    can_parallel : bool
        Whether several ranges may be read at once.
    """

    source: str
    can_parallel: bool = False

    @property
    @abstractmethod
    def describe(self) -> str:
        """Where it is; safe to show."""

    @abstractmethod
    def stat(self) -> Stat:
        """Ask for size and validator, reading no bytes.

        Raises
        ------
        NotRecallableError
            It is not there.
        AccessError, SourceError
        """

    @abstractmethod
    def read(self, start: int, stop: int | None, *, validator: str | None = None) -> Stream:
        """Begin to read bytes `start` to `stop` (not included).

        Parameters
        ----------
        stop : int or None
            None with `start` 0: all of it, in one plain request.
        validator : str, optional
            Of an earlier answer: if the object has changed, it is given whole.

        Raises
        ------
        NotRecallableError
            It is not there.
        AccessError, SourceError
        """


@dataclass(frozen=True)
class Location:
    """Where an object is now: a URL that may be presigned, and headers that may hold secrets."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class HttpRemote(Remote):
    """An object behind a URL that may expire.

    Parameters
    ----------
    client : Client
    locate : callable
        Called with False for where the object is, and with True to find it anew after 401, 403
        or 410. Called in threads of the download, one call at a time.
    deadlines : Deadlines
    source : str
    """

    can_parallel = True

    def __init__(
        self,
        client: Client,
        locate: Callable[[bool], Location],
        *,
        deadlines: Deadlines,
        source: str,
    ) -> None:
        self.source = source
        self._client = client
        self._locate = locate
        self._deadlines = deadlines
        self._lock = threading.Lock()
        self._location: Location | None = None
        self._located = 0  # how often

    @property
    def describe(self) -> str:
        """Where it is; safe to show."""
        return self.source if self._location is None else shown(self._location.url)

    def stat(self) -> Stat:
        """Ask for the first byte: presigned URLs are for GET, and refuse HEAD."""
        with self.read(0, 1) as stream:
            return stream.stat

    def read(self, start: int, stop: int | None, *, validator: str | None = None) -> Stream:
        """Begin to read; a URL that has expired is located anew, once."""
        location, number = self._here()
        expired: RecallError | None = None
        try:
            body = self._open(location, start, stop, validator)
            if body.status != 410:
                return self._stream(body, start, stop)
            body.close()
        except AccessError as error:
            expired = error
        again = self._anew(number)
        if again == location and expired is not None:
            raise expired
        return self._stream(self._open(again, start, stop, validator), start, stop)

    def _here(self) -> tuple[Location, int]:
        with self._lock:
            if self._location is None:
                self._location = self._locate(False)
            return self._location, self._located

    def _anew(self, number: int) -> Location:
        """Locate anew, unless another thread has done so since."""
        with self._lock:
            if self._located == number or self._location is None:
                self._location = self._locate(True)
                self._located += 1
            return self._location

    def _open(
        self, location: Location, start: int, stop: int | None, validator: str | None
    ) -> Body:
        return self._client.open(
            location.url,
            start=start,
            stop=stop,
            headers=location.headers,
            if_range=validator if validator and validator.startswith('"') else None,
            deadlines=self._deadlines,
            source=self.source,
        )

    def _stream(self, body: Body, start: int, stop: int | None) -> Stream:
        try:
            return _HttpStream(body, start, stop, self.source)
        except BaseException:
            body.close()
            raise


class _HttpStream(Stream):
    """An answer to a GET, once its status and Content-Range are found to make sense."""

    def __init__(self, body: Body, start: int, stop: int | None, source: str) -> None:
        self._body = body
        where = shown(body.url)
        details = {"source": source, "url": where, "status": body.status}
        if body.status in (404, 410):
            raise NotRecallableError(f"{source} has no {where}.", details=details)
        ranged = body.headers.get("content-range", "")
        if body.status == 200:
            self.start, size = 0, body.length_bytes
        elif body.status == 416:
            match = re.fullmatch(r"bytes \*/(\d+)", ranged)
            if match is None or (start, int(match[1])) != (0, 0):
                there = f"{match[1]} bytes" if match else "too few bytes"
                raise IntegrityError(
                    f"{source} has {there} at {where}; byte {start} was asked for.",
                    details={**details, "actual": int(match[1]) if match else None},
                )
            self.start, size = 0, 0
        else:
            match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", ranged)
            size = int(match[3]) if match and match[3] != "*" else None
            last = (stop or 0) - 1 if size is None else min(stop or size, size) - 1
            length = last - start + 1
            if (
                match is None
                or (int(match[1]), int(match[2])) != (start, last)
                or body.length_bytes not in (None, length)
            ):
                raise SourceError(
                    f"{source} answered with other bytes than were asked for "
                    f"({ranged[:60] or 'no Content-Range'} for {start}-{last}, {where}).",
                    details={**details, "is_final": True},
                )
            self.start = start
        self.stat = Stat(size, _validator(body.headers, size), body.status == 206)
        self._is_empty = body.status == 416

    def readinto(self, buffer: memoryview) -> int:
        return 0 if self._is_empty else self._body.readinto(buffer)

    def close(self) -> None:
        self._body.close()


def _validator(headers: Mapping[str, str], size_bytes: int | None) -> str | None:
    etag = headers.get("etag", "")
    if etag.startswith('"'):
        return etag
    modified = headers.get("last-modified")
    return None if modified is None else f"{modified}; {size_bytes}"


class FsspecRemote(Remote):
    """An object behind any fsspec URL, read in order.

    Parameters
    ----------
    url : str
    options : Mapping
        For the file system; may hold secrets.
    deadlines : Deadlines
    source : str

    Notes
    -----
    Back ends have no deadlines of their own, or other ones: whoever reads must watch, as
    `recallfs.transfer.download.download` does.
    """

    def __init__(
        self, url: str, options: Mapping[str, Any], *, deadlines: Deadlines, source: str
    ) -> None:
        self.source = source
        self._url = url
        self._options = dict(options)
        self._deadlines = deadlines

    @property
    def describe(self) -> str:
        """Where it is; safe to show."""
        return shown(self._url)

    def stat(self) -> Stat:
        """Open it, and ask the file system; bounded by `Deadlines.answer_s`."""
        try:
            stream = abandonable(lambda: self.read(0, None), self._deadlines.answer_s)
        except OutOfTimeError:
            pass
        else:
            stream.close()
            return stream.stat
        raise SourceTimeoutError(
            f"{self.source} did not answer within {round(self._deadlines.answer_s, 1):g} s "
            f"({self.describe}).",
            details={"source": self.source, "url": self.describe},
        )

    def read(self, start: int, stop: int | None, *, validator: str | None = None) -> Stream:
        """Open it, and go to `start` if the back end can."""
        failure: RecallError
        try:
            return _FsspecStream(self, self._url, self._options, start, stop)
        except Exception as error:  # noqa: BLE001 - back ends raise what they like
            failure = self.mapped(error)
        if type(failure) is not SourceError or not self._forget_connection():
            raise failure
        try:
            return _FsspecStream(self, self._url, self._options, start, stop)
        except Exception as error:  # noqa: BLE001 - back ends raise what they like
            failure = self.mapped(error)
        raise failure

    def _forget_connection(self) -> bool:
        """Let the next attempt connect anew; False if there was no connection to forget.

        fsspec keeps a file system for as long as the process lives, and with it a connection that
        may have ended since.
        """
        if urlsplit(self._url).scheme not in _CONNECTED:
            return False
        import fsspec

        kind = fsspec.get_filesystem_class(urlsplit(self._url).scheme)
        had_any = bool(kind._cache)
        kind.clear_instance_cache()
        return had_any

    def mapped(self, error: Exception) -> RecallError:
        """Say what a back end's exception means; only a clear 'not there' is 'absent'.

        Its text is left out: it may hold what the options hold.
        """
        if isinstance(error, RecallError):
            return error
        details = {"source": self.source, "url": self.describe}
        if _says_absent(error):
            return NotRecallableError(f"{self.source} has no {self.describe}.", details=details)
        # fsspec's HTTP file system calls every failure 'not found'; the cause knows better.
        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        status = _http_status(error)
        if status == 429:
            return SourceRateLimitError(
                f"{self.source} asks to slow down, for {self.describe}.",
                details={**details, "retry_after_s": None},
            )
        if status in (401, 403) or isinstance(error, PermissionError):
            return AccessError(
                f"{self.source} refused access to {self.describe}; check its options.",
                details=details,
            )
        if isinstance(error, TimeoutError):
            return SourceTimeoutError(
                f"{self.source} did not answer in time ({self.describe}).", details=details
            )
        if isinstance(error, ImportError):
            return SourceError(
                f"{self.source} needs a package that is not installed: {error.name or 'unknown'}.",
                details={**details, "stage": UNREACHED},
            )
        words = [type(error).__name__]
        if isinstance(error, OSError) and error.errno:
            words.append(os.strerror(error.errno))
        elif status is not None:
            words.append(f"HTTP {status}")
        return SourceError(
            f"{self.source} is unavailable ({', '.join(words)}; {self.describe}).", details=details
        )


class _FsspecStream(Stream):
    """A file that a back end has opened."""

    def __init__(
        self,
        remote: FsspecRemote,
        url: str,
        options: Mapping[str, Any],
        start: int,
        stop: int | None,
    ) -> None:
        import fsspec

        self._remote = remote
        file_system, path = fsspec.core.url_to_fs(url, **options)
        info = file_system.info(path)
        if info.get("type") == "directory":
            raise IsADirectoryError
        self._file = file_system.open(path, "rb")
        try:
            size = getattr(self._file, "size", None)
            size = info.get("size") if size is None else size
            is_seekable = bool(self._file.seekable())
            self.start = start if is_seekable else 0
            if self.start:
                self._file.seek(start)
        except BaseException:
            self._file.close()
            raise
        self._left = None if stop is None else stop - self.start
        self.stat = Stat(size, _validator_of(info, size), is_seekable)

    def readinto(self, buffer: memoryview) -> int:
        wanted = len(buffer) if self._left is None else min(len(buffer), self._left)
        if wanted == 0:
            return 0
        failure: RecallError
        try:
            piece = self._file.read(wanted)
        except Exception as error:  # noqa: BLE001 - back ends raise what they like
            failure = self._remote.mapped(error)
        else:
            buffer[: len(piece)] = piece
            if self._left is not None:
                self._left -= len(piece)
            return len(piece)
        raise failure

    def close(self) -> None:
        # What a back end says at the end of a read matters to nobody.
        with contextlib.suppress(Exception):
            self._file.close()


def _validator_of(info: Mapping[str, Any], size_bytes: int | None) -> str | None:
    """Return what changes when an object does, by the words that back ends have for it."""
    etag = info.get("ETag", info.get("etag"))
    if isinstance(etag, str) and etag and not etag.startswith("W/"):
        return etag
    for word in ("mtime", "LastModified", "last_modified", "updated", "modified"):
        if info.get(word) is not None:
            return f"{info[word]}; {size_bytes}"
    return None


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
