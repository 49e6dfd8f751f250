"""Cataloguing a dandiset: its files become entries that can be recalled; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from recallfs.catalog import changes, records
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.errors import ConflictError, InvalidInputError, RecallError
from recallfs.ownership import usual_metadata
from recallfs.resolve.commit import new_record
from recallfs.resolve.presence import has_bytes
from recallfs.sources.dandi import DandiSource
from recallfs.sources.dandi_archive import Listed
from recallfs.values import Copy, Digests, Entry, State, normalise_path

Told = Callable[[int, int | None], None]
"""Called with the number of files done since the last call, and that of all assets if known."""


@dataclass
class Catalogued:
    """What became of the files of a dandiset.

    Parameters
    ----------
    dandiset, version : str
    added : int
    size_bytes : int
        Of what was added.
    unchanged : int
        Files that were in the catalog already.
    failed : list of RecallError
        One for each file that something else stands in the way of.
    """

    dandiset: str
    version: str
    added: int = 0
    size_bytes: int = 0
    unchanged: int = 0
    failed: list[RecallError] = field(default_factory=list)


def catalog_dandiset(
    store: Store,
    source: DandiSource,
    dandiset: str,
    *,
    folder: str = "",
    glob: str | None = None,
    progress: Told | None = None,
    added: Callable[[Entry], None] | None = None,
) -> Catalogued:
    """Make an entry of every file of a dandiset, released from the start.

    Parameters
    ----------
    source : DandiSource
        Its archive is the one that is asked.
    dandiset : str
        With ``@VERSION``, else the newest.
    folder : str
        Of the store, where the dandiset's own folders go.
    glob : str, optional
        Only files whose path in the dandiset matches.
    added : callable, optional
        Told of each new entry.

    Returns
    -------
    Catalogued

    Raises
    ------
    InvalidInputError
        There is no such dandiset, version or archive.
    SourceError, AccessError
        The archive cannot be asked. What was catalogued before that stays; asked again, it goes on.

    Notes
    -----
    Holds one page of the listing in memory.
    """
    archive = source.archive()
    identifier, version = archive.resolve(dandiset)
    report = Catalogued(identifier, version)
    for page, count in archive.files(identifier, version, glob):
        places, new = _places(store, page, folder, report), []
        standing = store.catalog.entries_at(list(places))
        for path, listed in places.items():
            try:
                record = _wanted(store, source, listed, path, standing.get(path))
            except (InvalidInputError, ConflictError) as error:
                report.failed.append(error)
                continue
            if record is None:
                report.unchanged += 1
            else:
                new.append(record)
        for record in _created(store, new, report):
            report.added += 1
            report.size_bytes += record.entry.size_bytes
            if added is not None:
                added(record.entry)
        if progress is not None:
            progress(len(page), count)
    return report


def _created(store: Store, new: Sequence[Record], report: Catalogued) -> list[Record]:
    """Record new entries, all at once; one by one if somebody else was at some of their paths."""
    if not new:
        return []
    changes.end_dead(store)
    try:
        changes.create(store, new)
    except ConflictError as error:
        if len(new) == 1:
            report.failed.append(error)
            return []
        return [done for record in new for done in _created(store, [record], report)]
    return list(new)


def _places(
    store: Store, page: Sequence[Listed], folder: str, report: Catalogued
) -> dict[str, Listed]:
    """Return where in the store the files go; names that cannot be there are reported."""
    places = {}
    for listed in page:
        try:
            # Not brought into their one form: two assets could become one.
            if normalise_path(listed.path) != listed.path:
                raise InvalidInputError(
                    f"{listed.path!r}, a path of the dandiset, is not one that a store can have.",
                    kind="invalid-path",
                    details={"path": listed.path},
                )
            places[store.canonical(f"{folder}/{listed.path}")] = listed
        except InvalidInputError as error:
            report.failed.append(error)
    return places


def _wanted(
    store: Store, source: DandiSource, listed: Listed, path: str, standing: Entry | None
) -> Record | None:
    """Return the record of a new entry; None if there is one with the same bytes.

    Raises
    ------
    ConflictError
        Something else is at the path.
    """
    domain = source.failure_domain()
    copy = Copy(source.name, str(listed.address), domain, listed.address.is_immutable, "")
    if standing is not None:
        _take_note(store, standing, listed, copy)
        return None
    if has_bytes(store.locate(path)):
        raise ConflictError(
            f"a file is at {store.url(path)} that is not in the catalog; `recall add` it first.",
            details={"path": path},
        )
    digests = Digests(listed.size_bytes, listed.sha256, "", b"")
    metadata = usual_metadata(store.locate(path), listed.mtime_ns)
    record = new_record(store, path, digests, metadata)
    return replace(
        record,
        entry=replace(record.entry, state=State.RELEASED),
        incarnations=record.incarnations if listed.sha256 else (),
        copies=(copy,),
        dandi_etag="" if listed.sha256 else listed.etag,
    )


def _take_note(store: Store, standing: Entry, listed: Listed, copy: Copy) -> None:
    """Record where an entry's bytes are in the archive, if they are its bytes."""
    record = records.load(store, standing.id)
    places = {known.location for known in record.copies if known.source == copy.source}
    if listed.sha256 and record.accepted:
        is_same = listed.sha256 in record.accepted
    else:
        is_same = bool(listed.etag) and listed.etag == record.dandi_etag
    if not is_same:
        said = _difference(store, record, listed, copy)
        raise ConflictError(said, details={"path": standing.path})
    if copy.location not in places:
        with changes.edit(store, standing.id, "copies") as draft:
            draft.record = replace(draft.record, copies=(*draft.record.copies, copy))


def _difference(store: Store, record: Record, listed: Listed, copy: Copy) -> str:
    url = store.url(record.entry.path)
    if not listed.sha256 and not record.dandi_etag:
        return (
            f"{url} was left as it is: the archive does not tell the sha256 of its file yet, so "
            "nobody knows whether they are the same; try again later."
        )
    if any(known.source == copy.source for known in record.copies):
        return (
            f"{listed.address.shown} has other bytes now than when {url} was catalogued, which was "
            "left as it is; `recall forget` it, then catalog again, to follow."
        )
    return f"{url} is an entry with other bytes already; it was left as it is."
