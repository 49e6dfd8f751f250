"""Objects somewhere else that can be read from any byte on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from recallfs.transfer.http import Client
from recallfs.transfer.timing import Deadlines


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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Remote(ABC):
    """One object somewhere, which can be read by range.

    Attributes
    ----------
    source : str
        Name of the source, for messages.
    describe : str
        Where it is; safe to show.
    can_parallel : bool
        Whether several ranges may be read at once.
    """

    source: str
    describe: str
    can_parallel: bool = False

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
        raise NotImplementedError


class FsspecRemote(Remote):
    """An object behind any fsspec URL, read in order.

    Parameters
    ----------
    url : str
    options : Mapping
        For the file system; may hold secrets.
    deadlines : Deadlines
    source : str
    """

    def __init__(
        self, url: str, options: Mapping[str, Any], *, deadlines: Deadlines, source: str
    ) -> None:
        raise NotImplementedError
