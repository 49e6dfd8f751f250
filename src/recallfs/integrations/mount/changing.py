"""Changing files through a mount: in the root, and in the catalog where they are entries."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from recallfs.atomic import make_folder, rename_without_replacing
from recallfs.catalog import changes
from recallfs.errors import ConflictError, NotRecallableError
from recallfs.integrations.mount.binding import has_own_umask
from recallfs.integrations.mount.callers import Caller
from recallfs.integrations.mount.contract import Times
from recallfs.integrations.mount.nodes import HIDDEN
from recallfs.integrations.mount.view import View
from recallfs.resolve import tree
from recallfs.resolve.chain import plan_for
from recallfs.resolve.presence import observe
from recallfs.resolve.stores import Stores
from recallfs.values import Entry, Metadata, State

_NOREPLACE = 1


class Changer:
    """Changes names and attributes for the programs that use a mount.

    Parameters
    ----------
    stores : Stores
    view : View
    """

    def __init__(self, stores: Stores, view: View) -> None:
        self._stores = stores
        self._view = view
        self._store = view.store

    # -- new names --------------------------------------------------------------------------

    def make(self, path: str, act: Callable[[str], None]) -> None:
        """Make something new with the caller's rights and the mode that it asked for.

        Parameters
        ----------
        act : callable
            Called with the native path.
        """
        native = self._view.native(path)
        if self._view.entry(path) is not None:
            raise ConflictError(
                f"{self._store.url(path.lstrip('/'))} is released; `recall forget` it first."
            )
        folder = path.rpartition("/")[0] or "/"
        above = self._view.native(folder)
        if not os.path.lexists(above) and self._view.holds_entries(folder):
            make_folder(Path(above))
        with Caller.current().acting(), _no_umask():
            act(native)

    # -- names that go ----------------------------------------------------------------------

    def unlink(self, path: str) -> None:
        """Remove a file; an entry is forgotten with it, and so does not come back."""
        native, caller = self._view.native(path), Caller.current()
        relative, entry = self._view.relative(path), self._view.any_entry(path)

        def act() -> None:
            with caller.acting():
                os.unlink(native)

        if relative is None:
            act()
        elif entry is None:
            changes.beside(self._store, relative, act)
        else:
            self._check_removable(path, caller, entry)
            tree.forget(self._store, relative)
        self._view.forget(path)

    def rmdir(self, path: str) -> None:
        """Remove a folder that shows nothing."""
        native = self._view.native(path)
        if self._view.holds_entries(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        with Caller.current().acting():
            try:
                os.rmdir(native)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY or not _drop_hidden(native):
                    raise
                os.rmdir(native)

    def _check_removable(self, path: str, caller: Caller, entry: Entry | None) -> None:
        """Make sure that the caller may take a name out of its folder, as the system would."""
        folder = path.rpartition("/")[0] or "/"
        self._view.check_access(folder, os.W_OK | os.X_OK, caller)
        try:
            above = os.stat(self._view.native(folder))
        except FileNotFoundError:
            return
        try:
            owner = os.lstat(self._view.native(path)).st_uid
        except FileNotFoundError:
            owner = above.st_uid if entry is None else entry.metadata.uid
        if above.st_mode & stat.S_ISVTX and caller.uid not in (0, above.st_uid, owner):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    # -- names that change ------------------------------------------------------------------

    def rename(self, old: str, new: str, flags: int) -> None:
        """Give a file or folder another name; entries go along with all that is known of them."""
        if flags & ~_NOREPLACE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), old)
        source, target = self._view.native(old), self._view.native(new)
        caller = Caller.current()
        if new.rpartition("/")[2].startswith(HIDDEN):
            self._hide(old, source, target, caller)
        elif os.path.isdir(source) and not os.path.islink(source):
            self._rename_folder(old, new, flags, caller)
        elif not os.path.lexists(source) and self._view.any_entry(old) is None:
            if not self._view.holds_entries(old):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), old)
            self._rename_folder(old, new, flags, caller)
        elif self._view.any_entry(old) is None and self._view.any_entry(new) is None:

            def act() -> None:
                with caller.acting():
                    if flags & _NOREPLACE:
                        rename_without_replacing(Path(source), Path(target))
                    else:
                        os.rename(source, target)

            relative = self._view.relative(new)
            if relative is None:
                act()
            else:
                changes.beside(self._store, relative, act)
        else:
            self._rename_entry(old, new, flags, caller)
        self._view.forget(old)
        self._view.forget(new)

    def _hide(self, old: str, source: str, target: str, caller: Caller) -> None:
        """Remove an open file: its bytes stay, under a name of libfuse's, until it is closed."""
        entry = self._view.any_entry(old)
        if entry is None:
            with caller.acting():
                os.rename(source, target)
            return
        self._check_removable(old, caller, entry)
        tree.refuse_if_needed(self._store, entry)
        with contextlib.suppress(FileNotFoundError):  # open in parts
            os.rename(source, target)
        try:
            tree.forget(self._store, entry.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                rename_without_replacing(Path(target), Path(source))
            raise

    def _rename_entry(self, old: str, new: str, flags: int, caller: Caller) -> None:
        """Rename where at least one of the two names is an entry's."""
        entry, other = self._view.any_entry(old), self._view.any_entry(new)
        target = self._view.native(new)
        self._check_removable(old, caller, entry)
        self._check_removable(new, caller, other)
        if flags & _NOREPLACE and (other is not None or os.path.lexists(target)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
        if os.path.isdir(target) and not os.path.islink(target):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), new)
        if entry is not None and observe(self._store, entry) is State.MISSING:
            # It must be worth what is about to be dropped for it.
            plan = plan_for(self._stores, self._store, entry)
            if not any(step.is_sure for step in plan.steps):
                raise NotRecallableError(
                    f"{plan.url}: {plan.reason} Nothing is known to bring it back."
                )
        source, goal = self._relative(old), self._relative(new)
        if other is not None:
            tree.forget(self._store, goal)
        elif os.path.lexists(target):
            changes.beside(self._store, goal, lambda: os.unlink(target))
        tree.move(self._store, source, goal)

    def _rename_folder(self, old: str, new: str, flags: int, caller: Caller) -> None:
        source, target = self._view.native(old), self._view.native(new)
        if self._view.holds_entries(new) or (flags & _NOREPLACE and os.path.lexists(target)):
            code = errno.EEXIST if flags & _NOREPLACE else errno.ENOTEMPTY
            raise OSError(code, os.strerror(code), new)
        relative = self._view.relative(old)
        entries = [] if relative is None else list(self._store.catalog.entries_below(relative))
        if not entries:
            with caller.acting():
                os.rename(source, target)
            return
        self._check_removable(old, caller, None)
        self._check_removable(new, caller, None)
        if os.path.lexists(target):
            os.rmdir(target)
        goal = self._relative(new)
        for entry in entries:
            rest = entry.path[len(relative or "") :]
            tree.move(self._store, entry.path, goal + rest)
        if os.path.isdir(source):
            _merge(source, target)

    def _relative(self, path: str) -> str:
        relative = self._view.relative(path)
        if relative is None:
            raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ), path)
        return relative

    # -- attributes -------------------------------------------------------------------------

    def set_mode(self, path: str, mode: int) -> None:
        """Change a file's mode; of one that is not here, the one that it comes back with."""
        bits = stat.S_IMODE(mode)
        self._set(
            path,
            lambda native: os.chmod(native, bits),
            lambda metadata: replace(metadata, mode=bits),
        )

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        """Change a file's owner or group, as `set_mode` does."""

        def recorded(metadata: Metadata) -> Metadata:
            # Only root could on a plain file; a group of one's own is left to when it is here.
            if Caller.current().uid != 0:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
            return replace(
                metadata,
                uid=metadata.uid if uid < 0 else uid,
                gid=metadata.gid if gid < 0 else gid,
            )

        self._set(path, lambda native: os.chown(native, uid, gid, follow_symlinks=False), recorded)

    def set_times(self, path: str, times: Times) -> None:
        """Change a file's times, as `set_mode` does."""

        def native(place: str) -> None:
            set_times(place, times)

        def recorded(metadata: Metadata) -> Metadata:
            import time

            mtime_ns = time.time_ns() if times is None else times[1]
            return metadata if mtime_ns is None else replace(metadata, mtime_ns=mtime_ns)

        self._set(path, native, recorded)

    def _set(
        self,
        path: str,
        native: Callable[[str], None],
        recorded: Callable[[Metadata], Metadata],
    ) -> None:
        place, caller = self._view.native(path), Caller.current()
        try:
            with caller.acting():
                native(place)
        except FileNotFoundError:
            entry = self._view.entry(path)
            if entry is None:
                raise
            if caller.uid not in (0, entry.metadata.uid):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path) from None
            with changes.edit(self._store, entry.id, "metadata") as draft:
                known = draft.record.entry
                if known.metadata.acl:  # its bits are those of the list, and say little alone
                    code = errno.EOPNOTSUPP
                    raise OSError(code, os.strerror(code), path) from None
                changed = replace(known, metadata=recorded(known.metadata))
                draft.record = replace(draft.record, entry=changed)


