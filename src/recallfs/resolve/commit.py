"""The only place where bytes get their name: verified, synced, never over something else."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from recallfs.atomic import (
    fault_point,
    is_regular,
    make_folder,
    make_shared_folder,
    not_ours,
    place,
    sync_folder,
)
from recallfs.catalog import changes, records
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Incarnation, Record
from recallfs.catalog.store import Store
from recallfs.digest.stream import digest_file
from recallfs.errors import ConflictError, NotRecallableError
from recallfs.ownership import differences, metadata_of, restore, usual_metadata
from recallfs.recipes.outputs import in_commit_order, output_path, recorded_outputs
from recallfs.resolve.lease import Grant
from recallfs.resolve.presence import observe
from recallfs.values import (
    Derivation,
    Digests,
    Entry,
    Identity,
    Level,
    Metadata,
    OutputRef,
    State,
    normalise_path,
    now_utc,
)

_ADD_BATCH = 200


def new_record(
    store: Store,
    path: str,
    digests: Digests,
    metadata: Metadata,
    *,
    derivations: tuple[Derivation, ...] = (),
    entry_id: str | None = None,
    identity: Identity | None = None,
) -> Record:
    """Make the first record of an entry."""
    now = now_utc()
    entry = Entry(
        id=entry_id or uuid.uuid4().hex,
        path=normalise_path(path),
        size_bytes=digests.size_bytes,
        sha256=digests.sha256,
        sha1=digests.sha1,
        metadata=metadata,
        created_at=now,
        identity=identity,
    )
    original = Incarnation(digests.sha256, digests.size_bytes, Level.EXACT, now)
    return Record(store.id, entry, digests.blocks, (original,), derivations=derivations)


def add_existing(
    store: Store, paths: Iterable[str], *, progress: Callable[[int], None] | None = None
) -> list[Entry]:
    """Catalog files that are in the tree already; their bytes are read once and not touched.

    Returns
    -------
    list of Entry
        Only of files that were not known, or whose bytes were changed since (a changed file
        becomes a new entry; the old one's history stays).
    """
    added: list[Entry] = []
    batch: list[Record] = []

    def flush() -> None:
        added.extend(_create_added(store, batch))
        batch.clear()

    for path in paths:
        file = store.locate(path)
        status = file.stat()
        metadata = metadata_of(file)
        digests = digest_file(file, progress=progress)
        # The identity from before the hashing: should somebody write from now on, it shows.
        identity = Identity.from_stat(status)
        batch.append(new_record(store, path, digests, metadata, identity=identity))
        if len(batch) == _ADD_BATCH:
            flush()
    if batch:
        flush()
    return added


def _create_added(store: Store, batch: list[Record], attempts: int = 5) -> list[Entry]:
    """Record files that are in the tree, all at once; one by one if others were at some."""
    changes.end_dead(store)
    paths = [record.entry.path for record in batch]
    with contextlib.ExitStack() as stack:
        standing = store.catalog.entries_at(paths)
        # The same bytes are on record already: somebody else has added the file just now.
        known = {path: entry.sha256 for path, entry in standing.items()}
        new = [record for record in batch if known.get(record.entry.path) != record.entry.sha256]
        replaced = sorted(standing[r.entry.path].id for r in new if r.entry.path in standing)
        for entry_id in replaced:
            stack.enter_context(store.lock(entry_id))
        try:
            # Not looked at before the locks were there: it may have given way meanwhile.
            still = {entry.id for entry in store.catalog.entries_at(paths).values()}
            if not still.issuperset(replaced):
                raise ConflictError("another process is adding the same files; try again.")
            if new:
                changes.create(store, new, replaced=replaced)
        except ConflictError:
            if len(batch) == 1 and not attempts:
                raise
        else:
            return [record.entry for record in new]
    left = attempts - 1 if len(batch) == 1 else attempts
    return [entry for record in batch for entry in _create_added(store, [record], left)]


def commit_new(
    store: Store,
    path: str,
    staged: Path,
    digests: Digests,
    *,
    derivations: tuple[Derivation, ...] = (),
    entry_id: str | None = None,
    replace_check: Callable[[Entry], None] | None = None,
) -> Entry:
    """Give a new file its name and its entry.

    Parameters
    ----------
    staged : Path
        Written whole, on the store's file system; gone afterwards.
    digests : Digests
        Of the staged bytes.
    replace_check : callable, optional
        Makes whatever file is at the path give way, as when it is written over; raises if the
        entry that it is given must not.

    Raises
    ------
    ConflictError
        If something else is at the path. Nothing is changed then.
    """
    target = store.locate(path)
    if not is_regular(staged):
        raise not_ours(staged)
    fault_point("stage.written")
    restore(staged, usual_metadata(target, staged.lstat().st_mtime_ns))
    fault_point("stage.synced")
    record = new_record(
        store,
        path,
        digests,
        metadata_of(staged),
        derivations=derivations,
        entry_id=entry_id,
    )
    inode = staged.stat().st_ino
    changes.end_dead(store)
    with contextlib.ExitStack() as stack:
        # Two that write one path take turns, so that the record left is that of the file left.
        stack.enter_context(store.lock(blake3(record.entry.path.encode()).hexdigest()))
        earlier = store.catalog.entry_at(record.entry.path) if replace_check else None
        if earlier is not None:
            stack.enter_context(store.lock(earlier.id))
        changes.create(
            store,
            [record],
            lambda: (_replace if replace_check else place)(staged, target),
            inode=inode,
            replaced=[earlier.id] if earlier else [],
            check=lambda: replace_check(earlier) if replace_check and earlier else None,
        )
        if earlier is not None:
            store.trash_path(earlier.id).unlink(missing_ok=True)
    return record.entry


def commit_outputs(
    store: Store,
    derivation: Derivation,
    targets: Mapping[str, str],
    made: Mapping[str, tuple[Path, Digests]],
) -> None:
    """Put all that a derivation gave into the tree, each file with the derivation on record.

    Parameters
    ----------
    targets : Mapping of str to str
        Path of each of the recipe's outputs.
    made : Mapping of str to tuple of Path and Digests
        Files, as `commit_new` takes them, by name.
    """
    references = {name: OutputRef(name, uuid.uuid4().hex) for name in made}
    for name in in_commit_order(made):
        file, digests = made[name]
        own = replace(derivation, outputs=recorded_outputs(references.values(), name))
        commit_new(
            store,
            output_path(name, targets),
            file,
            digests,
            derivations=(own,),
            entry_id=references[name].entry_id,
        )


def commit_recalled(
    store: Store,
    entry_id: str,
    staged: Path,
    digests: Digests,
    grant: Grant,
    *,
    level: Level = Level.EXACT,
) -> Entry:
    """Put an entry's verified bytes back under its name, with its permissions, owner and time.

    What the caller may not restore is an event of the entry (`not_restored`); nobody has more
    access than recorded. `restore_ownership` mends it later.

    Parameters
    ----------
    digests : Digests
        Of the staged bytes; they are one of the entry's incarnations, or what it was catalogued
        as before it was ever here: then the record is completed.
    grant : Grant
        Checked at the last moment: a process that was taken over commits nothing.
    level : Level
        Below the exact one the bytes are a new incarnation of the entry.

    Raises
    ------
    ConflictError
        If something else appeared at the path; the occupant stays as it is.
    CatalogError
        Kind ``lease-lost``.
    """
    with changes.edit(store, entry_id, "recall") as draft:
        entry = draft.record.entry
        if level is not Level.EXACT and digests.sha256 not in draft.record.accepted:
            new = Incarnation(digests.sha256, digests.size_bytes, level, now_utc())
            draft.record = replace(draft.record, incarnations=(*draft.record.incarnations, new))
        if not draft.record.accepts(digests):
            raise AssertionError("unverified bytes reached the commit")
        target = store.locate(entry.path)
        fault_point("stage.written")
        if not is_regular(staged):
            raise _vanished(store, entry) if not os.path.lexists(staged) else not_ours(staged)
        not_restored = restore(staged, entry.metadata)
        fault_point("stage.synced")
        grant.check()
        inode = staged.stat().st_ino
        place(staged, target)
        # Before its identity is noted: losing the name in the trash changes the inode's ctime.
        store.trash_path(entry_id).unlink(missing_ok=True)
        record = draft.record.completed(digests)
        resident = replace(record.entry, state=State.RESIDENT)
        draft.record = records.with_identity(
            store, replace(record, entry=resident, release=None), inode
        )
    if not_restored:
        store.catalog.add_event("recall", entry, user_name(), {"not_restored": list(not_restored)})
    return draft.record.entry


def restore_ownership(store: Store, record: Record) -> bool:
    """Give a resident file its recorded owner, group, mode and ACL once more.

    For root above all, after a recall by somebody who may not give files away. The bytes are not
    touched.

    Returns
    -------
    bool
        Whether all is as recorded now; False too if the file is not resident as recorded.
    """
    with store.lock(record.entry.id):
        entry = store.catalog.entry(record.entry.id)
        if entry is None or observe(store, entry) is not State.RESIDENT:
            return False
        target = store.locate(entry.path)
        if not differences(metadata_of(target), record.entry.metadata):
            return True
        # The time stays: a file that was recalled has the recorded one already.
        mtime_ns = target.lstat().st_mtime_ns
        left = restore(target, replace(record.entry.metadata, mtime_ns=mtime_ns))
        after = Identity.from_stat(target.lstat())
        if entry.identity is not None and after == replace(entry.identity, ctime_ns=after.ctime_ns):
            store.catalog.see(entry, State.RESIDENT, after)
    return not left


def _vanished(store: Store, entry: Entry) -> NotRecallableError:
    return NotRecallableError(
        f"{store.url(entry.path)} was purged from the trash at this moment; try again.",
        details={"path": entry.path},
    )


def keep_rejected(store: Store, entry_id: str, result: Path) -> Path:
    """Keep a result that did not match, for `recall diff`; only the newest one an entry is kept."""
    if not is_regular(result):
        raise not_ours(result)
    kept = store.rejected_path(entry_id)
    make_shared_folder(kept.parent)
    # It holds about what the file does, so the same people may read it.
    restore(result, records.load(store, entry_id).entry.metadata, concerned=True)
    result.replace(kept)
    return kept


def _replace(staged: Path, target: Path) -> None:
    if target.is_dir():
        raise ConflictError(f"{target} is a folder.", kind="is-a-folder")
    make_folder(target.parent)
    os.replace(staged, target)  # noqa: PTH105 - its name says that it replaces
    fault_point("place.linked")
    fault_point("place.unstaged")
    sync_folder(target.parent)
