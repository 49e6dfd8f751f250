"""The cache of one user, and the part of it that all users of a computer share.

::

    <folder>/                             a shelf (`recallfs.cache.shelf`), private to its user
    <folder>/verified/<aa>/<sha256>-….json    identity of a file when it was hashed, last use
    <folder>/names/<aa>/<sha256>/<name>   links, for bytes that are kept under another name
    <folder>/blocks/                      files of which parts are here (`recallfs.cache.blocks`)
    <folder>/locks                        one recall of a file at a time
    <shared folder>/<uid>/                a shelf of each user, which all others may read
    <shared folder>/<uid>/blocks/         parts of files that everybody may read
    <shared folder>/used/                 when a user last used a file (`recallfs.cache.markers`)

Files are found by digest, whichever store they were brought for. See
docs/explanation/budgets-and-caches.md for who believes whom.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import platformdirs

from recallfs.atomic import is_full, make_folder, make_shared_file, no_space
from recallfs.cache.blocks import BlockShelf
from recallfs.cache.markers import SharedUse, drop_markers, make_folder_of_markers, mark_use
from recallfs.cache.shelf import YOUNG_S, Kept, Shelf, Usage
from recallfs.cache.trust import Notes, is_beyond_others, is_shelf_of
from recallfs.catalog.locks import entry_byte, locked
from recallfs.config import CacheSettings
from recallfs.errors import AccessError, RecallError
from recallfs.values import Entry

_USERS = 10_000
"""How many users' shelves are looked at."""


@dataclass(frozen=True)
class Found:
    """A file in the cache that may be the wanted one.

    Parameters
    ----------
    is_own : bool
        Whether it is in the caller's own cache.
    """

    path: Path
    shelf: Shelf
    is_own: bool


