"""The contract of a source: somewhere the bytes of an entry may come from."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import RemoteSettings
from recallfs.errors import InvalidInputError
from recallfs.values import Copy, Digests, InputRef, Level

if TYPE_CHECKING:
    from recallfs.transfer.remote import Remote

Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call."""


@dataclass(frozen=True)
class Found:
    """A source's answer that it has the bytes.

    Parameters
    ----------
    what : str
        Where and how they were found, for people; holds no secret.
    size_bytes : int, optional
        As the source says.
    expected_s : float, optional
        Seconds that the fetch is expected to take.
    handle : object
        What the source itself needs to fetch them without asking again.
    """

    what: str
    size_bytes: int | None = None
    expected_s: float | None = None
    handle: Any = field(default=None, repr=False, compare=False)


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
    found : Found, optional
        What `Source.look_up` answered; a source that needs it and is given none looks up itself.
    partials : Path, optional
        Private folder on the file system of `scratch` where downloads that were interrupted wait to
        be continued.
    inputs : Mapping of str to Path
        Where the files are that `Source.inputs` asked for.
    progress : callable, optional
    cancelled : threading.Event
        Set when the result is no longer wanted; long work ends soon after.
    """

    store: Store
    record: Record
    scratch: Path
    found: Found | None = None
    partials: Path | None = None
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
    liars : tuple of str
        What the source found to be wrong before, a sentence each.
    others : Mapping of str to Path
        Files of other entries (by id) that came along, not believed either.
    python : Path, optional
        Interpreter that made them, if it is not this process' own.
    level : Level
        Below the exact one the bytes are new, and the source has checked what they hold.
    """

    path: Path
    digests: Digests | None
    method: str
    liars: tuple[str, ...] = ()
    others: Mapping[str, Path] = field(default_factory=dict)
    python: Path | None = None
    level: Level = Level.EXACT


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
    """What a source would do, known without asking it.

    Parameters
    ----------
    is_sure : bool
        Whether there is a reason to think that it has the bytes, beyond that it could have them.
    """

    source: str
    what: str
    expected_s: float | None = None
    is_sure: bool = True


@dataclass(frozen=True)
class Holding:
    """A place where a remote source holds, or may hold, the bytes of an entry.

    Parameters
    ----------
    location : str
        What a `recallfs.values.Copy` is recorded under; holds no secret.
    remote : Remote
        By which they are read.
    content_addressed : bool
        Whether nothing but these very bytes can be there.
    doubt : str
        Why they are no copy of their own; empty if they are. ``it is only linked``.
    """

    location: str
    remote: Remote = field(repr=False)
    content_addressed: bool
    doubt: str = ""


@dataclass(frozen=True)
class Placed:
    """What pushing a file to a source came to.

    Parameters
    ----------
    copy : Copy
        As it is to be recorded: the source was read back.
    is_new : bool
        False if it had the bytes already.
    """

    copy: Copy
    is_new: bool


class Source(ABC):
    """Somewhere the bytes of an entry may come from.

    A source answers in one of three ways: it has the bytes; it raises
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


class RemoteSource(Source):
    """A source that has to be asked first, over a network or something like it.

    What it answers is remembered for a while, and one that is dead is left alone for seconds
    (`recallfs.resolve.inquiry`).

    Parameters
    ----------
    settings : RemoteSettings
    """

    def __init__(self, settings: RemoteSettings) -> None:
        self.settings = settings

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, with all that makes its answers differ: what they are remembered under."""

    @property
    def identity(self) -> str:
        """`place` as a digest: it may hold what is not for everybody's eyes."""
        return hashlib.sha256(f"{self.kind}:{self.place}".encode()).hexdigest()

    @abstractmethod
    def failure_domain(self) -> str:
        """Return what fails together with it."""

    @abstractmethod
    def look_up(self, store: Store, record: Record) -> Found:
        """Ask whether it has an entry's bytes; within the settings' `answer_timeout`.

        Called in a thread of its own; may be abandoned there.

        Raises
        ------
        NotRecallableError
            It has not the bytes; the message says what was asked.
        SourceError
            It could not be asked; the message says why.
        AccessError
            It refused.
        IntegrityError
            What it has differs from what is on record, as can be told without reading it.
        """

    def probe(self) -> None:
        """Ask for something that it does not have; it answers if it is in reach.

        Raises
        ------
        RecallError
            If it could not be asked.
        """

    def copies(self, store: Store, record: Record) -> Sequence[Holding]:
        """Return where it may hold the entry's bytes for good, without asking it."""
        return ()

    def refuse_push(self, store: Store) -> None:
        """Raise if nothing of this store can be pushed to it.

        Raises
        ------
        InvalidInputError
            With the reason.
        """
        raise InvalidInputError(f"{self.name} cannot be pushed to; push to a mirror.")

    def put(
        self, store: Store, record: Record, file: Path, progress: Progress | None = None
    ) -> Placed:
        """Copy a resident file there, and read it back.

        Parameters
        ----------
        progress : callable, optional
            Told of every byte twice: when it is written, and when it is read back.

        Raises
        ------
        InvalidInputError
            As `refuse_push`.
        ConflictError
            Other bytes are at its place there; they are left as they are.
        IntegrityError
            It read back other bytes, or `file` was changed; what was written is gone.
        SourceError, AccessError
            It could not be written to; kind ``no-space`` if it is full.
        """
        self.refuse_push(store)
        raise NotImplementedError
