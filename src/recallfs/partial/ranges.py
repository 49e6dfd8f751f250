"""Byte ranges of one file from whoever has it: the next source where one fails or lies."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.errors import (
    AccessError,
    IntegrityError,
    NotRecallableError,
    RecallError,
    SourceError,
)
from recallfs.partial.index import Index
from recallfs.partial.prefetch import Pace, Span, plan_requests
from recallfs.resolve.answers import all_failed
from recallfs.resolve.inquiry import answer_key
from recallfs.resolve.stores import Stores
from recallfs.sources.base import Request, Source
from recallfs.sources.remote import Candidate, DownloadingSource
from recallfs.transfer.failures import UNREACHED
from recallfs.transfer.http import back_off_s
from recallfs.transfer.remote import Stream

Landed = Callable[[int, memoryview], bool]
"""Called with a unit and its bytes; tells whether they are right."""

_TRIES, _TRIES_ALONE = 4, 8
"""How often a request that breaks off is taken up again: until others are asked, and, where there
are none, for some ten seconds."""

_PAUSE_S = 0.1
_PIECE_BYTES = 1024 * 1024


class WholeOnlyError(SourceError):
    """A source has the file, and gives no parts of it."""


@dataclass
class _Place:
    """Somewhere the bytes may be."""

    source: DownloadingSource
    candidate: Candidate
    pace: Pace = field(default_factory=Pace)
    lies: int = 0
    is_absent: bool = False
    is_doubted: bool = True


class Ranges:
    """Reads ranges of one file.

    Parameters
    ----------
    sources : sequence of Source
        In the order in which they are asked.
    size_bytes : int
        Of the file; an object of another size is not it.
    is_pinned : bool
        Whether nothing but the object's ETag tells that it is still the same.
    validator : str, optional
        What that ETag must be; by default what the first answer says.

    Notes
    -----
    For any number of threads. No source is asked before something is to be read, and none whether
    it has the file: what it answers to the read itself says so.
    """

    def __init__(
        self,
        stores: Stores,
        store: Store,
        record: Record,
        sources: Sequence[Source],
        *,
        size_bytes: int,
        is_pinned: bool = False,
        validator: str | None = None,
    ) -> None:
        self._stores = stores
        self._store = store
        self._record = record
        self._sources = [one for one in sources if isinstance(one, DownloadingSource)]
        self._size_bytes = size_bytes
        self.validator = validator
        self._is_pinned = is_pinned
        self._lock = threading.Lock()
        self._known: dict[str, list[_Place]] = {}
        self.requests = 0
        self.fetched_bytes = 0
        self.has_whole_only = False
        self.from_source = ""

    def fetch(self, index: Index, units: Sequence[int], landed: Landed) -> None:
        """Fetch units, each given to `landed` as it comes; ascending within a request.

        Raises
        ------
        IntegrityError
            A unit is wrong wherever it is; it is named.
        SourceError, AccessError, NotRecallableError
            As said by the sources; ``details['answers']`` holds what each one said.
        """
        answers: dict[str, RecallError] = {}
        left = set(units)

        def land(unit: int, data: memoryview) -> bool:
            is_right = landed(unit, data)
            if is_right:
                left.discard(unit)
            return is_right

        for place in self._places(answers):
            spans = plan_requests(
                index, sorted(left), place.pace.gap_bytes, place.source.settings.streams
            )
            wrong: list[int] = []
            failure = self._ask(place, index, spans, land, wrong)
            if not left:
                return
            if wrong:
                place.lies += 1
                failure = self._wrong(index, min(wrong), place)
            known = answers.get(place.source.name)
            if failure is not None and not (known and isinstance(failure, NotRecallableError)):
                answers[place.source.name] = failure
        raise all_failed(self._store, self._record.entry, answers)

    def _ask(
        self,
        place: _Place,
        index: Index,
        spans: Sequence[Span],
        land: Landed,
        wrong: list[int],
    ) -> RecallError | None:
        """Send requests; return why some came to nothing."""

        def task(span: Span) -> Callable[[], None]:
            return lambda: wrong.extend(self._read_span(place, index, span, land))

        memory, key = self._stores.memory, answer_key(self._record)
        try:
            _in_parallel([task(span) for span in spans], place.source.settings.streams)
        except NotRecallableError as error:
            place.is_absent = True
            return error
        except (AccessError, SourceError, IntegrityError) as error:
            if isinstance(error, WholeOnlyError):
                self.has_whole_only = self.has_whole_only or not self._is_pinned
            elif isinstance(error, SourceError):
                memory.note(place.source, key, error)
                place.is_doubted = True
            return error
        if place.is_doubted:  # others are not to wait for what is over
            memory.note(place.source, key, None)
            place.is_doubted = False
        if place.lies == 0:
            self.from_source = place.source.name
        return None

    def _places(self, answers: dict[str, RecallError]) -> Iterator[_Place]:
        """Iterate over where to ask: those first that never lied and are known to answer."""
        yielded: list[_Place] = []
        for source in self._sources:
            for place in self._places_of(source, answers):
                if place.lies:
                    yielded.append(place)
                elif not place.is_absent:
                    yield place
        yield from yielded

    def _places_of(
        self, source: DownloadingSource, answers: dict[str, RecallError]
    ) -> Iterator[_Place]:
        known = self._known.get(source.name)
        if known is None:
            try:
                self._stores.memory.check(source, answer_key(self._record))
                request = Request(self._store, self._record, Path(os.devnull))
                known = [_Place(source, one) for one in source.candidates(request)]
            except (NotRecallableError, AccessError, SourceError, IntegrityError) as error:
                if not error.details.get("remembered"):
                    self._stores.memory.note(source, answer_key(self._record), error)
                answers[source.name] = error
                return
            with self._lock:
                known = self._known.setdefault(source.name, known)
        if not known or all(place.is_absent for place in known):
            answers.setdefault(
                source.name,
                NotRecallableError(f"{source.name} has no copy.", details={"source": source.name}),
            )
        yield from known

    def _read_span(self, place: _Place, index: Index, span: Span, land: Landed) -> list[int]:
        """Read one span, asking again where it is cut off; return the units that are wrong."""
        buffer = np.empty(span.stop - span.start, np.uint8).data
        filled = tries = 0
        while filled < len(buffer):
            begun = filled
            try:
                for count in self._pour(place, span.start + filled, span.stop, buffer[filled:]):
                    filled += count
            except SourceError as error:
                tries = 1 if filled > begun else tries + 1
                is_far = error.details.get("stage") == UNREACHED and not filled
                is_final = is_far or error.details.get("is_final")
                most = _TRIES_ALONE if filled and len(self._sources) == 1 else _TRIES
                if is_final or tries >= most or isinstance(error, WholeOnlyError):
                    raise
                time.sleep(back_off_s(tries, _PAUSE_S))
        wrong = []
        for unit in span.units:
            begin = index.start_of(unit) - span.start
            if not land(unit, buffer[begin : index.stop_of(unit) - span.start]):
                wrong.append(unit)
        return wrong

    def _pour(self, place: _Place, start: int, stop: int, buffer: memoryview) -> Iterator[int]:
        """Ask once; yield how many bytes came, each time some do."""
        began = time.monotonic()
        source = place.source.name
        with self._lock:
            self.requests += 1
        pinned = self.validator if self._is_pinned else None
        with place.candidate.remote.read(start, stop, validator=pinned) as stream:
            self._admit(place, stream, start)
            waited_s = time.monotonic() - began
            done = 0
            while done < len(buffer):
                count = stream.readinto(buffer[done : done + _PIECE_BYTES])
                if count == 0:
                    raise SourceError(
                        f"{source} stopped at byte {start + done} ({place.candidate.how}).",
                        details={"source": source},
                    )
                done += count
                with self._lock:
                    self.fetched_bytes += count
                yield count
        place.pace.note(waited_s, done, time.monotonic() - began - waited_s)

    def _admit(self, place: _Place, stream: Stream, start: int) -> None:
        """Refuse what is another object, or not the bytes that were asked for."""
        remote, source = place.candidate.remote, place.source.name
        stat = stream.stat
        if stat.size_bytes not in (None, self._size_bytes):
            raise IntegrityError(
                f"{source} has {stat.size_bytes} bytes at {remote.describe}; on record are "
                f"{self._size_bytes}.",
                details={"expected": self._size_bytes, "actual": stat.size_bytes, "source": source},
            )
        if self._is_pinned:
            with self._lock:
                self.validator = self.validator or stat.validator
            if stat.validator is None:
                raise WholeOnlyError(
                    f"{source} does not tell by an ETag when {remote.describe} changes, and "
                    "nothing else would.",
                    details={"source": source, "is_final": True},
                )
            if stat.validator != self.validator:
                raise IntegrityError(
                    f"{source} has another object at {remote.describe} than the one that was "
                    "opened: it was changed. Open it anew.",
                    details={
                        "expected": self.validator, "actual": stat.validator, "source": source,
                    },
                )  # fmt: skip
        if stream.start != start:
            raise WholeOnlyError(
                f"{source} gives no parts of {remote.describe}.",
                details={"source": source, "is_final": True},
            )

    def _wrong(self, index: Index, unit: int, place: _Place) -> IntegrityError:
        where = f"{place.candidate.how}, {place.candidate.remote.describe}"
        name = index.name_of(unit)
        return IntegrityError(
            f"{place.source.name} holds other bytes ({where}): {name} fails its digest.",
            details={"source": place.source.name, "chunk": name},
        )


def _in_parallel(tasks: Sequence[Callable[[], None]], streams: int) -> None:
    """Do tasks, several at once; all have ended when this returns or raises."""
    if len(tasks) == 1:
        tasks[0]()
        return
    waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            while True:
                waiting.get_nowait()()
        except queue.Empty:
            ended.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            ended.put(error)

    # Daemons: one that hangs must not keep the program from ending.
    workers = min(streams, len(tasks))
    for _ in range(workers):
        threading.Thread(target=work, name="recallfs-parts", daemon=True).start()
    errors = [error for error in (ended.get() for _ in range(workers)) if error is not None]
    if errors:
        raise errors[0]
