"""Making the catalog again from the sidecars and the tree."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recallfs.atomic import read_record
from recallfs.catalog.records import own, sidecars
from recallfs.catalog.recovery import end, end_strays
from recallfs.catalog.sidecar import SUFFIX, Record, decode
from recallfs.catalog.store import Store
from recallfs.errors import IntegrityError
from recallfs.values import Entry, Identity, State


@dataclass
class RebuildReport:
    """What a rebuild found."""

    entries: int = 0
    states: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    only_in_vault: list[str] = field(default_factory=list)


def rebuild(store: Store, *, only_if_empty: bool = False) -> RebuildReport:
    """Make the catalog again from the sidecars and the tree.

    Parameters
    ----------
    only_if_empty : bool
        Leave it as it is if somebody else has put anything in it meanwhile.

    Returns
    -------
    RebuildReport
        Damaged sidecars are listed and left as they are; of two sidecars that claim one path the
        one whose file is there counts, else the newer one.

    Raises
    ------
    CatalogError
        Kind ``schema-version`` if a sidecar is of a newer format; the catalog stays as it is.

    Notes
    -----
    A file whose size and modification time are the recorded ones is taken for unchanged; any other
    is hashed when it is next used. All writers are waited for, and wait; readers go on with the
    old index until the new one is whole.
    """
    with store.alone():
        if only_if_empty and not store.catalog.is_empty():
            return RebuildReport()
        # Whoever lives has none while we are alone. The new index knows nothing of what was begun.
        for intent in store.catalog.intents():
            end(store, intent)
        report, chosen = _choose(store)
        environments = {
            path.stem: path.read_text(encoding="utf-8")
            for path in (store.control / "environments").glob("*.json")
        }

        def chosen_records() -> Iterator[Record]:
            report.entries, report.states = 0, {}
            for identifier in chosen:
                record = _read(store.sidecar_path(identifier), None)
                if record is None:
                    continue
                entry = _seen_entry(store, record.entry)
                report.entries += 1
                report.states[entry.state.value] = report.states.get(entry.state.value, 0) + 1
                yield dataclasses.replace(record, entry=entry)

        # Only now: a sidecar that a newer recallfs wrote has stopped us with the old catalog in
        # place.
        store.catalog.replace_all(chosen_records, environments)
    end_strays(store)
    in_vault = (store.vault / store.id / "entries").glob(f"*/*{SUFFIX}")
    report.only_in_vault = sorted(
        str(path) for path in in_vault if not store.sidecar_path(path.stem).exists()
    )
    return report


def _choose(store: Store) -> tuple[RebuildReport, list[str]]:
    """Find the record that counts for each path; returns their entries' ids."""
    report = RebuildReport()
    best: dict[str, tuple[bool, str, str]] = {}
    for path in sidecars(store):
        record = _read(path, report)
        if record is None:
            continue
        entry = record.entry
        # The one whose file is there; else the younger, as far as the clock was right.
        key = (_is_there(store, entry), entry.created_at, entry.id)
        known = best.get(entry.path)
        if known is not None:
            report.superseded.append(str(store.sidecar_path(min(known, key)[2])))
        best[entry.path] = key if known is None else max(known, key)
    report.superseded.sort()
    return report, [key[2] for key in best.values()]


def _is_there(store: Store, entry: Entry) -> bool:
    return entry.state is State.RESIDENT and _seen_entry(store, entry).identity is not None


def _read(path: Path, report: RebuildReport | None) -> Record | None:
    try:
        return own(decode(read_record(path), name=str(path)), path)
    except IntegrityError:
        if report is not None:
            report.damaged.append(str(path))
        return None


def _seen_entry(store: Store, entry: Entry) -> Entry:
    """Compare what a sidecar says with what is in the tree."""
    if entry.state is not State.RESIDENT:
        return entry
    try:
        identity = seen_identity(store.root, entry)
    except (FileNotFoundError, NotADirectoryError):
        return dataclasses.replace(entry, state=State.MISSING)
    return entry if identity is None else dataclasses.replace(entry, identity=identity)


def seen_identity(root: Path, entry: Entry) -> Identity | None:
    """Return the identity of the file at an entry's path; None if it is not taken for unchanged.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        Nothing is there.
    """
    status = (root / entry.path).lstat()
    seen = (stat.S_IFMT(status.st_mode), status.st_size, status.st_mtime_ns)
    if seen != (stat.S_IFREG, entry.size_bytes, entry.metadata.mtime_ns):
        return None
    return Identity.from_stat(status)
