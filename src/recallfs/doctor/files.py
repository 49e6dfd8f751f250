"""The tree against the catalog: files that are gone, changed, touched, or marked as open."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator

from recallfs.catalog import records, statistics
from recallfs.catalog.holder import Holder
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.digest.stream import digest_descriptor
from recallfs.doctor.faults import Finding
from recallfs.errors import AccessError, ConflictError, IntegrityError, RecallError
from recallfs.exclusive import watch
from recallfs.ownership import differences, metadata_of
from recallfs.resolve.chain import plan_for
from recallfs.resolve.commit import restore_ownership
from recallfs.resolve.presence import observe, settle
from recallfs.resolve.stores import Stores
from recallfs.skeleton.consistency import Restoration, find_restoration
from recallfs.values import Entry, Identity, State


def check_files(stores: Stores, store: Store, progress: Callable[[int], None]) -> Iterator[Finding]:
    """Compare every entry with what is at its path; hash what only hashing can tell.

    Parameters
    ----------
    progress : callable
        Called with the number of entries done since the last call.
    """
    for entry in store.catalog.entries_below(""):
        progress(1)
        state = observe(store, entry)
        if state in (State.RESIDENT, State.RELEASED) or _is_busy(store, entry):
            continue
        try:
            if state is State.MISSING:
                yield _missing(stores, store, entry)
            elif state is State.CONFLICT:
                yield _occupied(store, entry, "A folder, link or special file is there.")
            else:
                yield from _hashed(store, entry)
        except IntegrityError:
            continue  # its sidecar is damaged, which is told elsewhere
        except RecallError as error:
            yield Finding("file-unreadable", store.url(entry.path), error.message, store.name)


def check_ownership(store: Store) -> Iterator[Finding]:
    """Look at files that a recall could not give back to their owner."""
    for entry_id in statistics.not_restored(store.catalog):
        entry = store.catalog.entry(entry_id)
        if entry is None or observe(store, entry) is not State.RESIDENT:
            continue
        record = records.load(store, entry_id)
        wrong = differences(metadata_of(store.root / entry.path), record.entry.metadata)
        if wrong:
            yield Finding(
                "not-restored",
                store.url(entry.path),
                f"Not as recorded: {', '.join(wrong)}.",
                store.name,
                lambda record=record: _restore(store, record),  # type: ignore[misc]
            )


def _restore(store: Store, record: Record) -> str:
    if not restore_ownership(store, record):
        raise AccessError("only root, or its owner, can put its owner, group and mode back.")
    return "owner, group, mode and ACL are as recorded"


def _is_busy(store: Store, entry: Entry) -> bool:
    """Tell whether somebody brings the file back, or has it aside for a proof, just now."""
    lease = store.catalog.lease(f"entry:{entry.id}")
    if lease is None or lease.holder is None:
        return False
    return not Holder.parse(lease.holder).is_known_dead()


def _missing(stores: Stores, store: Store, entry: Entry) -> Finding:
    plan = plan_for(stores, store, entry)
    if plan.action == "open":
        return Finding("file-missing", plan.url, plan.reason, store.name)
    if plan.action == "recall" and not any(step.is_sure for step in plan.steps):
        ways = " or ".join(step.source for step in plan.steps)
        problem = f"Only {ways} might have it; `recall explain` asks."
        return Finding("file-lost", plan.url, problem, store.name)
    if plan.action == "recall":
        ways = ", ".join(step.source for step in plan.steps)
        return Finding("file-missing", plan.url, f"It can come back from: {ways}.", store.name)
    return Finding("file-lost", plan.url, plan.reason, store.name)


def _occupied(store: Store, entry: Entry, what: str) -> Finding:
    fault = "path-occupied" if entry.state is State.RELEASED else "file-changed"
    return Finding(fault, store.url(entry.path), what, store.name)


def _hashed(store: Store, entry: Entry) -> Iterator[Finding]:
    """Hash a file that is not as it was last seen."""
    place = store.root / entry.path
    record = records.load(store, entry.id)
    status = place.lstat()
    sizes = {entry.size_bytes, *(item.size_bytes for item in record.incarnations)}
    if status.st_size in sizes:
        if record.accepts(records.digest(record, place)):
            yield Finding(
                "file-touched",
                store.url(entry.path),
                "Its identity (inode or times) is not the one last seen.",
                store.name,
                lambda: _see(store, entry),
            )
            return
        if entry.state is not State.RELEASED and marks_of(store, entry) is not None:
            yield Finding(
                "hdf5-flags",
                store.url(entry.path),
                "A writer was killed; only the marks in the superblock differ.",
                store.name,
                lambda: heal(store, entry),
            )
            return
    yield _occupied(
        store,
        entry,
        f"It has {status.st_size} bytes; recorded were {entry.size_bytes}."
        if status.st_size not in sizes
        else "It has the recorded size and other bytes.",
    )


def _see(store: Store, entry: Entry) -> str:
    state = settle(store, entry)
    if state is not State.RESIDENT:
        raise ConflictError(f"{store.url(entry.path)} is {state.value} by now.")
    return "noted as unchanged"


def marks_of(store: Store, entry: Entry) -> Restoration | None:
    """Return how a file's consistency marks were recorded, if nothing else differs."""
    record = records.load(store, entry.id)
    descriptor = os.open(store.root / entry.path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return find_restoration(descriptor, record.accepted, record.blocks)
    finally:
        os.close(descriptor)


def heal(store: Store, entry: Entry) -> str:
    """Put back the recorded consistency marks of a file, in place.

    Raises
    ------
    ConflictError
        Kind ``in-use`` if anybody has the file open; ``dirty`` if more than the marks differ.
    IntegrityError
        If the file does not read back as recorded; the marks are then as they were found.
    """
    record = records.load(store, entry.id)
    place = store.root / entry.path
    with watch(place, writable=True) as watched, store.lock(entry.id):
        descriptor = watched.descriptor
        if not watched.is_exclusive:
            _refuse_writer(store, entry, descriptor)
        restoration = find_restoration(descriptor, record.accepted, record.blocks)
        if restoration is None:
            raise ConflictError(
                f"{store.url(entry.path)} differs in more than its marks; it was left alone.",
                kind="dirty",
            )
        os.pwrite(descriptor, restoration.superblock, restoration.offset)
        os.utime(descriptor, ns=(os.fstat(descriptor).st_atime_ns, entry.metadata.mtime_ns))
        os.fsync(descriptor)
        actual = digest_descriptor(descriptor).sha256
        if actual not in record.accepted:
            os.pwrite(descriptor, restoration.found, restoration.offset)
            os.fsync(descriptor)
            raise IntegrityError(
                f"{store.url(entry.path)} reads back other than it was written; check the disk.",
                details={"expected": restoration.sha256, "actual": actual},
            )
        watched.check()
        store.catalog.see(entry, State.RESIDENT, Identity.from_stat(os.fstat(descriptor)))
    return f"the recorded marks are back; sha256 {actual}"


def _refuse_writer(store: Store, entry: Entry, descriptor: int) -> None:
    """Ask HDF5's own lock where the system has no leases."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConflictError(
            f"{store.url(entry.path)} is open in another process; it was left alone.",
            kind="in-use",
        ) from None
