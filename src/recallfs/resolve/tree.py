"""Changing the managed tree: add, move, forget."""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace

from recallfs.atomic import make_folder, rename_without_replacing, sync_folder
from recallfs.catalog import audit, changes, records
from recallfs.catalog.database import Intent
from recallfs.catalog.holder import Holder, user_name
from recallfs.catalog.store import Store
from recallfs.errors import ConflictError, InvalidInputError
from recallfs.resolve.presence import has_bytes, observe, settle
from recallfs.values import CONTROL_FOLDER, Entry, State, normalise_path


def files_below(
    store: Store, path: str, *, skipped: Callable[[str, str], None] | None = None
) -> Iterator[str]:
    """Iterate over the regular files at or below a path, in order; symlinks are not followed.

    Parameters
    ----------
    skipped : callable, optional
        Told the path of everything that is neither file nor folder, and what it is.
    """
    skip = skipped or (lambda _path, _what: None)
    place = store.locate(path)
    if place.is_symlink():
        skip(path, "symlink")
        return
    if not place.is_dir():
        if stat.S_ISREG(place.lstat().st_mode):
            yield path
        else:
            skip(path, "special file")
        return
    for item in sorted(os.scandir(place), key=lambda found: found.name):
        if item.name == CONTROL_FOLDER:
            continue
        child = f"{path}/{item.name}" if path else item.name
        if item.is_dir(follow_symlinks=False):
            yield from files_below(store, child, skipped=skipped)
        elif item.is_file(follow_symlinks=False):
            yield child
        else:
            skip(child, "symlink" if item.is_symlink() else "special file")


def needs_adding(store: Store, path: str) -> bool:
    """Tell whether a file is not in the catalog, or was changed since it was.

    Raises
    ------
    ConflictError
        If the entry is released and this is another file at its path: to catalog it would give
        up the released one.
    """
    entry = store.catalog.entry_at(normalise_path(path))
    if entry is None:
        return True
    state = settle(store, entry)
    if state is State.CONFLICT:
        raise ConflictError(
            f"{store.url(path)} is released, and the file at its path is another one; move that "
            "away, or `recall forget` the released one first.",
            details={"path": path},
        )
    return state is not State.RESIDENT


def move(store: Store, old: str, new: str) -> None:
    """Rename a file; its entry, with all evidence, goes along. Never replaces anything.

    Raises
    ------
    ConflictError
        If something is at the new path.
    """
    entry = store.catalog.entry_at(old)
    source, target = store.locate(old), store.locate(new)
    if has_bytes(target) or store.catalog.entry_at(new) is not None:
        raise ConflictError(f"{store.url(new)} exists; it was left as it is.")
    if entry is None:
        if source.is_dir():
            raise InvalidInputError(f"{store.url(old)} is a folder.", kind="is-a-folder")
        make_folder(target.parent)
        changes.beside(store, old, lambda: rename_without_replacing(source, target))
        return

    def check() -> None:
        if store.catalog.entry_at(new) is not None:
            raise ConflictError(f"{store.url(new)} exists; it was left as it is.")

    with changes.edit(store, entry.id, "move", {"old": old, "new": new}, check=check) as draft:
        if draft.record.entry.path != old:
            raise ConflictError(f"{store.url(old)} was moved meanwhile; try again.")
        draft.record = replace(draft.record, entry=replace(draft.record.entry, path=new))
        if has_bytes(source):
            # The rename changes the file's identity; only of bytes that were the recorded ones
            # is the new one noted. Others, written in place, would pass for them.
            is_unchanged = observe(store, entry) is State.RESIDENT
            make_folder(target.parent)
            rename_without_replacing(source, target)
            draft.undo = lambda: rename_without_replacing(target, source)
            sync_folder(target.parent)
            sync_folder(source.parent)
            if entry.state is State.RESIDENT:
                inode = entry.identity.inode if is_unchanged and entry.identity else 0
                draft.record = records.with_identity(store, draft.record, inode)


def refuse_if_needed(store: Store, entry: Entry) -> None:
    """Refuse to drop or replace an entry that is pinned or that released files are made from.

    Raises
    ------
    ConflictError
        Kind ``pinned`` or ``relied-on``.
    """
    record = records.load(store, entry.id)
    if record.is_pinned:
        raise ConflictError(
            f"{store.url(entry.path)} is pinned ({record.pins[-1].reason or 'no reason given'}); "
            "`recall unpin` ends that.",
            kind="pinned",
        )
    leaving = changes.leaving(store)

    def stays(other: Entry) -> bool:
        return other.id not in leaving and settle(store, other, note=False) is State.RESIDENT

    resting = [
        other
        for other in store.catalog.dependents(entry)
        if leaving.get(other.id) != "forget" and not stays(other)
    ]
    spare = any(
        other.id != entry.id and stays(other)
        for other in store.catalog.entries_with_sha256(entry.sha256)
    )
    if resting and not spare:
        raise ConflictError(
            f"{store.url(entry.path)} is needed to make {store.url(resting[0].path)}"
            + (f" and {len(resting) - 1} more released files" if len(resting) > 1 else "")
            + "; recall or forget those first.",
            kind="relied-on",
            details={"dependents": [store.url(other.path) for other in resting]},
        )


def forget(store: Store, path: str, *, check: bool = True) -> Entry:
    """Drop a file and its entry for good.

    Parameters
    ----------
    check : bool
        Refuse what `refuse_if_needed` refuses.
    """
    entry = records.known_entry(store, path)
    if check:
        refuse_if_needed(store, entry)
    changes.end_dead(store)
    place = store.root / entry.path
    if place.is_dir() and not place.is_symlink():
        raise InvalidInputError(f"{store.url(path)} is a folder.", kind="is-a-folder")
    with store.lock(entry.id):
        current = store.catalog.entry(entry.id)
        if current is None or (current.path, current.state) != (entry.path, entry.state):
            raise ConflictError(
                f"{store.url(path)} was moved, released or recalled meanwhile; try again."
            )
        intent = Intent(entry.id, "forget", entry.path, {}, str(Holder.current()))
        # Asked again where nobody can release what rests on it meanwhile.
        refuse = functools.partial(refuse_if_needed, store, entry) if check else None
        changes.claim(store, [intent], refuse)
        if entry.state is not State.RELEASED:
            # At a released path there is only what somebody else put there: it is not ours.
            place.unlink(missing_ok=True)
        store.trash_path(entry.id).unlink(missing_ok=True)
        audit.note(store, "forget", entry, user_name(), {"sha256": entry.sha256})
        records.discard(store, entry.id)
    return entry


def remove_folder(store: Store, path: str) -> None:
    """Remove a folder that holds no entries and no files.

    Raises
    ------
    ConflictError
        If it is not empty.
    """
    if next(iter(store.catalog.entries_below(path)), None) is not None:
        raise ConflictError(f"{store.url(path)} still holds entries.")
    place = store.locate(path)
    try:
        place.rmdir()
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise ConflictError(f"{store.url(path)} is not empty.") from error
        raise
