"""The cache of whoever reads a store without the right to write to it."""

from __future__ import annotations

from pathlib import Path

from recallfs.cache.cache import Cache
from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.resolve.access import is_public
from recallfs.resolve.stores import Stores
from recallfs.values import Entry


def cache_for(stores: Stores, store: Store) -> Cache:
    """Return the cache for the files of a store."""
    # Who owns a store can change what is in it, too.
    return Cache(stores.config.cache, trusted=(store.root.stat().st_uid,))


def find_cached(stores: Stores, store: Store, entry: Entry) -> Path | None:
    """Return where a file is in the cache; None for a store that the caller may write to."""
    if store.is_writable:
        return None
    return cache_for(stores, store).find(entry, records.load(store, entry.id).accepted)


def may_share(stores: Stores, store: Store, entry: Entry) -> bool:
    """Tell whether all users of this computer may read what is brought of a file."""
    settings = stores.config.cache
    return settings.shared_folder is not None and (settings.share_all or is_public(store, entry))


def is_shared(stores: Stores, store: Store, entry: Entry, cache: Cache) -> bool:
    """Tell whether a file is to be brought for all users of this computer."""
    if not may_share(stores, store, entry):
        return False
    # What is there already, and is not trusted as it is, is copied for its reader alone.
    return not cache.has_shared(entry, records.load(store, entry.id).accepted)
