"""Where the bytes behind a URL lie, if that is a disk of this computer."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from recallfs.catalog.store import Store
from recallfs.mounts import is_within

_LOCAL = ("", "file", "local")


def innermost(url: str) -> str:
    """Return where the bytes of a chained URL (``simplecache::file:///data``) lie."""
    return url.rpartition("::")[2]


def is_local(url: str) -> bool:
    """Tell whether a URL names a path of this computer."""
    return urlsplit(innermost(url)).scheme in _LOCAL


def given_path(url: str) -> Path | None:
    """Return the path that a ``file:`` URL names, as it is written there; None for any other."""
    if not is_local(url):
        return None
    url = innermost(url)
    scheme = urlsplit(url).scheme
    # As fsspec reads it: '#' and '?' are parts of the name, and nothing is percent-encoded.
    path = url.removeprefix(f"{scheme}:") if scheme else url
    return Path(f"/{path.lstrip('/')}")


def local_path(url: str) -> Path | None:
    """Return the real path that a ``file:`` URL names, or None for any other."""
    path = given_path(url)
    return None if path is None else Path(os.path.realpath(path))


def disk_of(path: Path) -> str:
    """Name the disk that a local path is on, whether or not the path exists yet."""
    for place in (path, *path.parents):
        try:
            return f"disk:{place.stat().st_dev}"
        except OSError:
            continue
    return "disk:?"


def store_around(url: str, store: Store) -> str | None:
    """Say that a URL leads into a store itself, or into its vault; None if it leads elsewhere."""
    path = local_path(url)
    if path is None:
        return None
    for folder, what in ((store.root, "the store"), (store.vault, "the vault of the store")):
        if is_within(path, folder):
            return f"{path} is inside {what} at {store.root}"
    return None
