"""Moving and removing files of a store, released ones without bringing them back."""

from __future__ import annotations

from recallfs.catalog import changes
from recallfs.catalog.store import Store
from recallfs.errors import NotRecallableError
from recallfs.resolve import tree
from recallfs.resolve.chain import plan_for
from recallfs.resolve.presence import has_bytes, observe
from recallfs.resolve.stores import Stores
from recallfs.values import State


def remove_file(store: Store, path: str) -> None:
    """Remove a file and forget its entry; see `RecallFileSystem.rm_file`."""
    if store.catalog.entry_at(path) is not None:
        tree.forget(store, path)
        return
    place = store.locate(path)
    if place.is_dir() and not place.is_symlink():
        raise IsADirectoryError(store.url(path))
    changes.beside(store, path, place.unlink)


def move_file(stores: Stores, store: Store, old: str, new: str) -> None:
    """Move a file that exists within its store, over whatever file is there.

    Raises
    ------
    NotRecallableError
        The file is missing, and nothing is known to bring it back.
    """
    if old == new:
        return
    entry = store.catalog.entry_at(old)
    if entry is not None and observe(store, entry) is State.MISSING:
        # It must be worth what is about to be dropped for it.
        plan = plan_for(stores, store, entry)
        if not any(step.is_sure for step in plan.steps) and plan.action != "open":
            raise NotRecallableError(
                f"{plan.url}: {plan.reason} Nothing is known to bring it back.",
                details={"path": old},
            )
    if store.catalog.entry_at(new) is not None:
        tree.forget(store, new)
    elif has_bytes(store.locate(new)):
        changes.beside(store, new, store.locate(new).unlink)
    tree.move(store, old, new)
