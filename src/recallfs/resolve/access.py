"""Refusing a recall to those who could not have read the file."""

from __future__ import annotations

import os
from pathlib import Path

from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.errors import AccessError
from recallfs.ownership import metadata_of, own_groups
from recallfs.permissions import READ, lets_everybody, may_read
from recallfs.values import Entry

_PASS = 1


def check_reader(store: Store, entry: Entry) -> None:
    """Make sure that this process could read an entry's file if it were resident.

    Raises
    ------
    AccessError
        Its recorded mode or ACL, or a folder on the way to it, keeps the caller out.
    """
    url = store.url(entry.path)
    # The evidence, not the catalog, holds the ACL.
    metadata = records.load(store, entry.id).entry.metadata
    if not may_read(metadata, os.geteuid(), own_groups()):
        raise AccessError(
            f"you may not read {url}: its recorded permissions ({metadata.mode & 0o777:04o}, owner "
            f"{metadata.uid}, group {metadata.gid}) keep you out. Ask its owner.",
            details={"path": entry.path},
        )
    folder = _nearest_folder(store.root / entry.path)
    if not os.access(folder, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise AccessError(
            f"you may not read {url}: you may not enter the folder {folder}.",
            details={"path": entry.path},
        )


def is_public(store: Store, entry: Entry) -> bool:
    """Tell whether every user of this computer could read an entry's file if it were resident.

    Its recorded mode or ACL has to let them all read it, and each folder on the way, from the top
    of the file system, to let them all pass.
    """
    if not lets_everybody(records.load(store, entry.id).entry.metadata, READ):
        return False
    try:
        return all(
            lets_everybody(metadata_of(folder), _PASS)
            for folder in (store.root / entry.path).parents
            if folder.exists()
        )
    except OSError:
        return False


def _nearest_folder(place: Path) -> Path:
    """Return the innermost folder above a place that is there; one that is hidden counts."""
    for folder in place.parents:
        try:
            folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            pass
        return folder
    raise AssertionError("the root of the file system is always there")
