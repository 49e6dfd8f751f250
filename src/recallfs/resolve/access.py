"""Refusing a recall to those who could not have read the file."""

from __future__ import annotations

import os
from pathlib import Path

from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.errors import AccessError
from recallfs.ownership import own_groups
from recallfs.permissions import may_read
from recallfs.values import Entry


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
