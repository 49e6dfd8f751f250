"""Pushing: resident files copied to a source that keeps them, read back, and put on record."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from recallfs.catalog import records
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import SOURCE_KINDS, nearest
from recallfs.errors import InvalidInputError, RecallError
from recallfs.recipes.outputs import leading_names
from recallfs.release.copies import record_copies
from recallfs.resolve.answers import conflict
from recallfs.resolve.inquiry import answer_key
from recallfs.resolve.presence import settle
from recallfs.resolve.recall import recall
from recallfs.resolve.results import Output, Result, blocks_digest, decode, encode
from recallfs.resolve.stores import Stores
from recallfs.sources.base import Progress, RemoteSource
from recallfs.sources.mirror import MirrorSource, derivation_suffix
from recallfs.sources.recompute import output_name
from recallfs.values import Derivation, Entry, State


@dataclass(frozen=True)
class Pushed:
    """What became of one file.

    Parameters
    ----------
    status : {"copied", "there", "skipped"}
        *There*: the target had the right bytes already.
    location : str
        Where the copy is; empty if it was skipped.
    reason : str
        Why it was skipped, or what could not be done beside; else empty.
    """

    url: str
    size_bytes: int
    status: str
    location: str
    seconds: float
    reason: str = ""


def push_target(stores: Stores, name: str) -> RemoteSource:
    """Return the source of a name.

    Raises
    ------
    InvalidInputError
        There is none, or it is turned off.
    """
    remotes = {source.name: source for source in stores.remotes()}
    if name in remotes:
        return remotes[name]
    if name in SOURCE_KINDS or name in (f"mirror:{item.name}" for item in stores.config.mirrors):
        state = "is turned off" if name not in ("cache", "mirror", "recompute") else "keeps nothing"
        raise InvalidInputError(f"{name} {state}; push to one of: {', '.join(remotes) or 'none'}.")
    raise InvalidInputError(
        f"there is no source {name!r}{nearest(name, list(remotes))} (known: "
        f"{', '.join(remotes) or 'none; configure a [[sources.mirror]]'})."
    )


def push(
    stores: Stores,
    store: Store,
    entry: Entry,
    target: RemoteSource,
    *,
    recall_first: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Copy one file to a source; on record only when it was read back and is right.

    Parameters
    ----------
    recall_first : bool
        Bring the file back if it is not resident; else it is skipped.
    progress : callable, optional
        Told of every byte twice: when it is written, and when it is read back.

    Raises
    ------
    ConflictError
        The file was changed; or other bytes are in its place at the target, and stay there.
    InvalidInputError, IntegrityError, SourceError, AccessError
        As `recallfs.sources.base.RemoteSource.put`.
    """
    start = time.monotonic()
    url = store.url(entry.path)
    state = settle(store, entry)
    if state in (State.DIRTY, State.CONFLICT):
        raise conflict(store, entry, state)
    if state is not State.RESIDENT:
        if not recall_first:
            why = f"is {state.value}; --recall brings it back first"
            return Pushed(url, entry.size_bytes, "skipped", "", 0.0, why)
        file = recall(stores, store, entry.path).path
    else:
        file = store.root / entry.path
    record = records.load(store, entry.id)
    placed = target.put(store, record, file, progress)
    if placed.copy not in record.copies:
        record_copies(store, entry.id, [placed.copy])
    # It is there now, whatever was said and remembered before.
    stores.memory.forget(target, answer_key(record))
    try:
        reason = _push_derivations(store, record, target)
    except RecallError as error:
        # The file itself is safe; how it was made can be written by the next push.
        reason = f"its derivation could not be written: {error.message}"
    status = "copied" if placed.is_new else "there"
    seconds = time.monotonic() - start
    return Pushed(url, entry.size_bytes, status, placed.copy.location, seconds, reason)


def _push_derivations(store: Store, record: Record, target: RemoteSource) -> str:
    """Write beside a file how it was made, so that others find it by that; say what is amiss."""
    if not isinstance(target, MirrorSource):
        return ""
    for derivation in record.derivations:
        name = output_name(derivation, record.entry.id)
        if name not in leading_names(item.name for item in derivation.outputs):
            continue  # a folder's first file takes the record of all of them along
        result = _result(store, derivation)
        if result is None:
            continue
        with store.staging() as scratch:
            file = scratch / "derivation"
            file.write_bytes(encode(result))
            if target.put_derivation(derivation.key, file):
                continue
        there = target.derivation(derivation.key)
        if there is None:
            continue
        known = decode(there, name=target.location(derivation_suffix(derivation.key)))
        if known.digests != result.digests:
            return f"{target.name} keeps another result of the same derivation; that one stays"
    return ""


def _result(store: Store, derivation: Derivation) -> Result | None:
    """Return what a derivation gave; None if an output or its environment is no longer known."""
    outputs = {}
    entries = store.catalog.outputs_of(derivation.id)
    if not {output.name for output in derivation.outputs} <= set(entries):
        return None
    for name, entry in entries.items():
        made = records.load(store, entry.id)
        outputs[name] = Output(
            path=made.entry.path,
            size_bytes=made.entry.size_bytes,
            sha256=made.entry.sha256,
            sha1=made.entry.sha1,
            blocks=blocks_digest(made.blocks),
        )
    try:
        environment = json.loads(store.environment_path(derivation.environment_id).read_bytes())
    except (OSError, ValueError):
        return None
    return Result(
        key=derivation.key,
        recipe=derivation.recipe,
        version=derivation.version,
        source_digest=derivation.source_digest,
        outputs=outputs,
        seed=derivation.seed,
        started_at=derivation.started_at,
        threads=derivation.threads,
        seconds=derivation.seconds,
        environment=environment,
    )
