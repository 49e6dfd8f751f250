"""Folders for files of which only parts are here, each within the limit of the cache.

::

    <cache>/blocks/<aa>/<key>/data     a sparse file; a hole where nothing is
    <cache>/blocks/<aa>/<key>/index    what the file is made of (`recallfs.partial.index`); locked
                                       by whoever has the file open
    <cache>/blocks/<aa>/<key>/map      which parts are here
    <cache>/blocks/<aa>/<key>/unverified    there if no digests of its parts are known

A folder is made elsewhere and renamed into place, so that it is there whole or not at all. In the
shared cache all users may read data and map of what any of them fetched. The index stays private,
and with it the locks: nobody else can take one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recallfs.atomic import sync_folder
from recallfs.cache.shelf import Usage

UNVERIFIED = "unverified"
"""Name of the file that labels a folder whose parts nothing but an ETag vouches for."""

_SHARE = 0.5
"""Which part of the cache's limit files in parts may take."""

_MEMORY_S = 5.0
"""How long a sum counts where it is no matter of a few bytes: thousands of folders take a while."""

_known: dict[Path, tuple[float, Usage]] = {}


@dataclass(frozen=True)
class _Folder:
    path: Path
    size_bytes: int
    used: float
    is_verified: bool


class BlockShelf:
    """The folders of one user.

    Parameters
    ----------
    folder : Path
        Private to the user.
    limit : int
        Of the whole cache, in bytes.
    everybody : callable, optional
        Gives such folders of all users, where all together keep the limit, and all may read.
    """

    def __init__(
        self, folder: Path, limit: int, everybody: Callable[[], Iterable[Path]] | None = None
    ) -> None:
        self.folder = folder
        self.limit = int(limit * _SHARE)
        self.is_open = everybody is not None
        self._everybody = everybody

    def path_of(self, key: str) -> Path:
        """Return where a file's folder is, or would be."""
        return self.folder / key[:2] / key

    def put(self, staged: Path, key: str, *, is_durable: bool = True) -> None:
        """Move a folder that is whole into place; one that is there already stays."""
        place = self.path_of(key)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.is_open:
            for name, mode in (("index", 0o600), ("data", 0o644), ("map", 0o644)):
                (staged / name).chmod(mode)
            for folder in (staged, place.parent, self.folder):
                folder.chmod(0o755)
        with contextlib.suppress(FileExistsError):
            try:
                staged.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
        if is_durable:
            sync_folder(place.parent)

    def drop(self, key: str) -> None:
        """Remove a folder; whoever has it open goes on with what they have."""
        place = self.path_of(key)
        gone = place.with_name(f".gone-{os.getpid()}-{key}")
        with contextlib.suppress(OSError):
            place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def usage(self) -> Usage:
        """Return how much disk all folders take, as it was some seconds ago."""
        moment, known = _known.get(self.folder, (-_MEMORY_S, Usage(0, 0)))
        if time.monotonic() - moment > _MEMORY_S:
            known = self.count()
        return known

    def count(self) -> Usage:
        """Look at all folders: how much disk they take."""
        found = list(self._folders())
        usage = Usage(len(found), sum(item.size_bytes for item in found))
        _known[self.folder] = (time.monotonic(), usage)
        return usage

    def unverified(self) -> Usage:
        """Return how much of it nothing but an ETag vouches for."""
        found = [item.size_bytes for item in self._folders() if not item.is_verified]
        return Usage(len(found), sum(found))

    def trim(self, limit_bytes: int | None = None, *, idle_s: float = 0.0) -> Usage:
        """Remove folders that nobody has open, the longest unused first, down to a limit.

        Parameters
        ----------
        idle_s : float
            What was opened within this time stays.

        Returns
        -------
        Usage
            What is gone.
        """
        limit = self.limit if limit_bytes is None else limit_bytes
        if limit_bytes is None and self.usage().size_bytes <= limit:
            return Usage(0, 0)
        found = sorted(self._folders(), key=lambda item: item.used)
        left = sum(item.size_bytes for item in found)
        gone = Usage(0, 0)
        for item in found:
            if left <= limit:
                break
            if time.time() - item.used >= idle_s and _is_unused(item.path):
                self.drop(item.path.name)
                left -= item.size_bytes
                gone += Usage(1, item.size_bytes)
        return gone

    def has_room(self, more_bytes: int) -> bool:
        """Tell whether so many bytes can be added, after removing what is unused."""
        others = self._of_others()
        if self.count().size_bytes + more_bytes + others <= self.limit:
            return True
        self.trim(max(0, self.limit - more_bytes - others))
        return self.count().size_bytes + more_bytes + others <= self.limit

    def _of_others(self) -> int:
        if self._everybody is None:
            return 0
        return sum(
            item.size_bytes
            for folder in self._everybody()
            if folder != self.folder
            for item in self._folders(folder)
        )

    def _folders(self, folder: Path | None = None) -> Iterator[_Folder]:
        try:
            paths = list((folder or self.folder).glob("??/*"))
        except OSError:
            return  # another user's
        for path in paths:
            with contextlib.suppress(OSError):
                used = (path / "map").stat().st_mtime
                files = {item.name: item.stat() for item in path.iterdir()}
                size = sum(status.st_blocks * 512 for status in files.values())
                yield _Folder(path, size, used, UNVERIFIED not in files)


def _is_unused(folder: Path) -> bool:
    """Tell whether nobody has a folder's file open."""
    try:
        descriptor = os.open(folder / "index", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
