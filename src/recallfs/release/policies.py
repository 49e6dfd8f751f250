"""Release policies of the configuration: which files each is about, and how many it takes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace

from recallfs.catalog.database import Place
from recallfs.catalog.store import Store
from recallfs.config import Floor, PolicySettings
from recallfs.release.assessment import Assessed
from recallfs.release.policy import Wanted, until_free
from recallfs.resolve.selection import glob_pattern, select_places
from recallfs.resolve.stores import Stores
from recallfs.sources.disks import disk_of


def files_of(
    stores: Stores, policy: PolicySettings, selection: Sequence[str] = ()
) -> list[tuple[Store, Place]]:
    """Return where the files stand that a policy is about, of a selection if one is given.

    Raises
    ------
    InvalidInputError
        As for `select`.
    """
    names = policy.stores or stores.names()
    patterns = [glob_pattern(text) for text in policy.pattern]
    found = (
        select_places(stores, selection)
        if selection
        else [
            (store, place)
            for store in map(stores.by_name, names)
            for place in store.catalog.places_below("")
        ]
    )
    return [
        (store, place)
        for store, place in found
        if store.name in names
        and (not patterns or any(pattern.fullmatch(place.path) for pattern in patterns))
    ]


def wanted_by(policy: PolicySettings, given: Wanted) -> Wanted:
    """Return what a policy asks for, with what only the caller allows; a given hold counts."""
    return replace(
        given,
        older_than=policy.older_than,
        min_size_bytes=policy.min_size,
        hold=policy.hold if given.hold is None else given.hold,
        idle=policy.idle,
        lowest=policy.level,
        copies=policy.copies,
        policy=policy.name,
    )


def only_needed(chosen: Sequence[Assessed], keep_free: Floor) -> list[Assessed]:
    """Take of files only as many as it takes to have so much free on each store's disk.

    Notes
    -----
    What waits in the trash counts as free: it will be, and a policy that runs each night must not
    release more each night until then.
    """
    by_disk: dict[str, list[int]] = {}
    stores: dict[str, dict[str, Store]] = {}
    for number, (store, _, _) in enumerate(chosen):
        disk = disk_of(store.root)
        by_disk.setdefault(disk, []).append(number)
        stores.setdefault(disk, {})[store.id] = store
    result = list(chosen)
    for disk, numbers in by_disk.items():
        usage = shutil.disk_usage(next(iter(stores[disk].values())).root)
        waiting = sum(map(_trash_bytes, stores[disk].values()))
        missing = keep_free.on(usage.total) - usage.free - waiting
        decided = until_free([chosen[number][2] for number in numbers], missing)
        for number, decision in zip(numbers, decided, strict=True):
            result[number] = (*chosen[number][:2], decision)
    return result


def _trash_bytes(store: Store) -> int:
    trashed = store.catalog.entries_by_id(store.catalog.trashed())
    return sum(entry.size_bytes for entry in trashed.values())
