"""Putting an original out of a recipe's sight by renaming it, where the kernel cannot hide it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from recallfs.atomic import make_folder, place
from recallfs.catalog import changes
from recallfs.catalog.database import Intent
from recallfs.catalog.holder import Holder
from recallfs.catalog.store import Store
from recallfs.errors import ConflictError
from recallfs.resolve.presence import has_bytes
from recallfs.values import Entry, Identity, State


@contextmanager
def set_aside(store: Store, entry: Entry) -> Iterator[None]:
    """Keep an entry's file away from its path for a while; for use under the entry's lease.

    Raises
    ------
    ConflictError
        Kind ``in-use``: another process is changing the entry; or it was moved or released
        meanwhile.

    Notes
    -----
    Readers that go through recallfs wait on the lease, and nobody moves, forgets or writes over the
    entry: its path looks free, but is claimed. A process that dies leaves the file where the next
    one to open the store finds it and puts it back (`recallfs.catalog.recovery`).
    """
    original, aside = store.root / entry.path, store.aside_path(entry.id)
    make_folder(aside.parent)
    intent = Intent(entry.id, "aside", entry.path, {}, str(Holder.current()))

    def check() -> None:
        current = store.catalog.entry(entry.id)
        if current is None or current.path != entry.path or not has_bytes(original):
            raise ConflictError(
                f"{store.url(entry.path)} was moved or released meanwhile.", kind="in-use"
            )

    changes.end_dead(store)
    with store.writing():  # a rebuild of the catalog would forget the claim
        changes.claim(store, [intent], check)
        try:
            place(original, aside)
            try:
                yield
            finally:
                place(aside, original)
                # The rename changed the inode's ctime, not its bytes.
                _see_again(store, entry)
        finally:
            store.catalog.drop_intent(entry.id)


def _see_again(store: Store, entry: Entry) -> None:
    identity = Identity.from_stat((store.root / entry.path).lstat())
    known = entry.identity
    if known is not None and (identity.inode, identity.mtime_ns) == (known.inode, known.mtime_ns):
        store.catalog.see(entry, State.RESIDENT, identity)
