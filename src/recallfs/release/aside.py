"""Putting an original out of a recipe's sight by renaming it, where the kernel cannot hide it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from recallfs.atomic import make_folder, place
from recallfs.catalog.store import Store
from recallfs.values import Entry, Identity, State


@contextmanager
def set_aside(store: Store, entry: Entry) -> Iterator[None]:
    """Keep an entry's file away from its path for a while; for use under the entry's lease.

    Notes
    -----
    Readers that go through recallfs wait on the lease; a process that dies leaves the file where
    the next one to open the store finds it and puts it back (`recallfs.catalog.recovery`).
    """
    original, aside = store.root / entry.path, store.aside_path(entry.id)
    make_folder(aside.parent)
    place(original, aside)
    try:
        yield
    finally:
        place(aside, original)
        # The rename changed the inode's ctime, not its bytes.
        _see_again(store, entry)


def _see_again(store: Store, entry: Entry) -> None:
    identity = Identity.from_stat((store.root / entry.path).lstat())
    known = entry.identity
    if known is not None and (identity.inode, identity.mtime_ns) == (known.inode, known.mtime_ns):
        store.catalog.see(entry, State.RESIDENT, identity)
