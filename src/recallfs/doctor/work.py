"""Work that dead processes left: staging folders, intents, leases, originals set aside."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from recallfs.catalog import statistics
from recallfs.catalog.database import Lease
from recallfs.catalog.holder import Holder
from recallfs.catalog.recovery import recover
from recallfs.catalog.store import Store
from recallfs.doctor.faults import Finding
from recallfs.errors import ConflictError

_WEEK_S = 7 * 86_400


def check_work(store: Store) -> Iterator[Finding]:
    """Look for unfinished work whose process is dead, or cannot be told alive from here."""
    yield from _staging(store)
    yield from _asides(store)
    yield from _intents(store)
    yield from _leases(store)


def _staging(store: Store) -> Iterator[Finding]:
    for folder in sorted((store.control / "staging").iterdir()):
        holder = Holder.from_token(folder.name)
        if holder is None:
            age = time.time() - folder.lstat().st_mtime
            if age > _WEEK_S:
                problem = f"It is {age / 86_400:.0f} days old."
                yield Finding("staging-foreign", str(folder), problem, store.name)
        elif holder.is_known_dead():
            problem = f"Its process {holder.pid} is dead."
            yield Finding(
                "staging-leftover", str(folder), problem, store.name,
                partial(_remove, folder),
            )  # fmt: skip


def _asides(store: Store) -> Iterator[Finding]:
    for path in sorted((store.control / "aside").iterdir()):
        holder = Holder.from_token(path.name)
        entry = store.catalog.entry(path.name.rpartition("-")[2])
        place = store.url(entry.path) if entry else str(path)
        if holder is None:
            yield Finding("aside-foreign", place, f"It is at {path}.", store.name)
        elif holder.is_known_dead():
            problem = f"It is at {path}; the process {holder.pid} is dead."
            mend = _recovering(store, path.exists) if entry else None
            yield Finding("aside-dead", place, problem, store.name, mend)


def _intents(store: Store) -> Iterator[Finding]:
    own = Holder.current().host.partition("/")[0]
    for intent in store.catalog.intents():
        holder = Holder.parse(intent.holder)
        place = store.url(intent.path)
        host = holder.host.partition("/")[0]
        if holder.is_known_dead():
            problem = f"The process {holder.pid} died in: {intent.action}."
            mend = _recovering(
                store,
                partial(store.catalog.intent, intent.entry_id),
            )
            yield Finding("intent-dead", place, problem, store.name, mend)
        elif host != own:
            problem = (
                f"{intent.action}, by the process {holder.pid} on {host or 'an unknown host'}."
            )
            yield Finding("intent-foreign", place, problem, store.name)


def _leases(store: Store) -> Iterator[Finding]:
    for key, lease in statistics.held_leases(store.catalog):
        holder = Holder.parse(lease.holder or "")
        if holder.is_known_dead():
            problem = f"Held by the process {holder.pid}, which is dead."
            yield Finding(
                "lease-dead", key, problem, store.name,
                partial(_free, store, key, lease),
            )  # fmt: skip


def _remove(folder: Path) -> str:
    shutil.rmtree(folder)
    return "removed"


def _recovering(store: Store, is_left: Callable[[], object]) -> Callable[[], str]:
    def mend() -> str:
        recover(store)
        if is_left():
            raise ConflictError("its path is taken; both are kept. Move one of them away.")
        return "finished or undone"

    return mend


def _free(store: Store, key: str, lease: Lease) -> str:
    # Taken over first: should its holder live after all, its fence no longer counts.
    fence = store.catalog.take_lease(key, str(Holder.current()), instead_of=lease)
    if fence is not None:
        store.catalog.free_lease(key, fence)
    return "given back"
