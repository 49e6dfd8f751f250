"""Copies that may replace a proof: immutable, elsewhere, and read whole just now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from recallfs.catalog import changes
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.errors import RecallError
from recallfs.resolve.stores import Stores
from recallfs.sources.mirror import MirrorSource, disk_of, local_path
from recallfs.values import Copy, now_utc


def verified_copies(stores: Stores, store: Store, record: Record) -> tuple[str, ...]:
    """Read every copy that could count, and return the names of the mirrors where one does.

    Notes
    -----
    A copy counts only under its digest (a file by path can be changed), on another disk or host
    than the store, and if it is not the file itself in disguise. What was found is recorded.
    """
    found: list[Copy] = []
    for settings in stores.config.mirrors:
        source = MirrorSource(settings)
        domain = source.failure_domain()
        folder = local_path(settings.url)
        if domain == disk_of(store.root) or (folder and _overlaps(folder, store.root)):
            continue
        for url, how in source.candidates(record):
            if how == "by digest" and _holds(source, url, store, record):
                found.append(Copy(source.name, url, domain, True, now_utc()))
                break
    if found:
        with changes.edit(store, record.entry.id, "copies") as draft:
            draft.record = replace(draft.record, copies=(*draft.record.copies, *found))
    return tuple(dict.fromkeys(copy.source for copy in found))


def _holds(source: MirrorSource, url: str, store: Store, record: Record) -> bool:
    place = local_path(url)
    if "::" in url:
        return False  # what a chained URL reads may come from a cache on this computer
    if place is not None and (
        place.is_relative_to(store.root) or _is_same_file(place, store.root / record.entry.path)
    ):
        return False
    try:
        return source.digest_of(url).sha256 in record.accepted
    except RecallError:
        return False


def _overlaps(folder: Path, root: Path) -> bool:
    return folder.is_relative_to(root) or root.is_relative_to(folder)


def _is_same_file(copy: Path, original: Path) -> bool:
    try:
        return copy.samefile(original)
    except OSError:
        return False
