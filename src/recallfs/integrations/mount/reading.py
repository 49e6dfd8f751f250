"""Opening a file of a mount: as it is, or after it came back."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from recallfs import log
from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.errors import AccessError, ConflictError, SourceError
from recallfs.integrations.mount.binding import is_interrupted
from recallfs.integrations.mount.callers import Caller, can_become_others
from recallfs.integrations.mount.contract import Opened
from recallfs.permissions import may_read
from recallfs.resolve.recall import recall
from recallfs.resolve.stores import Stores
from recallfs.resolve.wish import Wish
from recallfs.values import Entry, Identity

if TYPE_CHECKING:
    from recallfs.integrations.mount.view import View

_LOOKS = 3
_POLL_S = 0.05
_REMEMBERED = 65536

_Result = TypeVar("_Result")


class Opener:
    """Opens files for the programs that use a mount.

    Parameters
    ----------
    stores : Stores
    view : View
    """

    def __init__(self, stores: Stores, view: View) -> None:
        self._stores = stores
        self._view = view
        self._seen: dict[str, Identity] = {}

    def open(self, path: str, flags: int) -> Opened:
        """Open a file, bringing it back first if need be.

        Parameters
        ----------
        path : str
            In the mount.
        flags : int
            As for `os.open`.
        """
        caller = Caller.current()
        for _ in range(_LOOKS):
            try:
                with caller.acting():
                    descriptor = self._view.open_beneath(path, flags)
            except FileNotFoundError:
                entry = self._view.entry(path)
                if entry is None:
                    raise
            else:
                return Opened(descriptor, self._is_unchanged(path, descriptor))
            opened = self._open_absent(path, entry, flags, caller)
            if opened is not None:
                return opened
        raise SourceError(f"{path} is released as fast as it comes back; try again.")

    def _open_absent(self, path: str, entry: Entry, flags: int, caller: Caller) -> Opened | None:
        """Open a file that is not here; None if it is at its path now."""
        store = self._view.store
        if flags & os.O_TRUNC:
            raise ConflictError(
                f"{store.url(entry.path)} is released; what is written would take the place of "
                "something that can come back. `recall forget` it, or read it first.",
                details={"path": entry.path},
            )
        self._check(entry, path, caller)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            return open_for_reading(self._stores, store, entry)
        if not store.is_writable:
            raise AccessError(f"the store of {store.url(entry.path)} cannot be written to.")
        recalled(self._stores, store, entry)
        return None

    def _check(self, entry: Entry, path: str, caller: Caller) -> None:
        """Refuse who could not read the file, and who reads all there is or is part of a recall."""
        if can_become_others() and caller.uid != os.geteuid():
            # The evidence, not the catalog, holds the ACL.
            metadata = records.load(self._view.store, entry.id).entry.metadata
            folder = path.rpartition("/")[0] or "/"
            self._view.check_access(folder, os.X_OK, caller)
            if not may_read(metadata, caller.uid, caller.groups):
                raise AccessError(
                    f"user {caller.uid} may not read {self._view.store.url(entry.path)}: its "
                    f"recorded permissions ({metadata.mode & 0o777:04o}) keep them out."
                )
        if caller.is_among(self._stores.config.readers.deny):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        if caller.descends_from(os.getpid()):
            # It would wait for itself.
            raise OSError(errno.EDEADLK, os.strerror(errno.EDEADLK), path)

    def _is_unchanged(self, path: str, descriptor: int) -> bool:
        """Tell whether a file is the one that was last opened here, with the same bytes."""
        identity = Identity.from_stat(os.fstat(descriptor))
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        before, self._seen[path] = self._seen.get(path), identity
        return before == identity


def open_for_reading(stores: Stores, store: Store, entry: Entry) -> Opened | None:
    """Open a file that is not here, in parts where it can be; None if it now is at its path.

    Parameters
    ----------
    entry : Entry
        The caller may read it.
    """
    # NumPy, which this takes, starts threads, and `apart.leave` wants none.
    from recallfs.partial.opening import find_parts

    parts = find_parts(stores, store, entry.path)
    if parts is not None and parts.choice().is_partial:
        return Opened(parts.open(_wish()))
    place, size_bytes = recalled(stores, store, entry)
    if size_bytes != entry.size_bytes:
        # Below the exact level it may have another size, and the kernel believes in the old one:
        # this makes it look again, and open again.
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), entry.path)
    if place == store.root / entry.path:
        return None
    return Opened(os.open(place, os.O_RDONLY | os.O_CLOEXEC))


def recalled(stores: Stores, store: Store, entry: Entry) -> tuple[Path, int]:
    """Bring a file back; return where it is and its size in bytes."""
    url = store.url(entry.path)
    result = _done_or_interrupted(lambda: recall(stores, store, entry.path, _wish()), url)
    return result.path, result.path.stat().st_size


def _wish() -> Wish:
    return Wish(announce=lambda sentence: log.event("mount", operation="open", message=sentence))


def _done_or_interrupted(work: Callable[[], _Result], url: str) -> _Result:
    """Do work in a thread of its own; who waits for it may be interrupted, and the work goes on."""
    results: list[_Result] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name=f"recall {url}", daemon=True).start()
    while not done.wait(_POLL_S):
        if is_interrupted():
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
    if errors:
        raise errors[0]
    return results[0]
