"""What is in a store, as fsspec tells it: files, folders, and what the catalog knows of them."""

from __future__ import annotations

import os
import stat
from datetime import datetime
from typing import Any

from recallfs.catalog.store import Store
from recallfs.errors import AccessError, InvalidInputError
from recallfs.resolve.presence import observe
from recallfs.values import CONTROL_FOLDER, Entry

_UNKNOWN = "unknown"  # what is given for a state that only hashing could tell


def describe(store: Store, relative: str, name: str) -> dict[str, Any]:
    """Describe what is at a path of a store, here or on record.

    Parameters
    ----------
    store : Store
    relative : str
        In the store.
    name : str
        What the caller called it.

    Raises
    ------
    AccessError
        The caller may not look there.
    FileNotFoundError
        There is nothing.
    """
    entry = store.catalog.entry_at(relative)
    try:
        status = store.locate(relative).stat()
    except (FileNotFoundError, NotADirectoryError):
        status = None
    except PermissionError as error:
        raise AccessError(f"you cannot look at recall://{name}: {error.strerror}.") from error
    if entry is not None:
        return _entry_info(store, entry, status)
    if status is not None:
        return _plain_info(store, relative, status)
    entries, folders = store.catalog.children(relative)
    if entries or folders:
        return {"name": name, "size": 0, "type": "directory"}
    raise FileNotFoundError(f"recall://{name}")


def list_folder(store: Store, folder: str) -> list[dict[str, Any]] | None:
    """List a folder; None if it is a file; FileNotFoundError if it is nothing."""
    entries, subfolders = store.catalog.children(folder)
    found: dict[str, dict[str, Any]] = {}
    statuses: dict[str, os.stat_result] = {}
    place = store.locate(folder)
    try:
        with os.scandir(place) as scan:
            for item in scan:
                relative = f"{folder}/{item.name}" if folder else item.name
                if item.name == CONTROL_FOLDER:
                    continue
                try:
                    if item.is_symlink():
                        store.locate(relative)
                    statuses[relative] = item.stat()
                except FileNotFoundError:
                    continue  # a dangling symlink, or gone since it was listed
                except InvalidInputError:
                    continue  # a symlink out of the store: not managed
                found[relative] = _plain_info(store, relative, statuses[relative])
        exists = True
    except NotADirectoryError:
        return None
    except FileNotFoundError:
        exists = False
    for entry in entries:
        found[entry.path] = _entry_info(store, entry, statuses.get(entry.path))
    for name in subfolders:
        relative = f"{folder}/{name}" if folder else name
        found.setdefault(
            relative, {"name": f"{store.name}/{relative}", "size": 0, "type": "directory"}
        )
    if not exists and not found:
        if store.catalog.entry_at(folder) is not None:
            return None
        raise FileNotFoundError(store.url(folder))
    return list(found.values())


def _entry_info(store: Store, entry: Entry, status: os.stat_result | None) -> dict[str, Any]:
    info = {
        "name": f"{store.name}/{entry.path}",
        "size": entry.size_bytes if status is None else status.st_size,
        "type": "file",
        "mtime": entry.metadata.mtime if status is None else status.st_mtime,
        "created": datetime.fromisoformat(entry.created_at).timestamp(),
        "mode": stat.S_IFREG | entry.metadata.mode if status is None else status.st_mode,
        "sha256": entry.sha256,
    }
    if status is not None:
        info["ino"] = status.st_ino
    state = observe(store, entry)
    info["state"] = _UNKNOWN if state is None else state.value
    if state is None:
        del info["sha256"]  # something was written there: the record does not describe it
    return info


def _plain_info(store: Store, relative: str, status: os.stat_result) -> dict[str, Any]:
    is_folder = stat.S_ISDIR(status.st_mode)
    return {
        "name": f"{store.name}/{relative}",
        "size": 0 if is_folder else status.st_size,
        "type": "directory" if is_folder else "file",
        "mtime": status.st_mtime,
        "created": status.st_ctime,
        "mode": status.st_mode,
        "ino": status.st_ino,
    }
