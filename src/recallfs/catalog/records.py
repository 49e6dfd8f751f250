"""Changing evidence: the sidecar first, then the catalog, with an intent around both.

A process that dies in between leaves its intent; the next one to open the store finishes or undoes
the change (`recallfs.resolve.recovery`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recallfs.atomic import fault_point, make_folder, write_record
from recallfs.catalog.database import Intent
from recallfs.catalog.holder import Holder
from recallfs.catalog.sidecar import SUFFIX, Record, decode, encode
from recallfs.catalog.store import Store
from recallfs.errors import IntegrityError, InvalidInputError
from recallfs.values import Entry, Identity, State, canonical_json


@dataclass
class Draft:
    """A record while it is changed; assign to `record`."""

    record: Record


@dataclass
class RebuildReport:
    """What a rebuild found."""

    entries: int = 0
    states: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    only_in_vault: list[str] = field(default_factory=list)


def known_entry(store: Store, path: str) -> Entry:
    """Return the entry at a path.

    Raises
    ------
    InvalidInputError
        Kind ``unknown-entry``.
    """
    entry = store.catalog.entry_at(path)
    if entry is None:
        raise InvalidInputError(
            f"{store.url(path)} is not in the catalog; `recall add` catalogs an existing file.",
            kind="unknown-entry",
            details={"path": path},
        )
    return entry


def load(store: Store, entry_id: str) -> Record:
    """Read an entry's evidence.

    Raises
    ------
    IntegrityError
        Kind ``damaged-record`` if the sidecar is gone, fails its digest or is another entry's.
    """
    path = store.sidecar_path(entry_id)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(
            f"the sidecar {path} is gone; restore it from the vault {store.vault}.",
            kind="damaged-record",
            details={"name": str(path)},
        ) from None
    return _own(decode(content, name=str(path)), path)


def _own(record: Record, path: Path) -> Record:
    """Refuse a sidecar under another entry's name, such as one that was copied by hand."""
    if record.entry.id != path.stem:
        raise IntegrityError(
            f"{path} holds the record of the entry {record.entry.id}; "
            "restore the right one from the vault.",
            kind="damaged-record",
            details={"name": str(path), "expected": path.stem, "actual": record.entry.id},
        )
    return record


def save(store: Store, record: Record) -> None:
    """Write a record's sidecar, then index it; for use under the entry's lock."""
    write_record(store.sidecar_path(record.entry.id), encode(record))
    fault_point("record.renamed")
    store.catalog.put([record])
    fault_point("catalog.recorded")


@contextmanager
def edit(
    store: Store, entry_id: str, action: str, details: Mapping[str, Any] | None = None
) -> Iterator[Draft]:
    """Change an entry's evidence, and files with it.

    Parameters
    ----------
    action : str
        What the intent says; `recallfs.resolve.recovery` knows how to end each.

    Yields
    ------
    Draft
        Its record is saved when the block ends, unless it raises.
    """
    with store.lock(entry_id):
        draft = Draft(_with_seen_identity(store, load(store, entry_id)))
        before = draft.record
        intent = Intent(entry_id, action, before.entry.path, details or {}, str(Holder.current()))
        store.catalog.intend([intent])
        try:
            yield draft
        except BaseException:
            store.catalog.drop_intent(entry_id)
            raise
        save(store, draft.record)


def create(
    store: Store,
    records: Sequence[Record],
    place: Callable[[], None] | None = None,
    *,
    inode: int | None = None,
) -> None:
    """Record new entries.

    Parameters
    ----------
    place : callable, optional
        Puts the bytes in place, after the sidecars are written and before the catalog knows. When
        it raises, the sidecars are taken back. Without it the bytes are in place already, and the
        records hold the identities that the files had before they were hashed.
    inode : int, optional
        Of the bytes that `place` puts in place. Should another file be there afterwards, it is not
        taken for them.
    """
    holder = str(Holder.current())
    store.catalog.intend(
        Intent(record.entry.id, "create", record.entry.path, {}, holder) for record in records
    )
    try:
        for record in records:
            write_record(store.sidecar_path(record.entry.id), encode(record))
        fault_point("record.renamed")
        if place is not None:
            place()
    except BaseException:
        for record in records:
            discard(store, record.entry.id)
        raise
    if place is not None:
        records = [with_identity(store, record, inode) for record in records]
    # The intent is synced: should this be lost with the power, recovery does it again.
    store.catalog.put(records, synced=False)
    fault_point("catalog.recorded")


