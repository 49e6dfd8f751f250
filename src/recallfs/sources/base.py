"""The contract of a source: somewhere the bytes of an entry may come from."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.values import Digests, InputRef

Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call."""


@dataclass(frozen=True)
class Request:
    """What is wanted of a source.

    Parameters
    ----------
    store : Store
    record : Record
        Of the entry whose bytes are wanted.
    scratch : Path
        Private folder on the store's file system; the source may write below it, and nowhere else.
    inputs : Mapping of str to Path
        Where the files are that `Source.inputs` asked for.
    progress : callable, optional
    cancelled : threading.Event
        Set when the result is no longer wanted; long work ends soon after.
    """

    store: Store
    record: Record
    scratch: Path
    inputs: Mapping[str, Path] = field(default_factory=dict)
    progress: Progress | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Fetched:
    """Bytes that a source brought, not yet believed.

    Parameters
    ----------
    path : Path
        Regular file below the request's scratch folder.
    digests : Digests or None
        Of the bytes as they were written, if the source took them; else the caller hashes the file.
    method : str
        How, for people: ``by digest``, ``by path``, ``direct``, ``graft``.
    """

    path: Path
    digests: Digests | None
    method: str


@dataclass(frozen=True)
class Need:
    """What a fetch takes of the computer it runs on; see `recallfs.resolve.budget`.

    Parameters
    ----------
    kind : {"recompute", "fetch"}
        Which slots it counts against.
    size_bytes : int
        What it may write, in all.
    """

    kind: str
    size_bytes: int


@dataclass(frozen=True)
class Offer:
    """What a source would do, known without asking it."""

    source: str
    what: str
    expected_s: float | None = None


class Source(ABC):
    """Somewhere the bytes of an entry may come from.

    A source answers in one of three ways: it fetches; it raises
    `recallfs.errors.NotRecallableError` ('absent': it has not the bytes, and said so); or it raises
    any other `recallfs.errors.RecallError` ('unavailable', or the bytes are wrong). It never turns
    an outage into 'absent'.
    """

    name: str
    kind: str

    @abstractmethod
    def offer(self, store: Store, record: Record) -> Offer | None:
        """Say what would be asked, without network or heavy work; None if there is no point."""

    def inputs(self, record: Record) -> tuple[InputRef, ...]:
        """Return the files that must be here before it can fetch: most sources need none."""
        return ()

    def need(self, store: Store, record: Record) -> Need | None:
        """Return what a fetch takes of this computer; None for next to nothing."""
        return Need("fetch", record.entry.size_bytes)

    @abstractmethod
    def fetch(self, request: Request) -> Fetched:
        """Bring the bytes into the request's scratch folder.

        Called while a slot is held: it waits for no other recall.

        Raises
        ------
        NotRecallableError
            The source has not the bytes.
        SourceError
            The source could not be asked.
        IntegrityError
            What it has differs from what is on record.
        """
