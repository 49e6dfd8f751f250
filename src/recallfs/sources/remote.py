"""Fetching from remote sources: their candidates in order, downloaded, resumed and verified."""

from __future__ import annotations

import functools
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from recallfs.catalog import records
from recallfs.catalog.sidecar import Record
from recallfs.config import RemoteSettings
from recallfs.errors import (
    AccessError,
    IntegrityError,
    NotRecallableError,
    RecallError,
    SourceError,
    SourceTimeoutError,
)
from recallfs.sources.base import Fetched, RemoteSource, Request
from recallfs.transfer.download import Downloaded, Limits, Wanted, download
from recallfs.transfer.http import Client, Reply
from recallfs.transfer.remote import Remote
from recallfs.transfer.timing import Deadlines
from recallfs.values import Digests


@dataclass(frozen=True)
class Candidate:
    """One place where a source may have an entry's bytes.

    Parameters
    ----------
    remote : Remote
    how : str
        How they are addressed, for people: ``by digest``, ``by path``.
    sha256 : str
        Which of the entry's incarnations lies there, if the address says so; else empty.
    is_same_object : bool
        Whether it is another way to the object of the candidate before it: of no use if the bytes
        of that were wrong.
    """

    remote: Remote
    how: str
    sha256: str = ""
    is_same_object: bool = False


@functools.lru_cache(maxsize=1)
def client() -> Client:
    """Return this process's HTTP client."""
    return Client()


def deadlines_of(settings: RemoteSettings) -> Deadlines:
    """Return how long a source may take, as it is configured."""
    total = settings.total_timeout
    return Deadlines(
        connect_s=settings.connect_timeout.total_seconds(),
        answer_s=settings.answer_timeout.total_seconds(),
        read_s=settings.read_timeout.total_seconds(),
        total_s=None if total is None else total.total_seconds(),
    )


def limits_of(settings: RemoteSettings) -> Limits:
    """Return what downloads from a source may take, as it is configured."""
    bandwidth = settings.bandwidth
    return Limits(settings.streams, None if bandwidth is None else float(bandwidth))


class Questions:
    """The small questions of one look-up, which share the source's deadline for its answer.

    Parameters
    ----------
    settings : RemoteSettings
    source : str
        Who is asked, for messages.
    """

    def __init__(self, settings: RemoteSettings, source: str) -> None:
        self._deadlines = deadlines_of(settings)
        self._end = time.monotonic() + self._deadlines.answer_s
        self._source = source

    @property
    def deadlines(self) -> Deadlines:
        """Deadlines with what is left for the answer.

        Raises
        ------
        SourceTimeoutError
            Nothing is left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise SourceTimeoutError(
                f"{self._source} did not answer within {round(self._deadlines.answer_s, 1):g} s.",
                details={"source": self._source},
            )
        return replace(self._deadlines, answer_s=left)

    def json(
        self,
        method: str,
        url: str,
        *,
        payload: Any = None,
        headers: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
    ) -> Reply:
        """Ask; see `recallfs.transfer.http.Client.json`."""
        return client().json(
            method,
            url,
            payload=payload,
            headers=headers,
            deadlines=self.deadlines,
            source=self._source,
            idempotent=idempotent,
        )


class DownloadingSource(RemoteSource):
    """A remote source whose bytes are read by `recallfs.transfer`.

    `candidates` says what to try, given what `look_up` answered.
    """

    @abstractmethod
    def candidates(self, request: Request) -> Iterable[Candidate]:
        """Return what to try, in order; one after the other is taken as it is needed.

        What `look_up` answered is ``request.found``, if it was asked.
        """

    def fetch(self, request: Request) -> Fetched:
        """Download the first candidate whose bytes are right, going on with what was begun.

        Raises
        ------
        NotRecallableError, SourceError, AccessError, IntegrityError
            The gravest of what the candidates gave: wrong bytes, then an outage, then 'absent'.
        """
        failures: list[RecallError] = []
        candidates = iter(self.candidates(request))
        while True:
            try:
                candidate = next(candidates, None)
                if candidate is None:
                    break
                if candidate.is_same_object and failures and _is_wrong(failures[-1]):
                    continue
                fetched = self._download(candidate, request)
                liars = [error for error in failures if _is_wrong(error)]
                return replace(fetched, liars=tuple(error.message for error in liars))
            except (NotRecallableError, IntegrityError, AccessError, SourceError) as error:
                failures.append(error)
                # Silence once is the source's deadline; the next candidate would double it.
                is_last = isinstance(error, SourceTimeoutError) or error.kind == "no-space"
                if is_last or request.cancelled.is_set():
                    break
        if not failures:
            raise NotRecallableError(f"{self.name} has no copy.", details={"source": self.name})
        raise min(reversed(failures), key=_gravity)

    def _download(self, candidate: Candidate, request: Request) -> Fetched:
        record = request.record
        wanted = _wanted(record, candidate)
        target = request.scratch / "data"
        try:
            done = download(
                candidate.remote,
                wanted,
                partials=request.partials or request.scratch / "partial",
                key=f"{record.entry.id}-{candidate.sha256 or record.entry.sha256 or 'unverified'}",
                target=target,
                deadlines=deadlines_of(self.settings),
                limits=limits_of(self.settings),
                progress=request.progress,
                cancelled=request.cancelled,
                source=self.name,
            )
        except IntegrityError as error:
            place = f"{candidate.how}, {candidate.remote.describe}"
            raise IntegrityError(
                f"{self.name} holds other bytes ({candidate.how}): {error.message}",
                details={**error.details, "source": self.name, "place": place},
            ) from error
        return Fetched(target, _checked(self.name, candidate, record, done), candidate.how)


def _wanted(record: Record, candidate: Candidate) -> Wanted:
    """Say what a candidate's bytes must be, as far as that is known beforehand."""
    entry = record.entry
    sizes = {item.sha256: item.size_bytes for item in record.incarnations}
    # The block digests are those of the original; another incarnation has none.
    is_original = (candidate.sha256 or entry.sha256) == entry.sha256
    is_only = bool(candidate.sha256) or len(record.accepted) <= 1
    return Wanted(
        sizes.get(candidate.sha256, entry.size_bytes),
        blocks=record.blocks if is_original and is_only else b"",
        dandi_etag="-" in record.dandi_etag and not record.accepted,
    )


def _checked(source: str, candidate: Candidate, record: Record, done: Downloaded) -> Digests:
    """Return the digests of what came, if it is what is on record.

    Raises
    ------
    IntegrityError
        What came is gone then: nothing wrong is gone on with.
    """
    digests = records.with_etag(done.digests, record, done.path)
    if record.accepts(digests):
        return digests
    done.path.unlink()
    expected, actual = record.mismatch(digests)
    place = f"{candidate.how}, {candidate.remote.describe}"
    raise IntegrityError(
        f"{source} holds other bytes ({place}): {actual}, on record is {expected}.",
        details={"expected": expected, "actual": actual, "source": source, "place": place},
    )


def _is_wrong(error: RecallError) -> bool:
    return isinstance(error, IntegrityError)


def _gravity(error: RecallError) -> int:
    if _is_wrong(error):
        return 0
    return 2 if isinstance(error, NotRecallableError) else 1
