"""Copies that may replace a proof: immutable, elsewhere, and read whole just now."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from recallfs.catalog import audit, changes, records
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import PUBLIC_KINDS
from recallfs.errors import (
    AccessError,
    IntegrityError,
    NotRecallableError,
    RecallError,
    SourceError,
)
from recallfs.resolve.inquiry import answer_key
from recallfs.resolve.stores import Stores
from recallfs.sources.base import Holding, Progress, RemoteSource
from recallfs.sources.disks import disk_of
from recallfs.sources.rereading import read_right
from recallfs.values import Copy, Entry, now_utc


@dataclass(frozen=True)
class Known:
    """A copy that is on record.

    Parameters
    ----------
    why_not : str
        Why it would not count for a release; empty if it would, once it is read whole again.
    """

    copy: Copy
    why_not: str

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON-able mapping."""
        return {**asdict(self.copy), "counts": not self.why_not, "why_not": self.why_not}


@dataclass(frozen=True)
class Checked:
    """What reading a copy again found.

    Parameters
    ----------
    verdict : {"right", "wrong", "missing", "unavailable"}
    what : str
        What was found instead of the right bytes, or why it could not be read.
    verified_at : str
        When it was last found right; empty for never.
    """

    url: str
    source: str
    location: str
    verdict: str
    what: str
    verified_at: str
    read_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON-able mapping."""
        return asdict(self)


def verified_copies(stores: Stores, store: Store, record: Record) -> tuple[str, ...]:
    """Read every copy that could count, and return the names of the sources where one does.

    Notes
    -----
    A copy counts only where nothing else can take its place (under its digest: a file by path can
    be changed), on another disk or host than the store, if it is not the file itself in disguise,
    and once for each failure domain. What was found is recorded.
    """
    found: dict[str, Copy] = {}
    for source in _countable_sources(stores, store, record):
        domain = source.failure_domain()
        if domain in found:
            continue
        with contextlib.suppress(RecallError):
            _check_reach(stores, source, record)
            for holding in source.copies(store, record):
                if _refusal(store, source, holding):
                    continue
                if _is_right(stores, source, holding, record):
                    found[domain] = _copy(source, holding)
                    break
    if found:
        record_copies(store, record.entry.id, found.values())
    return tuple(copy.source for copy in found.values())


def record_copies(store: Store, entry_id: str, new: Iterable[Copy]) -> None:
    """Put verified copies on record; of each place the newest verification is kept."""
    with changes.edit(store, entry_id, "copies") as draft:
        draft.record = replace(draft.record, copies=newest((*draft.record.copies, *new)))


def newest(copies: Iterable[Copy]) -> tuple[Copy, ...]:
    """Return the last word on each place, in the order in which the places became known."""
    return tuple({(copy.source, copy.location): copy for copy in copies}.values())


def known_copies(stores: Stores, store: Store, record: Record) -> list[Known]:
    """Return the copies on record, and whether each would count for a release. Asks nobody."""
    sources = {source.name: source for source in stores.remotes()}
    return [
        Known(copy, _why_not(store, record, copy, sources.get(copy.source)))
        for copy in newest(record.copies)
    ]


def recheck(
    stores: Stores, store: Store, entry: Entry, progress: Progress | None = None
) -> list[Checked]:
    """Read every copy on record again, whole, and record which are as they should be.

    Parameters
    ----------
    progress : callable, optional
        Called with the number of bytes read since the last call.

    Notes
    -----
    Of a copy that is not right nothing is recorded but an event: when it was last found right stays
    true, and whether it is damaged or out of reach is for a person to find out.
    """
    record = records.load(store, entry.id)
    checked: list[Checked] = []
    right: list[Copy] = []
    for copy in newest(record.copies):
        result, again = _recheck_one(stores, store, record, copy, progress=progress)
        checked.append(result)
        if again is not None:
            right.append(again)
        elif result.verdict != "unavailable":
            said = {"kind": result.verdict, "message": result.what, "location": copy.location}
            with contextlib.suppress(AccessError):
                audit.note(store, "copy-failed", entry, user_name(), said)
    if right:
        with contextlib.suppress(AccessError):  # a reader without write rights may check as well
            record_copies(store, entry.id, right)
    return checked


def _recheck_one(
    stores: Stores,
    store: Store,
    record: Record,
    copy: Copy,
    *,
    progress: Progress | None,
) -> tuple[Checked, Copy | None]:
    source = next((item for item in stores.remotes() if item.name == copy.source), None)
    read = 0

    def told(size: int) -> None:
        nonlocal read
        read += size
        if progress is not None:
            progress(size)

    def result(verdict: str, what: str, verified_at: str = copy.verified_at) -> Checked:
        url = store.url(record.entry.path)
        return Checked(url, copy.source, copy.location, verdict, what, verified_at, read)

    holding = None if source is None else _holding(source, store, record, copy)
    if source is None or holding is None:
        return result("unavailable", _unknown_place(copy, source)), None
    try:
        _check_reach(stores, source, record)
        _read_right(source, holding, record, told)
    except IntegrityError as error:
        return result("wrong", error.message), None
    except NotRecallableError as error:
        try:
            source.probe()  # a folder that is not mounted has nothing, too
        except RecallError as outage:
            return result("unavailable", outage.message), None
        return result("missing", error.message), None
    except RecallError as error:
        if isinstance(error, SourceError):
            stores.memory.note(source, answer_key(record), error)
        return result("unavailable", error.message), None
    again = replace(_copy(source, holding), content_addressed=copy.content_addressed)
    return result("right", "", again.verified_at), again


def _countable_sources(stores: Stores, store: Store, record: Record) -> Iterator[RemoteSource]:
    """Return the sources to look at: public services only for what is known to be there."""
    known = {copy.source for copy in record.copies}
    for source in stores.remotes():
        if source.kind not in PUBLIC_KINDS or (source.name in known and not store.settings.offline):
            yield source


def _check_reach(stores: Stores, source: RemoteSource, record: Record) -> None:
    """Raise if it could not be asked some seconds ago: a dead one costs its deadline once."""
    # What was absent then may have been pushed by hand since, so that is not taken for an answer.
    with contextlib.suppress(NotRecallableError):
        stores.memory.check(source, answer_key(record))


def _is_right(stores: Stores, source: RemoteSource, holding: Holding, record: Record) -> bool:
    try:
        _read_right(source, holding, record)
    except SourceError as error:
        stores.memory.note(source, answer_key(record), error)
        raise
    except RecallError:
        return False
    return True


def _read_right(
    source: RemoteSource, holding: Holding, record: Record, progress: Progress | None = None
) -> None:
    """Read a copy whole; raise unless it is the entry's bytes."""
    from recallfs.sources.remote import deadlines_of  # it brings what speaks HTTP

    deadlines = deadlines_of(source.settings)
    read_right(holding.remote, record, deadlines=deadlines, progress=progress)


def _copy(source: RemoteSource, holding: Holding) -> Copy:
    return Copy(
        source.name,
        holding.location,
        source.failure_domain(),
        holding.content_addressed,
        now_utc(),
    )


def _holding(source: RemoteSource, store: Store, record: Record, copy: Copy) -> Holding | None:
    holdings: Sequence[Holding] = source.copies(store, record)
    return next((item for item in holdings if item.location == copy.location), None)


def _why_not(store: Store, record: Record, copy: Copy, source: RemoteSource | None) -> str:
    holding = None if source is None else _holding(source, store, record, copy)
    if source is None or holding is None:
        return _unknown_place(copy, source)
    return _refusal(store, source, holding)


def _unknown_place(copy: Copy, source: RemoteSource | None) -> str:
    if source is None:
        return f"no source {copy.source} is configured, or it is turned off"
    return f"{copy.source}, as it is configured now, has no such address"


def _refusal(store: Store, source: RemoteSource, holding: Holding) -> str:
    """Say why a copy there does not count for a release; empty if it does."""
    if not holding.content_addressed:
        return "it lies under its path, where it can be changed"
    if holding.doubt:
        return holding.doubt
    if source.failure_domain() == disk_of(store.root):
        return "it is on the store's own disk"
    return ""
