"""The original that a proof is made of: what it is, that it is here, and what hides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from recallfs.catalog import changes, records
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Record, Revocation, SkeletonRef
from recallfs.catalog.store import Store
from recallfs.digest.stream import digest_file
from recallfs.errors import ConflictError, IntegrityError, InvalidInputError
from recallfs.ownership import metadata_of
from recallfs.resolve.presence import settle
from recallfs.resolve.stores import Stores
from recallfs.skeleton.build import build_skeleton
from recallfs.skeleton.format import Skeleton
from recallfs.skeleton.vault import keep_skeleton
from recallfs.sources.disks import local_path
from recallfs.values import Derivation, Entry, Identity, State, now_utc


def derivation_of(store: Store, entry: Entry) -> Derivation:
    """Return the derivation that a proof runs.

    Raises
    ------
    ConflictError
        Kind ``unproved``: there is none.
    """
    derivation = records.load(store, entry.id).derivation(now_utc())
    if derivation is None:
        raise ConflictError(
            f"no recipe is on record for {store.url(entry.path)}; `recall run` records it of what "
            "it makes, `recall adopt` of files made elsewhere.",
            kind="unproved",
            details={"path": entry.path},
        )
    return derivation


def checked_original(store: Store, entry: Entry) -> tuple[Path, Identity]:
    """Make sure, by hashing, that the original is here and is the recorded one.

    Returns
    -------
    Path
    Identity
        From before it was hashed: `refuse_if_changed` holds the file to it.

    Raises
    ------
    ConflictError
        It is not here, or not as it was recorded.
    """
    state = settle(store, entry)
    place = store.root / entry.path
    if state is State.RESIDENT:
        seen = Identity.from_stat(place.lstat())
        digests = digest_file(place)
        if digests.sha256 in records.load(store, entry.id).accepted:
            return place, seen
        state = State.DIRTY
    raise ConflictError(
        f"{store.url(entry.path)} is {state.value}; a proof needs the original as it was recorded.",
        kind="dirty" if state is State.DIRTY else "conflict",
        details={"path": entry.path, "state": state.value},
    )


def refuse_if_changed(store: Store, entry: Entry, seen: Identity, *, moved: bool) -> None:
    """Refuse what was found out about an original that somebody changed meanwhile.

    Parameters
    ----------
    seen : Identity
        As `checked_original` returned it.
    moved : bool
        Whether it was renamed since by ourselves, which changes its ctime.

    Raises
    ------
    ConflictError
        Kind ``dirty``.
    """
    place = store.root / entry.path
    try:
        now = Identity.from_stat(place.lstat())
        same = now == (replace(seen, ctime_ns=now.ctime_ns) if moved else seen)
        # New permissions are no new bytes.
        same = same or digest_file(place).sha256 in records.load(store, entry.id).accepted
    except OSError:
        same = False
    if not same:
        raise ConflictError(
            f"{store.url(entry.path)} was changed, moved or dropped while it was being proved; no "
            "proof was recorded. Try again when nobody writes to it.",
            kind="dirty",
            details={"path": entry.path},
        )


def check_inputs(store: Store, derivation: Derivation, inputs: Mapping[str, Path]) -> None:
    """Make sure, by hashing, that the inputs are what the derivation was bound to."""
    for item in derivation.inputs:
        if digest_file(inputs[item.name]).sha256 != item.sha256:
            raise IntegrityError(
                f"the input {item.name}={store.url(item.path)} is no longer what it was.",
                kind="input-changed",
                details={"input": item.name, "path": item.path},
            )


def with_skeleton(store: Store, entry: Entry, original: Path) -> Record:
    """Make sure that an HDF5 original has its skeleton; return its record."""
    record = records.load(store, entry.id)
    if record.skeleton is not None and _is_whole(store, record.skeleton):
        return record
    try:
        skeleton = build_skeleton(original, sha256=entry.sha256, size_bytes=entry.size_bytes)
    except InvalidInputError as error:
        if error.kind != "not-hdf5":
            raise
        return record  # not HDF5: it must be recomputed to the same bytes, or not be released
    content = skeleton.to_bytes()
    digest = blake3(content).hexdigest()
    keep_skeleton(store, digest, content, metadata_of(original))
    with changes.edit(store, entry.id, "skeleton") as draft:
        if record.skeleton is None or record.skeleton.digest != digest:
            # A residual is for one skeleton only.
            draft.record = without_residual(draft.record)
        draft.record = replace(draft.record, skeleton=SkeletonRef(digest, len(content)))
    return draft.record


def _is_whole(store: Store, reference: SkeletonRef) -> bool:
    try:
        Skeleton.from_bytes(store.skeleton_path(reference.digest).read_bytes())
    except (OSError, IntegrityError):
        return False
    return True


def without_residual(record: Record) -> Record:
    """Take a residual off a record; the proofs that rest on it no longer count."""
    if record.residual is None:
        return record
    now = now_utc()
    gone = [proof.id for proof in record.valid_proofs(now) if proof.method == "residual"]
    reason = "the residual that it rests on was replaced"
    revocations = tuple(Revocation(each, reason, user_name(), now) for each in gone)
    return replace(record, residual=None, revocations=(*record.revocations, *revocations))


def hidden_folders(stores: Stores, store: Store) -> tuple[Path, ...]:
    """Return where the original or a copy of it could be seen: the store, vault and mirrors."""
    folders = [store.root, store.vault]
    folders += [
        folder
        for folder in (local_path(settings.url) for settings in stores.config.mirrors)
        if folder is not None
    ]
    return tuple(folder for folder in folders if folder.is_dir())
