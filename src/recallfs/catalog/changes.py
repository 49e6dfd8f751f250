"""Changing evidence: the sidecar first, then the catalog, with an intent around both.

An intent claims an entry and a path: nobody else begins to change either before it ends. A process
that dies in between leaves its intent; whoever needs the entry or opens the store next finishes or
undoes the change (`recallfs.catalog.recovery`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from recallfs.atomic import fault_point, read_record, write_record
from recallfs.catalog import records, vaulted
from recallfs.catalog.database import Intent
from recallfs.catalog.holder import Holder
from recallfs.catalog.recovery import end_if_dead
from recallfs.catalog.sidecar import Record, encode
from recallfs.catalog.store import Store
from recallfs.errors import ConflictError

LEAVING = ("release", "forget", "replace")
"""What takes an entry's bytes from its path, once it is done."""

PATIENCE_S = 10.0
"""How long a claim waits for another one in its way."""

_PLACING = ("create", "move")
_POLL_S = 0.01


@dataclass
class Draft:
    """A record while it is changed; assign to `record`.

    Parameters
    ----------
    undo : callable, optional
        Takes back what was done to files, should the new record not be accepted.
    """

    record: Record
    undo: Callable[[], None] | None = None


def leaving(store: Store) -> dict[str, str]:
    """Return the entries whose bytes somebody is about to take away, with the action."""
    return {i.entry_id: i.action for i in store.catalog.intents() if i.action in LEAVING}


def end_dead(store: Store) -> None:
    """End what dead processes had begun, so that it is in nobody's way; takes no lock otherwise."""
    for intent in store.catalog.intents():
        end_if_dead(store, intent)


def claim(store: Store, intents: Sequence[Intent], check: Callable[[], None] | None = None) -> None:
    """Say what is about to be changed; who is at it already is waited for, for a while.

    Parameters
    ----------
    check : callable, optional
        Raises if the change must not be made. No other claim is made while it looks.

    Raises
    ------
    ConflictError
        Kind ``in-use``: another process is changing one of the entries, or puts something at one
        of the paths.
    """
    ids = {intent.entry_id for intent in intents}
    paths = {intent.claimed_path for intent in intents if intent.action in _PLACING}

    def intend() -> None:
        if check is not None:
            check()
        store.catalog.intend(intents)

    _decide(store, ids, paths, intend)


def beside(store: Store, path: str, act: Callable[[], None]) -> None:
    """Do something to a file that no entry stands for, while nobody is about to make it one.

    Raises
    ------
    ConflictError
        Kind ``in-use``: another process just puts something there, or has just done so.
    """

    def look_and_act() -> None:
        if store.catalog.entry_at(path) is not None:
            raise ConflictError(
                f"{store.url(path)} has become an entry meanwhile; try again.", kind="in-use"
            )
        act()

    end_dead(store)
    _decide(store, set(), {path}, look_and_act)


def _decide(store: Store, ids: set[str], paths: set[str], act: Callable[[], None]) -> None:
    """Act when nobody is at work on the entries or paths, and while nobody can begin to be."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        with store.deciding():
            other = _in_the_way(store, ids, paths)
            if other is None:
                act()
                return
        if time.monotonic() > give_up:
            raise ConflictError(
                f"another process ({other.action}) is at work on {store.url(other.claimed_path)}; "
                "try again.",
                kind="in-use",
                details={"path": other.claimed_path, "holder": other.holder},
            )
        time.sleep(_POLL_S)


def _in_the_way(store: Store, ids: set[str], paths: set[str]) -> Intent | None:
    return next(
        (
            other
            for other in store.catalog.intents()
            if other.entry_id in ids or (other.action in _PLACING and other.claimed_path in paths)
        ),
        None,
    )


@contextmanager
def edit(
    store: Store,
    entry_id: str,
    action: str,
    details: Mapping[str, Any] | None = None,
    *,
    check: Callable[[], None] | None = None,
) -> Iterator[Draft]:
    """Change an entry's evidence, and files with it.

    Parameters
    ----------
    action : str
        What the intent says; `recallfs.catalog.recovery` knows how to end each.
    check : callable, optional
        As for `claim`.

    Yields
    ------
    Draft
        Its record is saved when the block ends, unless it raises.
    """
    end_dead(store)
    with store.lock(entry_id):
        before = records.with_seen_identity(store, records.load(store, entry_id))
        intent = Intent(entry_id, action, before.entry.path, details or {}, str(Holder.current()))
        claim(store, [intent], check)
        draft = Draft(before)
        try:
            yield draft
            try:
                records.save(store, draft.record)
            except BaseException:
                _take_back(store, before, draft)
                raise
        except BaseException:
            store.catalog.drop_intent(entry_id)
            raise
        vaulted.follow(store, before, draft.record)


def _take_back(store: Store, before: Record, draft: Draft) -> None:
    """Restore what the record said; the files follow, if they can."""
    path, content = store.sidecar_path(before.entry.id), encode(before)
    if read_record(path) != content:
        write_record(path, content)
    if draft.undo is not None:
        draft.undo()


def create(
    store: Store,
    new: Sequence[Record],
    place: Callable[[], None] | None = None,
    *,
    inode: int | None = None,
    replaced: Collection[str] = (),
    check: Callable[[], None] | None = None,
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
    replaced : collection of str
        Ids of the entries that stand at these paths and give way; the caller holds their locks.
    check : callable, optional
        As for `claim`.

    Raises
    ------
    ConflictError
        If an entry that is not among the replaced ones stands at one of the paths.

    Notes
    -----
    Call `end_dead` first, before any lock is taken.
    """
    holder = str(Holder.current())
    intents = [Intent(r.entry.id, "create", r.entry.path, {}, holder) for r in new]
    for entry_id in replaced:
        old = records.load(store, entry_id).entry
        intents.append(Intent(entry_id, "replace", old.path, {}, holder))

    def all_checks() -> None:
        standing = store.catalog.entries_at([record.entry.path for record in new])
        for path, entry in standing.items():
            if entry.id not in replaced:
                raise ConflictError(
                    f"{store.url(path)} is an entry already; it was left as it is.",
                    details={"path": path},
                )
        if check is not None:
            check()

    with store.writing():
        claim(store, intents, all_checks)
        try:
            for record in new:
                write_record(store.sidecar_path(record.entry.id), encode(record))
            fault_point("record.renamed")
            if place is not None:
                place()
        except BaseException:
            for record in new:
                records.discard(store, record.entry.id)
            for entry_id in replaced:
                store.catalog.drop_intent(entry_id)
            raise
        if place is not None:
            new = [records.with_identity(store, record, inode) for record in new]
        # The intents are synced: should this be lost with the power, recovery does it again.
        store.catalog.put(new, replacing=replaced, synced=False)
        fault_point("catalog.recorded")
        for entry_id in replaced:
            records.retire(store, entry_id)
            store.catalog.drop_intent(entry_id)
