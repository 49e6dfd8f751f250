"""Ending what a killed process had begun: each change is finished or undone, never left half."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from recallfs.atomic import is_regular, place
from recallfs.catalog import records
from recallfs.catalog.database import Intent
from recallfs.catalog.holder import Holder, user_name
from recallfs.catalog.sidecar import Record, Release
from recallfs.catalog.store import Store
from recallfs.errors import AccessError, ConflictError, IntegrityError, RecallError
from recallfs.values import Digests, State, now_utc

_NEVER = "9999-12-31T00:00:00.000000+00:00"


def recover(store: Store) -> int:
    """Clean up after dead processes of this host; costs two small reads when all is well.

    Returns
    -------
    int
        How many changes were ended.
    """
    try:
        store.sweep_staging()
        return _end_asides(store) + sum(end_if_dead(store, i) for i in store.catalog.intents())
    except (AccessError, PermissionError):
        return 0  # a reader without write rights leaves it to somebody who has them


def end_if_dead(store: Store, intent: Intent) -> bool:
    """End a change whose process has died; for use without any lock of the store."""
    if not Holder.parse(intent.holder).is_known_dead():
        return False
    # What this user may not read is left to somebody who may.
    with contextlib.suppress(AccessError), store.lock(intent.entry_id):
        # Read again: somebody may have ended it while we waited for the lock.
        current = store.catalog.intent(intent.entry_id)
        if current is not None and current.holder == intent.holder:
            end(store, current)
            return True
    return False


def _end_asides(store: Store, entry_id: str = "") -> int:
    """Put originals back that a killed proof had set aside; an occupied path keeps both."""
    ended = 0
    asides = (store.control / "aside").glob(f"*-{entry_id}*")
    for aside in filter(is_regular, list(asides)):
        holder = Holder.from_token(aside.name)
        entry = store.catalog.entry(aside.name.rpartition("-")[2])
        if holder is None or not holder.is_known_dead() or entry is None:
            continue
        with contextlib.suppress(ConflictError, FileNotFoundError):
            place(aside, store.root / entry.path)
            ended += 1
    return ended


def end_strays(store: Store) -> None:
    """Put back what is in the trash though no record says so, as when a catalog was lost."""
    for trashed in filter(is_regular, list((store.control / "trash").iterdir())):
        with contextlib.suppress(RecallError), store.lock(trashed.name):
            record = records.load(store, trashed.name)
            if record.release is None:
                store.catalog.put([reconciled(store, record)])


def end(store: Store, intent: Intent) -> None:
    """End a change whose process is gone; for use where nobody else is at work on the entry."""
    try:
        record = records.load(store, intent.entry_id)
    except IntegrityError:
        if store.sidecar_path(intent.entry_id).exists():
            # Damaged: what the catalog knows is all there is, until the vault's copy is restored.
            store.catalog.drop_intent(intent.entry_id)
        else:
            # Never written, or dropped as the last step of forgetting.
            store.catalog.drop(intent.entry_id)
        return
    if intent.action == "create":
        _end_create(store, record)
    elif intent.action == "move":
        _end_move(store, record, intent)
    elif intent.action == "forget":
        _end_forget(store, record)
    elif intent.action == "replace" and store.catalog.entry(intent.entry_id) is None:
        # Its path was given to another entry; putting its sidecar away was the last step.
        records.retire(store, intent.entry_id)
        store.catalog.drop_intent(intent.entry_id)
    else:
        if intent.action == "aside":
            _end_asides(store, intent.entry_id)
        store.catalog.put([reconciled(store, record)])


def _end_create(store: Store, record: Record) -> None:
    """Keep a new entry if its bytes got their name; else nothing ever happened."""
    if _held(store, record) is not None:
        known = store.catalog.entry_at(record.entry.path)
        replaced = [known.id] if known is not None and known.id != record.entry.id else []
        store.catalog.put([records.with_identity(store, record)], replacing=replaced)
        for entry_id in replaced:
            records.retire(store, entry_id)
            store.catalog.drop_intent(entry_id)
    else:
        records.discard(store, record.entry.id)


def _end_move(store: Store, record: Record, intent: Intent) -> None:
    old, new = str(intent.details["old"]), str(intent.details["new"])
    moved = replace(record, entry=replace(record.entry, path=new))
    stayed = replace(record, entry=replace(record.entry, path=old))
    old_is_there = (store.root / old).exists()
    if old_is_there and _held(store, moved) and _held(store, stayed):
        (store.root / old).unlink()  # both names stand for one inode or one content
        old_is_there = False
    final = stayed if old_is_there else moved
    records.save(store, reconciled(store, final))


def _end_forget(store: Store, record: Record) -> None:
    if (store.root / record.entry.path).exists():
        store.catalog.put([reconciled(store, record)])
    else:
        store.trash_path(record.entry.id).unlink(missing_ok=True)
        records.discard(store, record.entry.id)


def reconciled(store: Store, record: Record) -> Record:
    """Bring a record in line with where its bytes are: at the path, in the trash, or nowhere.

    Notes
    -----
    The sidecar is written again if it has to change.
    """
    entry = record.entry
    trashed = store.trash_path(entry.id)
    held = _held(store, record)
    if held is not None:
        trashed.unlink(missing_ok=True)
        whole = record.completed(held)
        settled = replace(whole, entry=replace(whole.entry, state=State.RESIDENT), release=None)
        if settled != record:
            records.save(store, settled)
        return records.with_identity(store, settled)
    if record.release is None and is_regular(trashed):
        # Killed on the way into the trash: putting the file back is always safe.
        try:
            place(trashed, store.root / entry.path)
        except ConflictError:
            # Something else is there by now. Both are kept; the trash keeps ours for good.
            kept = Release("trashed", now_utc(), user_name(), _NEVER, "recovery", False)
            settled = replace(record, entry=replace(entry, state=State.RELEASED), release=kept)
            records.save(store, settled)
            return settled
        return records.with_identity(store, record)
    if record.release is not None:
        stage = "trashed" if is_regular(trashed) else "purged"
        release = replace(record.release, stage=stage)
        settled = replace(record, entry=replace(entry, state=State.RELEASED), release=release)
        if settled != record:
            records.save(store, settled)
        return settled
    return record


def _held(store: Store, record: Record) -> Digests | None:
    """Return the digests of what is at an entry's path, if it is one of its accepted byte forms.

    Raises
    ------
    AccessError
        The file is there, and the caller may not read it: its owner has to find out.
    """
    try:
        digests = records.digest(record, store.root / record.entry.path)
    except AccessError:
        raise
    except (RecallError, OSError):
        return None
    return digests if record.accepts(digests) else None
