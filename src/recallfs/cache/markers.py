"""When files of the shared cache were last used, and by whom: an empty file for each says so.

::

    <shared folder>/used/<sha256>.<uid>   its time of change is the last use
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from recallfs.cache.shelf import Kept

_CLOCK_S = 60.0
"""How far ahead the time of somebody's use may lie before it is not believed."""


class SharedUse:
    """When files of the shared cache were last used, by anybody.

    Parameters
    ----------
    shared : Path
        The shared cache; all its markers are read once.
    """

    def __init__(self, shared: Path) -> None:
        self._folder = _folder_in(shared)
        self._users: set[str] = set()
        self._moments: dict[str, float] = {}
        with contextlib.suppress(OSError), _opened(shared) as folder, os.scandir(folder) as found:
            for item in found:
                with contextlib.suppress(OSError):
                    sha256, _, user = item.name.partition(".")
                    moment = _believable(item.stat(follow_symlinks=False).st_mtime)
                    self._moments[sha256] = max(moment, self._moments.get(sha256, 0.0))
                    self._users.add(user)

    def known(self, item: Kept) -> float:
        """Return when a file was last used, as it was at the start."""
        # Who may not write a marker still leaves the time of access, where the mount keeps it.
        return max(item.accessed, self._moments.get(item.sha256, 0.0))

    def now(self, item: Kept) -> float:
        """Return when one of the users last used a file."""
        latest = 0.0
        for user in self._users:
            with contextlib.suppress(OSError):
                marker = self._folder / f"{item.sha256}.{user}"
                latest = max(latest, _believable(marker.lstat().st_mtime))
        return latest


def make_folder_of_markers(shared: Path) -> None:
    """Let all users of a shared cache leave markers, if the caller may."""
    with contextlib.suppress(OSError):
        folder = _folder_in(shared)
        folder.mkdir()
        folder.chmod(0o1777)


def mark_use(shared: Path, sha256: str) -> None:
    """Note that the caller uses a file now, if they may."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(OSError), _opened(shared) as folder:
        descriptor = os.open(f"{sha256}.{os.geteuid()}", flags, 0o644, dir_fd=folder)
        try:
            os.utime(descriptor)
        finally:
            os.close(descriptor)


def drop_markers(shared: Path, digests: Collection[str]) -> None:
    """Drop the markers of files that are gone, as far as the caller may."""
    with contextlib.suppress(OSError), _opened(shared) as folder:
        for marker in os.listdir(folder):  # noqa: PTH208 - not through a path
            if marker.partition(".")[0] in digests:
                with contextlib.suppress(OSError):
                    os.unlink(marker, dir_fd=folder)


def _folder_in(shared: Path) -> Path:
    return shared / "used"


@contextmanager
def _opened(shared: Path) -> Iterator[int]:
    """Open the folder of the markers; anybody may have made it, and not led elsewhere."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(_folder_in(shared), flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _believable(moment: float) -> float:
    """Return a time of use, or 0 if it lies ahead: nobody keeps a file for ever by that."""
    return moment if moment < time.time() + _CLOCK_S else 0.0