def set_times(place: str | int, times: Times) -> None:
    """Set the times of a path or descriptor; symlinks are not followed."""
    follows = isinstance(place, int)  # a descriptor leads nowhere else
    if times is None:
        os.utime(place, follow_symlinks=follows)
        return
    status = os.stat(place, follow_symlinks=follows)
    atime_ns = status.st_atime_ns if times[0] is None else times[0]
    mtime_ns = status.st_mtime_ns if times[1] is None else times[1]
    os.utime(place, ns=(atime_ns, mtime_ns), follow_symlinks=follows)


def _merge(source: str, target: str) -> None:
    """Move what is left of a folder into another, which then has its permissions too."""
    status = os.lstat(source)
    os.makedirs(target, exist_ok=True)
    for item in list(os.scandir(source)):
        place = os.path.join(target, item.name)
        if item.is_dir(follow_symlinks=False) and os.path.isdir(place):
            _merge(item.path, place)
        else:
            os.rename(item.path, place)
    with contextlib.suppress(PermissionError):
        os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(source, target)
    os.rmdir(source)


def _drop_hidden(folder: str) -> bool:
    """Take away the names of removed files; tell whether there was nothing else in a folder.

    Who has them open goes on reading. The kernel tells of the last close only some time after it,
    and meanwhile nobody can see why the folder should not be empty.
    """
    names = os.listdir(folder)
    if not all(name.startswith(HIDDEN) for name in names):
        return False
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    return True


@contextlib.contextmanager
def _no_umask() -> Iterator[None]:
    """Take a mode as it is given: the kernel has taken the caller's umask off already."""
    if not has_own_umask():
        yield
        return
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)
