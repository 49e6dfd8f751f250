"""Asking the remote sources: who has the bytes, each within its deadline, all told in one table.

The sources are asked in their order. One that takes long does not hold up the others: the next is
asked meanwhile, so that with no network at all the wait is that of one deadline, not of all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.errors import NotRecallableError, RecallError, SourceError, SourceTimeoutError
from recallfs.sources.base import Found, RemoteSource, Source
from recallfs.sources.memory import Memory

HEDGE_S = 0.25
"""How long one source may take to answer before the next is asked as well."""

_GRACE_S = 0.25
"""What a source may take beyond its own deadline, to say so itself."""


def answer_key(record: Record) -> str:
    """Return what answers about an entry are remembered under."""
    return f"{record.entry.id}:{record.entry.sha256}"


@dataclass(frozen=True)
class Answer:
    """What a source said about a file.

    Parameters
    ----------
    verdict : {"found", "absent", "unavailable", "wrong", "local"}
        *Wrong*: it has other bytes. *Local*: it needs not be asked.
    what : str
        Where it found them, what was asked, or why it could not be.
    size_bytes, expected_s : optional
        As far as they are known.
    asked_s : float
        How long it took to answer; 0 for what was remembered.
    """

    source: str
    verdict: str
    what: str
    size_bytes: int | None = None
    expected_s: float | None = None
    asked_s: float = 0.0


@dataclass
class _Asked:
    future: Future[Found]
    started: float
    seconds: float = field(default=0.0)


class Inquiry:
    """The look-ups for one file.

    Parameters
    ----------
    sources : sequence of Source
        In the order in which they will be asked.
    memory : Memory
        What they answered lately.
    """

    def __init__(
        self, store: Store, record: Record, sources: Sequence[Source], memory: Memory
    ) -> None:
        self._store = store
        self._record = record
        self._memory = memory
        self._remote = [source for source in sources if isinstance(source, RemoteSource)]
        self._asked: dict[str, _Asked] = {}
        self.key = answer_key(record)

    def answer(self, source: Source) -> Found | None:
        """Return what a source found; None if it needs not be asked.

        Raises
        ------
        NotRecallableError, SourceError, AccessError, IntegrityError
            As `recallfs.sources.base.RemoteSource.look_up`, or as remembered.
        """
        if not isinstance(source, RemoteSource):
            return None
        asked = self._ask(source)
        following = iter(self._remote[self._remote.index(source) + 1 :])
        deadline = asked.started + source.settings.answer_timeout.total_seconds() + _GRACE_S
        try:
            while True:
                left = deadline - time.monotonic()
                try:
                    return asked.future.result(timeout=max(0.0, min(left, HEDGE_S)))
                except FutureTimeoutError as error:
                    if asked.future.done():
                        raise asked.future.exception() or error from None
                if left <= 0:
                    raise self._late(source)
                upcoming = next(following, None)
                if upcoming is not None:
                    self._ask(upcoming)
        finally:
            asked.seconds = time.monotonic() - asked.started

    def answers(self, sources: Sequence[Source]) -> list[Answer]:
        """Return what each of the sources says."""
        for source in self._remote:
            self._ask(source)
        return [self._told(source) for source in sources]

    def _told(self, source: Source) -> Answer:
        try:
            found = self.answer(source)
        except RecallError as error:
            verdict = {
                "not-recallable": "absent",
                "digest-mismatch": "wrong",
            }.get(error.kind, "unavailable")
            return Answer(source.name, verdict, error.message, asked_s=self._seconds(source))
        if found is None:
            offer = source.offer(self._store, self._record)
            expected = offer.expected_s if offer else None
            return Answer(source.name, "local", offer.what if offer else "", expected_s=expected)
        return Answer(
            source.name,
            "found",
            found.what,
            found.size_bytes,
            self.expected_s(source, found),
            self._seconds(source),
        )

    def expected_s(self, source: Source, found: Found) -> float | None:
        """Return how many seconds a fetch is expected to take, by the source's speed of late."""
        if found.expected_s is not None or not isinstance(source, RemoteSource):
            return found.expected_s
        speed = self._memory.speed(source)
        return None if speed is None else self._record.entry.size_bytes / speed

    def _seconds(self, source: Source) -> float:
        asked = self._asked.get(source.name)
        return 0.0 if asked is None else round(asked.seconds, 3)

    def _late(self, source: RemoteSource) -> SourceTimeoutError:
        error = SourceTimeoutError(
            f"{source.name} did not say within "
            f"{source.settings.answer_timeout.total_seconds():g} s whether it has the file.",
            details={"source": source.name},
        )
        self._memory.note(source, self.key, error)
        return error

    def _ask(self, source: RemoteSource) -> _Asked:
        if source.name not in self._asked:
            future: Future[Found] = Future()
            self._asked[source.name] = _Asked(future, time.monotonic())
            try:
                self._memory.check(source, self.key)
            except (NotRecallableError, SourceError) as error:
                future.set_exception(error)
            else:
                # A daemon: one that hangs in a system call must not keep the program from ending.
                threading.Thread(target=self._look_up, args=(source, future), daemon=True).start()
        return self._asked[source.name]

    def _look_up(self, source: RemoteSource, future: Future[Any]) -> None:
        try:
            found = source.look_up(self._store, self._record)
        except RecallError as error:
            self._memory.note(source, self.key, error)
            future.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is awaited
            future.set_exception(error)
        else:
            self._memory.note(source, self.key, None)
            future.set_result(found)
