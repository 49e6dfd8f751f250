"""Kept digests of every object of a file: what says, when the file is gone, what differs from it.

They are kept when a file is proved, and copied to the vault when it is released. Nothing rests on
them: a recall needs none, and where they are lost only a comparison with the file that is gone is.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from recallfs.atomic import read_record, write_record
from recallfs.catalog.store import Store
from recallfs.catalog.vaulted import vault_place
from recallfs.digest.hdf5 import ContentDigest, content_digest
from recallfs.errors import IntegrityError, InvalidInputError
from recallfs.ownership import metadata_of
from recallfs.values import Entry


def keep_contents(store: Store, entry: Entry, original: Path) -> None:
    """Digest each object of an HDF5 file and keep that; nothing for other files.

    Raises
    ------
    ConflictError
        If somebody writes to it.
    """
    local = store.contents_path(entry.sha256)
    if local.exists():
        return
    try:
        content = content_digest(original).to_bytes()
    except InvalidInputError:
        return  # not HDF5, or of a kind that cannot be compared by content
    with contextlib.suppress(OSError):
        write_record(local, content, like=metadata_of(original))


def load_contents(store: Store, entry: Entry) -> ContentDigest | None:
    """Return the kept digests of an entry's objects, from the store or else from the vault."""
    local = store.contents_path(entry.sha256)
    for place in (local, vault_place(store, local)):
        with contextlib.suppress(OSError, IntegrityError):
            return ContentDigest.from_bytes(read_record(place))
    return None