class Cache:
    """What the calling user can reach of files kept by their digest.

    Parameters
    ----------
    settings : CacheSettings
    trusted : collection of int
        Users, besides root and the caller, whose files need not be copied to be believed: the
        owner of a store, for its files.

    Notes
    -----
    Safe to use from several threads and processes at once. Nothing is made before it is needed.
    """

    def __init__(self, settings: CacheSettings, trusted: Collection[int] = ()) -> None:
        self.settings = settings
        self.folder = settings.folder or Path(platformdirs.user_cache_dir("recallfs"))
        self.own = Shelf(self.folder, is_open=False)
        self.blocks = BlockShelf(self.folder / "blocks", settings.limit)
        self.notes = Notes(self.folder / "verified")
        self._trusted = frozenset({0, os.geteuid(), *trusted})
        self._shared: Path | None = None
        if settings.shared_folder is not None and settings.shared_folder.is_dir():
            self._shared = Path(os.path.realpath(settings.shared_folder))

    def block_shelves(self) -> list[BlockShelf]:
        """Return where the caller may have parts of files: in private, and for everybody."""
        mine = self._mine()
        if mine is None:
            return [self.blocks]
        limit = self.settings.shared_limit
        return [self.blocks, BlockShelf(mine.folder / "blocks", limit, self._everybodys_blocks)]

    @property
    def has_others(self) -> bool:
        """Whether there is a shared cache."""
        return self._shared is not None

    def peers(self) -> Iterator[int]:
        """Iterate over the shelves of all other users, each opened as a folder."""
        for shelf in self._shelves():
            with contextlib.suppress(OSError):
                if shelf.folder == self._mine_folder():
                    continue
                descriptor = os.open(shelf.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    yield descriptor
                finally:
                    os.close(descriptor)

    def _everybodys_blocks(self) -> list[Path]:
        return [shelf.folder / "blocks" for shelf in self._shelves()]

    def path_of(self, entry: Entry, *, share: bool = False) -> Path:
        """Return where a file will be if there is room.

        Parameters
        ----------
        share : bool
            Whether everybody may read it.
        """
        shelf = self._mine() if share and entry.size_bytes <= self.settings.shared_limit else None
        return (shelf or self.own).path_of(entry.sha256, Path(entry.path).name)

    def find(self, entry: Entry, accepted: Collection[str]) -> Path | None:
        """Return a file that can be opened where it is, verified; None if there is none.

        Parameters
        ----------
        accepted : collection of str
            Every sha256 that the file may have.

        Notes
        -----
        A file is hashed when it is first seen and after any change of its identity. One of ours
        that is wrong is removed.
        """
        for found in self.candidates(entry, accepted):
            if not found.is_own and not is_beyond_others(found.path, self._trusted):
                continue
            is_right = self.notes.is_right(found.path, accepted)
            if is_right:
                self.note_use(found)
                return self._named(found.path, Path(entry.path).name)
            if is_right is False:
                self.refuse(found)
        return None

    def candidates(self, entry: Entry, accepted: Collection[str]) -> Iterator[Found]:
        """Iterate over files that claim to be the wanted one: nearest first, not believed yet."""
        name = Path(entry.path).name
        shelves = [(self.own, True), *((shelf, False) for shelf in self._shelves())]
        for shelf, is_own in shelves:
            for sha256 in sorted(accepted, key=lambda digest: digest != entry.sha256):
                for other in shelf.names(sha256, name):
                    path = shelf.path_of(sha256, other)
                    try:
                        status = path.lstat()
                    except OSError:
                        continue
                    if is_own and not (_is_file(status) and status.st_uid == os.geteuid()):
                        shelf.drop(path)
                    elif _is_file(status) and (
                        sha256 != entry.sha256 or status.st_size == entry.size_bytes or is_own
                    ):
                        yield Found(path, shelf, is_own)

    def has_shared(self, entry: Entry, accepted: Collection[str]) -> bool:
        """Tell whether somebody shares a file that is not known to be wrong."""
        for found in self.candidates(entry, accepted):
            with contextlib.suppress(OSError):
                status = found.path.lstat()
                if not found.is_own and self.notes.verdict(found.path, status) is not False:
                    return True
        return False

    def refuse(self, found: Found) -> None:
        """Remove a file that is wrong, if it is ours to remove."""
        if found.is_own or found.shelf.folder == self._mine_folder():
            found.shelf.drop(found.path)
            self.notes.forget(found.path)

    def note_use(self, found: Found) -> None:
        """Note that a file is used now: what is used stays longest."""
        self.notes.touch(found.path)
        if not found.is_own and self._shared is not None:
            mark_use(self._shared, found.path.parent.name)

    @contextmanager
    def lock(self, entry: Entry) -> Iterator[None]:
        """Be the only one of this user's threads and processes to bring a file's bytes.

        Raises
        ------
        AccessError
            If the cache cannot be used.
        """
        self._prepare()
        locks = self.folder / "locks"
        make_shared_file(locks)
        with locked(locks, entry_byte(entry.sha256 or entry.id)):
            yield

    @contextmanager
    def staging(self, size_bytes: int, *, share: bool = False) -> Iterator[Path]:
        """Make room, and a private folder for bytes on their way in; it is gone afterwards.

        Parameters
        ----------
        size_bytes : int
            How much room; it is promised to nobody else meanwhile.
        share : bool
            Whether everybody may read the file: it goes to the shared cache if there is room.

        Notes
        -----
        One that is larger than the caller's own limit is brought all the same, and goes first once
        nobody has it open.
        """
        self._prepare()
        folder = (self._shared_staging(size_bytes) if share else None) or self._own_staging(
            size_bytes
        )
        try:
            yield folder
        except OSError as error:
            if is_full(error):
                raise no_space(error, folder.parent) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, entry: Entry, staged: Path, sha256: str) -> Path:
        """Put verified bytes into the cache; for use under the file's lock.

        Parameters
        ----------
        staged : Path
            Below a folder that `staging` gave.

        Raises
        ------
        AccessError
            If the file is HDF5 and takes data from files beside it: here it would read as zeros.
        """
        from recallfs.skeleton.neighbours import needed_neighbour  # loads h5py

        neighbour = needed_neighbour(staged)
        if neighbour is not None:
            raise AccessError(
                f"{entry.path} reads right only at its own place in the store ({neighbour}), and "
                "you cannot write there; ask somebody who can to bring it back (`recall get`).",
                details={"path": entry.path, "object": neighbour},
            )
        mine = self._mine()
        shelf = mine if mine and staged.is_relative_to(mine.folder) else self.own
        path = shelf.put(staged, sha256, Path(entry.path).name, entry.metadata.mtime_ns)
        self.notes.write(path, path.lstat(), is_right=True)
        self.note_use(Found(path, shelf, is_own=shelf is self.own))
        return path

    def trim(self) -> None:
        """Bring the caller's own cache, and their part of the shared one, within the limits."""
        self._trim_own()
        mine = self._mine()
        if mine is not None and mine.is_ours():
            self._trim_shared(mine)

    def clear(self, *, unused_s: float = 0.0) -> Usage:
        """Remove what was not used for a while; as root also what others have in the shared cache.

        Parameters
        ----------
        unused_s : float
            In seconds; what was used within the last minute, or is open, stays in any case.

        Returns
        -------
        Usage
            What is gone.
        """
        total = Usage(0, 0)
        shelves = [shelf for shelf in self._shelves() if os.geteuid() == 0 or shelf.is_ours()]
        for shelf in [self.own, *shelves]:
            gone = self._trim(shelf, -1, large_bytes=self.settings.limit, idle_s=unused_s)
            total += Usage(len(gone), sum(item.size_bytes for item in gone))
        for blocks in self.block_shelves():
            total += blocks.trim(-1, idle_s=max(unused_s, YOUNG_S))
        self._forget_dangling()
        return total

    def own_usage(self) -> Usage:
        """Return how much is in the caller's own cache, parts of files included."""
        return self.own.usage() + self.blocks.usage()

    def shared_usage(self) -> Usage | None:
        """Return how much all users have in the shared cache; None if there is none."""
        if self._shared is None:
            return None
        whole = sum((shelf.usage() for shelf in self._shelves()), Usage(0, 0))
        limit = self.settings.shared_limit
        return sum((BlockShelf(one, limit).usage() for one in self._everybodys_blocks()), whole)

    def own_problem(self) -> str | None:
        """Say why the caller's own cache cannot be used, if it is there and cannot."""
        if not self.folder.exists():
            return None
        if not self.folder.is_dir():
            return "It is no folder."
        if self.folder.stat().st_uid != os.geteuid():
            return "It belongs to another user."
        if not os.access(self.folder, os.W_OK | os.X_OK):
            return "You may not write to it."
        return None

    def shared_problem(self) -> str | None:
        """Say why the shared cache cannot be written to, if it is configured and cannot."""
        folder = self.settings.shared_folder
        if folder is None:
            return None
        if self._shared is None:
            return "It is not there, or is no folder."
        mode = self._shared.stat().st_mode
        if mode & 0o022 and not mode & stat.S_ISVTX:
            return f"It has the mode {mode & 0o7777:o}: users may remove what others keep there."
        mine = self._mine_folder()
        if mine is not None and os.path.lexists(mine) and not is_shelf_of(mine, os.geteuid()):
            return f"{mine} is another user's, or others may write to it."
        if not os.access(self._shared, os.R_OK | os.X_OK):
            return "You may not read it."
        return None

    def _own_staging(self, size_bytes: int) -> Path:
        folder = self.own.reserve(size_bytes)
        try:
            self._trim_own()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def _shared_staging(self, size_bytes: int) -> Path | None:
        """Reserve space in the shared cache; None if it cannot be had."""
        mine = self._mine()
        if mine is None or size_bytes > self.settings.shared_limit:
            return None
        try:
            mine.prepare()
            make_folder_of_markers(mine.folder.parent)
            folder = mine.reserve(size_bytes)
        except OSError:
            return None
        # First promised, then counted: of two who want the last space, both see both.
        if self._trim_shared(mine):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        return None

    def _trim_own(self) -> None:
        limit = self.settings.limit
        self.blocks.trim()
        allowed = limit - self.own.reserved(up_to=limit) - self.blocks.usage().size_bytes
        if self.own.usage().size_bytes > allowed:
            self._trim(self.own, max(0, allowed), large_bytes=limit)

    def _trim_shared(self, mine: Shelf) -> bool:
        """Make room by what the caller has there; tell whether the limit is kept."""
        limit = self.settings.shared_limit

        def excess() -> int:
            shelves = list(self._shelves())
            reserved = sum(shelf.reserved(up_to=limit) for shelf in shelves)
            parts = [BlockShelf(one, limit).usage() for one in self._everybodys_blocks()]
            return (
                reserved
                + sum(shelf.usage().size_bytes for shelf in shelves)
                + sum(usage.size_bytes for usage in parts)
                - limit
            )

        over = excess()
        if over <= 0:
            return True
        allowed = max(0, mine.usage().size_bytes - over)
        self._trim(mine, allowed, large_bytes=limit)
        return excess() <= 0

    def _trim(
        self, shelf: Shelf, limit_bytes: int, *, large_bytes: int, idle_s: float = 0.0
    ) -> list[Kept]:
        used = used_now = self._own_use
        if shelf is not self.own:
            shared = SharedUse(shelf.folder.parent)
            used, used_now = shared.known, shared.now
        gone = shelf.trim(
            limit_bytes, used, used_now=used_now, large_bytes=large_bytes, idle_s=idle_s
        )
        self._forget(shelf, gone)
        return gone

    def _own_use(self, item: Kept) -> float:
        return self.notes.used(self.own.path_of(item.sha256, item.name))

    def _forget(self, shelf: Shelf, gone: Collection[Kept]) -> None:
        for item in gone:
            self.notes.forget(shelf.path_of(item.sha256, item.name))
            if (self.folder / "names").exists():
                shutil.rmtree(self._names_of(item.sha256), ignore_errors=True)
        if gone and shelf is not self.own and self._shared is not None:
            drop_markers(self._shared, {item.sha256 for item in gone})

    def _forget_dangling(self) -> None:
        """Drop names of, and notes on, files in the shared cache that others have removed."""
        for link in (self.folder / "names").glob("*/*/*"):
            if not link.exists():
                shutil.rmtree(link.parent, ignore_errors=True)

    def _shelves(self) -> Iterator[Shelf]:
        """Iterate over the shelves of the shared cache: those that are trusted first."""
        if self._shared is None:
            return
        try:
            with os.scandir(self._shared) as found:
                users = [
                    int(item.name)
                    for item in islice(found, _USERS)
                    if item.name.isdecimal() and len(item.name) < 11
                ]
        except OSError:
            return
        for user in sorted(users, key=lambda user: (user not in self._trusted, user)):
            folder = self._shared / str(user)
            if is_shelf_of(folder, user):
                yield Shelf(folder, is_open=True)

    def _mine_folder(self) -> Path | None:
        return None if self._shared is None else self._shared / str(os.geteuid())

    def _mine(self) -> Shelf | None:
        """Return the caller's shelf in the shared cache; None if they may not have one."""
        folder = self._mine_folder()
        if folder is None:
            return None
        if os.path.lexists(folder):
            may_have = is_shelf_of(folder, os.geteuid())
        else:
            may_have = os.access(folder.parent, os.W_OK | os.X_OK, effective_ids=_BY_EFFECTIVE)
        return Shelf(folder, is_open=True) if may_have else None

    def _named(self, path: Path, name: str) -> Path:
        """Return a path that ends in the wanted name: readers look at it."""
        if path.name == name:
            return path
        link = self._names_of(path.parent.name) / name
        with contextlib.suppress(OSError):
            if link.readlink() == path:
                return link
        self._prepare()
        make_folder(link.parent)
        temporary = link.with_name(f".new-{uuid.uuid4().hex}")
        temporary.symlink_to(path)
        temporary.replace(link)
        return link

    def _names_of(self, sha256: str) -> Path:
        return self.folder / "names" / sha256[:2] / sha256

    def _prepare(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.folder.stat()
            if status.st_uid != os.geteuid():
                raise AccessError(
                    f"the cache {self.folder} belongs to another user; name a folder of yours as "
                    "cache.folder in the configuration."
                )
            if status.st_mode & 0o077:
                self.folder.chmod(0o700)
            self.own.prepare()
        except RecallError:
            raise
        except OSError as error:
            raise AccessError(
                f"you cannot write to the store, and not to the cache {self.folder} either "
                f"({error.strerror}); name a folder of yours as cache.folder in the configuration."
            ) from error


_BY_EFFECTIVE = os.access in os.supports_effective_ids


def _is_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)
