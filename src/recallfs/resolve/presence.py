"""What is at an entry's path now: the file system has the last word, the record the first."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from pathlib import Path

from recallfs.catalog import changes, records
from recallfs.catalog.store import Store
from recallfs.errors import AccessError, ConflictError, InvalidInputError
from recallfs.values import Digests, Entry, Identity, State


def observe(store: Store, entry: Entry) -> State | None:
    """Compare an entry with its path by one `lstat`.

    Returns
    -------
    State or None
        None if only hashing can tell: something is there that was not seen before.
    """
    try:
        status = (store.root / entry.path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return State.RELEASED if entry.state is State.RELEASED else State.MISSING
    except PermissionError as error:
        raise AccessError(
            f"you may not read {store.url(entry.path)}: a folder on the way to it keeps you out.",
            details={"path": entry.path},
        ) from error
    if not stat.S_ISREG(status.st_mode):
        return State.CONFLICT
    if entry.state is State.RESIDENT and entry.identity == Identity.from_stat(status):
        return State.RESIDENT
    return None


def settle(store: Store, entry: Entry, *, note: bool = True) -> State:
    """Find out what is at an entry's path, hashing it if need be, and note the answer.

    Parameters
    ----------
    note : bool
        Whether to; where locks are held it would wait for them.

    Returns
    -------
    State
        ``DIRTY`` if the file at a resident entry's path holds other bytes, ``CONFLICT`` if
        something else sits at a released path.

    Notes
    -----
    A file that turns out to hold the recorded bytes ends a release: the entry is resident again.
    """
    state = observe(store, entry)
    if note and state is State.MISSING and entry.state is not State.MISSING:
        with contextlib.suppress(AccessError):
            store.catalog.see(entry, State.MISSING, None)
    if state is not None:
        return state
    place = store.root / entry.path
    other = State.CONFLICT if entry.state is State.RELEASED else State.DIRTY
    record = records.load(store, entry.id)
    sizes = {entry.size_bytes, *(item.size_bytes for item in record.incarnations)}
    try:
        before = Identity.from_stat(place.lstat())
        if before.size_bytes not in sizes:
            return other
        digests = records.digest(record, place)
    except ConflictError:
        return other  # somebody is writing to it right now
    except (FileNotFoundError, InvalidInputError):
        # It went away while we looked, as when it is released just now.
        return State.RELEASED if entry.state is State.RELEASED else State.MISSING
    if not record.accepts(digests):
        return other
    if not note:
        return State.RESIDENT
    # A reader without write rights gets the right answer; it just is not remembered.
    with contextlib.suppress(AccessError):
        if entry.state is State.RELEASED or record.release is not None:
            end_release(store, entry.id, before, digests)
        else:
            store.catalog.see(entry, State.RESIDENT, before)
    return State.RESIDENT


def end_release(store: Store, entry_id: str, identity: Identity, digests: Digests) -> None:
    """Record that an entry's bytes are back at its path; what the trash held is dropped.

    Parameters
    ----------
    identity : Identity
        Of the file there, when it was found to be right.
    digests : Digests
        Of its bytes.
    """
    with changes.edit(store, entry_id, "recall") as draft:
        place = store.root / draft.record.entry.path
        if not has_bytes(place) or Identity.from_stat(place.lstat()) != identity:
            return  # others were quicker: what was hashed is no longer what is there
        # It may be the same inode, whose ctime this changes.
        store.trash_path(entry_id).unlink(missing_ok=True)
        identity = replace(identity, ctime_ns=place.lstat().st_ctime_ns)
        record = draft.record.completed(digests)
        entry = replace(record.entry, state=State.RESIDENT, identity=identity)
        draft.record = replace(record, entry=entry, release=None)


def has_bytes(place: Path) -> bool:
    """Tell whether anything is at a path, symlinks not followed."""
    return os.path.lexists(place)
