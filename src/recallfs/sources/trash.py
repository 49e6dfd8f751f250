"""Released bytes that are still in the trash: the nearest source of all."""

from __future__ import annotations

import errno
import os
import shutil

from recallfs.atomic import is_regular, not_ours
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.errors import AccessError, NotRecallableError
from recallfs.sources.base import Fetched, Need, Offer, Request, Source


class TrashSource(Source):
    """The store's own trash."""

    name = "trash"
    kind = "trash"

    def offer(self, store: Store, record: Record) -> Offer | None:
        """Offer the trashed bytes while they are there."""
        if record.release is None or record.release.stage != "trashed":
            return None
        return Offer(self.name, "put back from the trash", 0.0)

    def need(self, store: Store, record: Record) -> Need | None:
        """Return None where nothing is copied; who may not write to the store needs a copy."""
        return None if store.is_writable else super().need(store, record)

    def fetch(self, request: Request) -> Fetched:
        """Give the trashed inode a second name in scratch; the trash keeps its own until commit.

        Where the system allows that to its owner alone, the commit takes it out of the trash. For
        who may not write to the store it is copied: the inode stays the store's.
        """
        staged = request.scratch / "data"
        trashed = request.store.trash_path(request.record.entry.id)
        if os.path.lexists(trashed) and not is_regular(trashed):
            raise not_ours(trashed)
        try:
            if request.store.is_writable:
                os.link(trashed, staged, follow_symlinks=False)
            else:
                shutil.copyfile(trashed, staged, follow_symlinks=False)
        except FileNotFoundError:
            raise NotRecallableError("the trash no longer has it.") from None
        except OSError as error:
            # Linux' fs.protected_hardlinks: no names for what one cannot write. Or another disk.
            if not request.store.is_writable and isinstance(error, PermissionError):
                raise AccessError(f"you cannot read it in the trash: {error.strerror}.") from error
            if error.errno not in (errno.EPERM, errno.EACCES, errno.EXDEV):
                raise
            if request.scratch.is_relative_to(request.store.control):
                staged = trashed
            else:
                shutil.copyfile(trashed, staged, follow_symlinks=False)
        return Fetched(staged, None, "from the trash")