def discard(store: Store, entry_id: str) -> None:
    """Drop an entry's sidecar and its place in the catalog."""
    store.sidecar_path(entry_id).unlink(missing_ok=True)
    store.catalog.drop(entry_id)


def retire(store: Store, entry_id: str) -> None:
    """Put away the sidecar of an entry whose path now belongs to another; nothing reads it again.

    It is kept because it says how the earlier file was made.
    """
    source = store.sidecar_path(entry_id)
    target = store.control / "superseded" / source.name
    make_folder(target.parent)
    with contextlib.suppress(FileNotFoundError):
        source.rename(target)


def _with_seen_identity(store: Store, record: Record) -> Record:
    """Add what the catalog saw of the file; a sidecar does not hold it."""
    known = store.catalog.entry(record.entry.id)
    entry = dataclasses.replace(record.entry, identity=known.identity if known else None)
    return dataclasses.replace(record, entry=entry)


def with_identity(store: Store, record: Record, inode: int | None = None) -> Record:
    """Add the file's present identity to a record whose bytes are known to be right.

    Parameters
    ----------
    inode : int, optional
        The inode that holds them; a file with another one gets no identity, and so is hashed when
        it is next used.
    """
    seen = Identity.from_stat((store.root / record.entry.path).lstat())
    identity = seen if inode in (None, seen.inode) else None
    return dataclasses.replace(record, entry=dataclasses.replace(record.entry, identity=identity))


def save_environment(store: Store, identifier: str, environment: Mapping[str, Any]) -> None:
    """Keep a captured environment, once."""
    path = store.environment_path(identifier)
    if not path.exists():
        write_record(path, canonical_json(environment))


def has_sidecars(store: Store) -> bool:
    """Tell whether there is any evidence in the store."""
    return next(_sidecars(store), None) is not None


def rebuild(store: Store) -> RebuildReport:
    """Make the catalog again from the sidecars and the tree.

    Returns
    -------
    RebuildReport
        Damaged sidecars are listed and left as they are; of two sidecars that claim one path the
        newer one counts.

    Raises
    ------
    CatalogError
        Kind ``schema-version`` if a sidecar is of a newer format; the catalog stays as it is.

    Notes
    -----
    A file whose size and modification time are the recorded ones is taken for unchanged; any other
    is hashed when it is next used.
    """
    report = RebuildReport()
    newest: dict[str, tuple[str, str]] = {}
    for path in _sidecars(store):
        record = _read_for_rebuild(path, report)
        if record is not None:
            key = (record.entry.created_at, record.entry.id)
            newest[record.entry.path] = max(newest.get(record.entry.path, key), key)
    # Only now: a sidecar that a newer recallfs wrote has stopped us with the old catalog in place.
    store.catalog.clear()
    batch: list[Record] = []
    for path in _sidecars(store):
        record = _read_for_rebuild(path, None)
        if record is None:
            continue
        if newest.get(record.entry.path, ("", ""))[1] != record.entry.id:
            report.superseded.append(str(path))
            continue
        entry = _seen_entry(store, record.entry)
        report.entries += 1
        report.states[entry.state.value] = report.states.get(entry.state.value, 0) + 1
        batch.append(dataclasses.replace(record, entry=entry))
        if len(batch) == 1000:
            store.catalog.put(batch)
            batch = []
    environments = {
        path.stem: path.read_text(encoding="utf-8")
        for path in (store.control / "environments").glob("*.json")
    }
    store.catalog.put(batch, environments)
    in_vault = (store.vault / store.id / "entries").glob(f"*/*{SUFFIX}")
    report.only_in_vault = sorted(
        str(path) for path in in_vault if not store.sidecar_path(path.stem).exists()
    )
    return report


def _sidecars(store: Store) -> Iterator[Path]:
    return (store.control / "entries").glob(f"*/*{SUFFIX}")


def _read_for_rebuild(path: Path, report: RebuildReport | None) -> Record | None:
    try:
        return _own(decode(path.read_bytes(), name=str(path)), path)
    except IntegrityError:
        if report is not None:
            report.damaged.append(str(path))
        return None


def _seen_entry(store: Store, entry: Entry) -> Entry:
    """Compare what a sidecar says with what is in the tree."""
    try:
        status = (store.root / entry.path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        state = State.MISSING if entry.state is State.RESIDENT else entry.state
        return dataclasses.replace(entry, state=state)
    unchanged = (status.st_size, status.st_mtime_ns) == (
        entry.size_bytes,
        entry.metadata.mtime_ns,
    )
    if entry.state is State.RESIDENT and unchanged:
        return dataclasses.replace(entry, identity=Identity.from_stat(status))
    return entry
