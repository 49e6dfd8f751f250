"""What a store holds, gathered for `recall status`: sums from the catalog, sizes from the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from recallfs.cache.cache import Cache
from recallfs.catalog import attempts, records, statistics
from recallfs.catalog.lineage import work_by
from recallfs.catalog.statistics import Amount
from recallfs.catalog.store import Store
from recallfs.catalog.vaulted import vault_place, was_used
from recallfs.cli.output import count_files
from recallfs.config import CacheSettings, ReleaseSettings
from recallfs.errors import AccessError, RecallError
from recallfs.release.release import vault_warning
from recallfs.values import format_size, now_utc

LATELY = timedelta(days=7)
IDLE = timedelta(days=30)
_LARGEST = 5
_FAILURES = 5
_SAMPLE_FILES = 2000
_SHARDS = 256


def gather(store: Store, settings: ReleaseSettings) -> dict[str, Any]:
    """Gather everything about a store, as the JSON document that `recall status` prints.

    Notes
    -----
    Asks the catalog for sums and looks at a few thousand files of the control folder at most, so
    that it takes about as long for a million files as for a thousand.
    """
    catalog = store.catalog
    now = datetime.now(timezone.utc)
    moment = now.isoformat(timespec="microseconds")
    since = (now - LATELY).isoformat(timespec="microseconds")
    summary = statistics.summarise(catalog, now)
    trash = statistics.trash_totals(catalog, moment)
    disk = os.statvfs(store.root)
    kept = _kept(store)
    refused = _too_large(
        store, now, settings.max_skeleton, has_residuals=kept["residuals_bytes"] > 0
    )
    return {
        "name": store.name,
        "root": str(store.root),
        "vault": str(store.vault),
        "states": {state: _amount(amount) for state, amount in summary.states.items()},
        "recipes": {
            name: {state: _amount(amount) for state, amount in states.items()}
            for name, states in summary.recipes.items()
        },
        "last_used": {age: _amount(amount) for age, amount in summary.ages.items()},
        "largest_idle": [
            {"url": store.url(path), "size_bytes": size}
            for path, size in statistics.largest_idle(catalog, now, idle=IDLE, limit=_LARGEST)
        ],
        "proved_and_resident": _amount(summary.proved),
        "releasable": _less(summary.releasable, refused),
        "derived_and_unproved": _less(summary.derived, summary.proved),
        "proofs_failed": sum(1 for _ in attempts.failed(store)),
        "in_trash": {
            **_amount(trash.waiting),
            "due": _amount(trash.due),
            "next_purge": trash.next_purge,
        },
        "kept": kept,
        "disk": {
            "free_bytes": disk.f_bavail * disk.f_frsize,
            "size_bytes": disk.f_blocks * disk.f_frsize,
        },
        "recalls": _recalls(catalog.recall_totals()),
        "recalls_lately": _recalls(catalog.recall_totals(since)),
        "failures_lately": [
            {
                "at": event["at"],
                "what": event["action"],
                "url": store.url(event["path"]),
                "who": event["who"],
                "message": str(event["details"].get("message", "")),
            }
            for event in statistics.failures_since(catalog, since, limit=_FAILURES)
        ],
        "warnings": list(_warnings(store, trash)),
    }


WORK_COLUMNS = (
    "files>", "resident>", "size>", "released>", "size>", "runs>", "hours>", "CPU hours>",
    "peak memory>",
)  # fmt: skip
"""What `work_cells` tells."""


def work_page(store: Store, parameter: str | None) -> dict[str, Any]:
    """Gather what recipes made and what it cost, as the JSON document of `recall status --by`."""
    found = work_by(store.catalog, parameter)
    return {
        "name": store.name,
        "root": str(store.root),
        "work": [
            {"recipe": recipe, "value": value, **work.to_json()}
            for (recipe, value), work in found.items()
        ],
    }


def work_cells(work: Mapping[str, Any]) -> list[str]:
    """Write what a recipe made and cost as the cells of a table."""
    states = work["states"]
    nothing = {"files": 0, "size_bytes": 0}
    here, gone = states.get("resident", nothing), states.get("released", nothing)
    peak = work["peak_memory_bytes"]
    return [
        f"{sum(item['files'] for item in states.values()):,}",
        f"{here['files']:,}",
        format_size(here["size_bytes"]),
        f"{gone['files']:,}",
        format_size(gone["size_bytes"]),
        f"{work['runs']:,}",
        f"{work['seconds'] / 3600:.2f}",
        f"{work['cpu_seconds'] / 3600:.2f}",
        format_size(peak) if peak else "-",
    ]


def cache_use(settings: CacheSettings) -> dict[str, Any]:
    """Say how much is in the caller's own cache and in the shared one, from sums that are kept."""
    cache = Cache(settings)
    own, shared = cache.own_usage(), cache.shared_usage()
    unverified = cache.blocks.unverified()
    return {
        "own": {
            "folder": str(cache.folder),
            "files": own.files,
            "size_bytes": own.size_bytes,
            "limit_bytes": settings.limit,
            "unverified": {"files": unverified.files, "size_bytes": unverified.size_bytes},
        },
        "shared": None
        if shared is None
        else {
            "folder": str(settings.shared_folder),
            "files": shared.files,
            "size_bytes": shared.size_bytes,
            "limit_bytes": settings.shared_limit,
        },
    }


