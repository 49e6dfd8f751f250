"""Releasing: evidence to the vault, the file to the trash, and only at purge are bytes dropped."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from recallfs.atomic import fault_point, rename_without_replacing, sync_folder
from recallfs.catalog import audit, changes, records
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Record, Release, encode
from recallfs.catalog.store import Store
from recallfs.digest.stream import digest_descriptor
from recallfs.errors import (
    AccessError,
    ConflictError,
    IntegrityError,
    NotRecallableError,
    RecallError,
)
from recallfs.exclusive import Watch, watch
from recallfs.ownership import metadata_of
from recallfs.recipes.declared import check_declared, observe_declared
from recallfs.recipes.registry import find_recipe
from recallfs.release.assessment import assess
from recallfs.release.ground import Ground
from recallfs.release.policy import Decision, Wanted
from recallfs.resolve.chain import Limits
from recallfs.resolve.lease import hold_lease
from recallfs.resolve.recall import recall
from recallfs.resolve.stores import Stores
from recallfs.resolve.wish import Recalled, Wish
from recallfs.skeleton.vault import secure
from recallfs.sources.base import Progress
from recallfs.sources.disks import disk_of
from recallfs.values import Entry, State, after, now_utc


@dataclass(frozen=True)
class Released:
    """A file that was released.

    Parameters
    ----------
    freed_bytes : int
        Bytes that the disk has back now; 0 while they are in the trash.
    purge_after : str
        ISO time from which the trash may be emptied of it.
    """

    url: str
    size_bytes: int
    freed_bytes: int
    purge_after: str
    inode_watched: bool


def release(
    stores: Stores,
    store: Store,
    entry: Entry,
    decision: Decision,
    wanted: Wanted,
    *,
    progress: Progress | None = None,
) -> Released:
    """Release one file that `assess` found fit. Each condition is checked once more.

    Raises
    ------
    ConflictError
        The file is open somewhere, was changed, or got another name; nothing was changed then.
    """
    settings = stores.config.release
    hold = settings.hold if wanted.hold is None else wanted.hold

    def check() -> None:
        # Once more where nobody else can decide that something goes.
        _check_ground(store, entry, decision)

    with contextlib.ExitStack() as stack:
        # Who releases the same file at this moment is waited for, and not met half-way.
        stack.enter_context(hold_lease(store.catalog, f"entry:{entry.id}", lambda: False))
        entry = store.catalog.entry(entry.id) or entry
        for judged in (decision, assess(stores, store, entry, wanted)):
            # Judged again now: what else was released since may be what this file rests on.
            if judged.verdict != "release":
                kind = judged.kind or "conflict"
                raise ConflictError(f"{judged.url} {judged.reason}.", kind=kind)
        _check_declared(stores, records.load(store, entry.id), decision.evidence)
        draft = stack.enter_context(changes.edit(store, entry.id, "release", check=check))
        place = store.locate(entry.path)
        now = now_utc()
        _check_evidence(draft.record, decision, now)
        with watch(place) as watched:
            if not watched.is_exclusive:
                hold = max(hold, settings.grace)
            intended = Release(
                stage="trashed",
                at=now,
                by=user_name(),
                purge_after=after(now, hold),
                evidence=decision.evidence,
                inode_watched=watched.is_exclusive,
            )
            entry_then = replace(
                draft.record.entry,
                state=State.RELEASED,
                identity=None,
                # As they are now: who was shut out since the file was added stays so.
                metadata=metadata_of(watched.descriptor),
            )
            released = replace(draft.record, entry=entry_then, release=intended)
            secure(store, released, encode(released))
            fault_point("release.vaulted")
            _check_inode(watched, draft.record, progress)
            fault_point("release.intended")
            trashed = store.trash_path(entry.id)
            _move_to_trash(watched, trashed)
            draft.undo = lambda: rename_without_replacing(trashed, place)
            draft.record = released
    fault_point("release.recorded")
    why = {"policy": wanted.policy} if wanted.policy else {}
    said = {"evidence": decision.evidence, "why": decision.reason, **why}
    audit.note(store, "release", entry, user_name(), said)
    # What the recipe reads beside files was looked at just now.
    freed = purge(store, entry.id) if hold <= timedelta(0) else 0
    return Released(
        decision.url, entry.size_bytes, freed, intended.purge_after, intended.inode_watched
    )


def purge(store: Store, entry_id: str, stores: Stores | None = None) -> int:
    """Drop the trashed bytes of one entry, after hashing that very inode again.

    Parameters
    ----------
    stores : Stores, optional
        Says where recipes are; with it, what the recipe reads beside files is looked at once more.

    Returns
    -------
    int
        Bytes freed; 0 if they were recalled or purged meanwhile.

    Raises
    ------
    ConflictError
        Kind ``dirty`` if somebody wrote to them; they are put back at their path. Kind ``unproved``
        if what the release rested on is gone; they stay in the trash then.
    IntegrityError
        Kind ``input-changed`` if the recipe would read something else by now beside its files; they
        stay in the trash, too.
    """
    if stores is not None:
        # Before anything is locked: it may take long to ask.
        _check_declared_again(stores, store, records.load(store, entry_id))

    def check() -> None:
        _check_rests(store, records.load(store, entry_id))

    with changes.edit(store, entry_id, "purge", check=check) as draft:
        trashed = store.trash_path(entry_id)
        current = draft.record.release
        if current is None or current.stage != "trashed":
            return 0
        if not trashed.exists():
            draft.record = replace(draft.record, release=replace(current, stage="purged"))
            return 0
        if current.purge_after > now_utc():
            return 0  # released anew, with a longer hold, since it was listed as due
        with watch(trashed) as watched:
            size = os.fstat(watched.descriptor).st_size
            digests = digest_descriptor(watched.descriptor)
            fault_point("purge.hashed")
            if digests.sha256 not in draft.record.accepted:
                _put_back_changed(store, draft.record, trashed)
            trashed.unlink()
            sync_folder(trashed.parent)
            fault_point("purge.unlinked")
        draft.record = replace(draft.record, release=replace(current, stage="purged"))
    audit.note(store, "purge", draft.record.entry, user_name(), {"size_bytes": size})
    return size


def purge_expired(
    store: Store, stores: Stores | None = None
) -> Iterator[tuple[str, int | RecallError]]:
    """Purge what has been in the trash for its time; yield each entry's id and the bytes freed.

    Parameters
    ----------
    stores : Stores, optional
        As for `purge`.
    """
    for entry_id in store.catalog.trashed(before=now_utc()):
        try:
            yield entry_id, purge(store, entry_id, stores)
        except RecallError as error:
            yield entry_id, error


def undo(stores: Stores, store: Store, entry: Entry) -> Recalled:
    """Take a release back while the bytes are in the trash.

    Raises
    ------
    NotRecallableError
        If they are purged.
    AccessError
        If the caller may not write to the store.
    """
    if not store.is_writable:
        raise AccessError(f"you cannot write to the store at {store.root}; `recall get` copies.")
    record = records.load(store, entry.id)
    if record.release is None:
        raise ConflictError(f"{store.url(entry.path)} is not released.")
    if record.release.stage != "trashed":
        raise NotRecallableError(
            f"{store.url(entry.path)} was purged; `recall get` brings it back from its sources."
        )
    return recall(stores, store, entry.path, Wish(limits=Limits(only="trash")))


def vault_warning(store: Store) -> str | None:
    """Say so if the vault would be lost together with the store."""
    if disk_of(store.vault) != disk_of(store.root):
        return None
    return (
        f"the vault {store.vault} is on the same disk as the store; a lost disk takes both. "
        f"Set `vault` for [stores.{store.name}] to a folder on another one."
    )


def _check_ground(store: Store, entry: Entry, decision: Decision) -> None:
    """Refuse a release whose proof, by now, rests on something that is about to go."""
    if not decision.evidence.startswith("proof:"):
        return
    if Ground(store, now_utc()).gap(records.load(store, entry.id)):
        raise ConflictError(
            f"{decision.url} rests on an input that is being dropped just now.", kind="relied-on"
        )


def _check_declared(stores: Stores, record: Record, evidence: str) -> None:
    """Refuse to drop a file whose recipe would read other rows by now than when it was proved."""
    derivation = record.derivation(now_utc())
    if derivation is None or not derivation.declared or not evidence.startswith("proof:"):
        return
    settings = stores.config.recipes
    recipe = find_recipe(derivation.recipe, settings.modules, settings.paths)
    check_declared(
        recipe.name, derivation.declared, observe_declared(recipe, derivation.parameters)
    )


def _check_declared_again(stores: Stores, store: Store, record: Record) -> None:
    """Refuse to drop bytes for good whose recipe would read other rows by now."""
    release = record.release
    if release is None or release.stage != "trashed":
        return
    if not store.trash_path(record.entry.id).exists():
        return  # it came back, or is gone already
    try:
        _check_declared(stores, record, release.evidence)
    except RecallError as error:
        url = store.url(record.entry.path)
        said = f"{url} stays in the trash: {error.message} `recall undo` puts it back."
        if isinstance(error, IntegrityError):
            details = {**error.details, "path": record.entry.path}
            raise IntegrityError(said, kind=error.kind, details=details) from error
        details = {"path": record.entry.path}
        raise ConflictError(said, kind="unproved", details=details) from error


def _check_rests(store: Store, record: Record) -> None:
    """Refuse to drop bytes for good whose evidence has gone since they were released."""
    release = record.release
    if release is None or release.stage != "trashed" or not release.evidence.startswith("proof:"):
        return
    if not store.trash_path(record.entry.id).exists():
        return
    if Ground(store, now_utc()).gap(record):
        raise ConflictError(
            f"{store.url(record.entry.path)} stays in the trash: its proof no longer counts, or "
            "an input is gone. `recall undo` puts it back.",
            kind="unproved",
            details={"path": record.entry.path},
        )


def _check_evidence(record: Record, decision: Decision, now: str) -> None:
    """Make sure that what the decision rests on still stands when it is carried out."""
    if record.is_pinned:
        raise ConflictError(f"{decision.url} was pinned meanwhile.", kind="pinned")
    kind, _, identifier = decision.evidence.partition(":")
    proofs = {proof.id for proof in record.valid_proofs(now)}
    if kind == "proof" and identifier not in proofs:
        raise ConflictError(f"the proof of {decision.url} no longer counts.", kind="unproved")


def _check_inode(watched: Watch, record: Record, progress: Progress | None) -> None:
    """Look at the very inode that will be dropped: regular, one name, the recorded bytes."""
    status = os.fstat(watched.descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ConflictError(f"{watched.path} is not a regular file.")
    if status.st_nlink != 1:
        raise ConflictError(
            f"{watched.path} has {status.st_nlink} names (hard links); dropping one frees nothing.",
            kind="hard-linked",
        )
    digests = digest_descriptor(watched.descriptor, progress=progress)
    if digests.sha256 not in record.accepted:
        raise ConflictError(
            f"{watched.path} was changed since it was recorded; `recall add` accepts it as it is.",
            kind="dirty",
            details={"expected": record.entry.sha256, "actual": digests.sha256},
        )
    watched.check()
    named = watched.path.lstat()
    if (named.st_dev, named.st_ino) != (status.st_dev, status.st_ino):
        raise ConflictError(f"{watched.path} was replaced meanwhile.", kind="in-use")


def _move_to_trash(watched: Watch, trashed: Path) -> None:
    """Rename a file into the trash; whatever goes wrong, it goes back."""
    place = watched.path
    rename_without_replacing(place, trashed)
    try:
        moved, wanted = trashed.lstat(), os.fstat(watched.descriptor)
        if (moved.st_dev, moved.st_ino) != (wanted.st_dev, wanted.st_ino):
            # Somebody saved another file there in the last moment: that is what was renamed.
            raise ConflictError(f"{place} was replaced meanwhile.", kind="in-use")
        sync_folder(place.parent)
        sync_folder(trashed.parent)
        fault_point("release.trashed")
    except BaseException:
        rename_without_replacing(trashed, place)
        raise


def _put_back_changed(store: Store, record: Record, trashed: Path) -> None:
    """Return trashed bytes that somebody wrote to: they are somebody's data."""
    place = store.root / record.entry.path
    try:
        rename_without_replacing(trashed, place)
    except ConflictError:
        raise ConflictError(
            f"{trashed} was written to after its release, and its path is taken; both are kept.",
            kind="dirty",
        ) from None
    settled = replace(
        record, entry=replace(record.entry, state=State.RESIDENT, identity=None), release=None
    )
    records.save(store, settled)
    raise ConflictError(
        f"{store.url(record.entry.path)} was written to after its release; it was put back.",
        kind="dirty",
        details={"path": record.entry.path},
    )


def totals(results: Sequence[Released]) -> tuple[int, int]:
    """Return the bytes freed now, and those that wait in the trash."""
    freed = sum(item.freed_bytes for item in results)
    return freed, sum(item.size_bytes for item in results) - freed


def purge_days(results: Sequence[Released]) -> list[tuple[str, int]]:
    """Return on which days (UTC) how many bytes of the trash become free, earliest first."""
    days: dict[str, int] = {}
    for item in results:
        if item.size_bytes > item.freed_bytes:
            day = item.purge_after[:10]
            days[day] = days.get(day, 0) + item.size_bytes - item.freed_bytes
    return sorted(days.items())