def label_unverified(cache: Mapping[str, Any]) -> Iterator[str]:
    """Iterate over lines that say what of the caller's cache is unverified, if anything is."""
    found = cache["own"]["unverified"]
    if found["files"]:
        yield (
            f"  unverified parts: {count_files(found['files'])}, "
            f"{format_size(found['size_bytes'])}; only an ETag ties them to their files"
        )


def _warnings(store: Store, trash: statistics.TrashTotals) -> Iterator[str]:
    warning = vault_warning(store)
    if warning is not None:
        yield warning
    if was_used(store) and not (store.vault / store.id).is_dir():
        yield f"the vault {store.vault} is not there; nothing can be released."
    count, size = store.catalog.without_ground(now_utc())
    if count:
        yield (
            f"{count:,} released files ({format_size(size)}) have neither a proof that counts nor "
            "a copy; `recall get` them where that works, then `recall prove`."
        )
    if trash.due.files:
        yield f"the trash holds {trash.due.files:,} files that are due; `recall release --purge`."
    if not os.access(store.control, os.W_OK):
        yield str(AccessError(f"you cannot write to {store.root}; you can read and recall only."))


def _amount(amount: Amount) -> dict[str, int]:
    return {"files": amount.files, "size_bytes": amount.size_bytes}


def _less(amount: Amount, part: Amount) -> dict[str, int]:
    return {
        "files": max(0, amount.files - part.files),
        "size_bytes": max(0, amount.size_bytes - part.size_bytes),
    }


def _too_large(store: Store, now: datetime, share: float, *, has_residuals: bool) -> Amount:
    """Add up the proved files of which a release would refuse to keep so large a skeleton.

    The catalog knows what is kept of a file in all. How much of that is a residual, which has a
    limit of its own, the sidecars say, of which some are asked.
    """
    found = statistics.much_kept(store.catalog, now, share)
    asked = _SAMPLE_FILES if has_residuals else 0
    sizes = [
        size
        for number, (entry_id, size) in enumerate(found)
        if number >= asked or not _is_small(store, entry_id, share * size)
    ]
    return Amount(len(sizes), sum(sizes))


def _is_small(store: Store, entry_id: str, limit_bytes: float) -> bool:
    try:
        skeleton = records.load(store, entry_id).skeleton
    except RecallError:
        return False
    return skeleton is None or skeleton.stored_bytes <= limit_bytes


def _recalls(totals: Iterable[tuple[str, int, int, float]]) -> list[dict[str, Any]]:
    return [
        {"source": source, "files": count, "size_bytes": size, "seconds": seconds}
        for source, count, size, seconds in totals
    ]


def _kept(store: Store) -> dict[str, Any]:
    """Measure what is kept of files besides themselves."""
    parts = {
        "sidecars": store.control / "entries",
        "skeletons": store.control / "skeletons",
        "residuals": store.control / "residuals",
        "vault_sidecars": vault_place(store, store.control / "entries"),
        "vault_skeletons": vault_place(store, store.control / "skeletons"),
        "vault_residuals": vault_place(store, store.control / "residuals"),
    }
    measured = {name: _measure(folder) for name, folder in parts.items()}
    return {
        **{f"{name}_bytes": size for name, (size, _) in measured.items()},
        "is_estimate": any(is_estimate for _, is_estimate in measured.values()),
    }


def _measure(folder: Path) -> tuple[int, bool]:
    """Add up the sizes of the files in a sharded folder; of a large one, judge by a part.

    Names are random, so that every shard is like every other.
    """
    total = files = shards = 0
    for number in range(_SHARDS):
        if files > _SAMPLE_FILES:
            return round(total * _SHARDS / shards), True
        shards += 1
        try:
            with os.scandir(folder / f"{number:02x}") as found:
                for item in found:
                    total += item.stat().st_size
                    files += 1
        except OSError:
            continue
    return total, False
