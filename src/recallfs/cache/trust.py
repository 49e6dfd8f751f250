"""Which files in a cache are believed: those that one verified oneself, and nobody can change.

A note in the user's own folder holds the identity that a file had when its bytes were hashed. While
it has that identity it need not be hashed again, unless others could change it unseen, between two
looks at it. That is so of a file that belongs to somebody whom the reader does not trust, has
several names or may be written to by others, or that is reached through a folder in which others
may put another in its place. Such a file is only ever copied, and the copy is verified.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from blake3 import blake3

from recallfs.atomic import write_record
from recallfs.digest.stream import digest_descriptor
from recallfs.errors import RecallError
from recallfs.values import Identity

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Notes:
    """What one user verified.

    Parameters
    ----------
    folder : Path
        Private to the user.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, path: Path) -> Path:
        """Return where the note on a file is; the folder above the file is named by its digest."""
        short = blake3(os.fsencode(path)).hexdigest()[:16]
        return self.folder / path.parent.name[:2] / f"{path.parent.name}-{short}.json"

    def verdict(self, path: Path, status: os.stat_result) -> bool | None:
        """Tell whether a file was found right or wrong; None if it was not looked at as it is."""
        try:
            found = json.loads(self.of(path).read_bytes())
            is_right = bool(found.pop("is_right"))
            identity = Identity(**{key: int(value) for key, value in found.items()})
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return None
        return is_right if identity == Identity.from_stat(status) else None

    def write(self, path: Path, status: os.stat_result, *, is_right: bool) -> None:
        """Write down what was found; where there is no space for it, it will be looked at again."""
        content = {**asdict(Identity.from_stat(status)), "is_right": is_right}
        with contextlib.suppress(RecallError, OSError):
            write_record(self.of(path), json.dumps(content).encode(), mode=0o600)

    def touch(self, path: Path) -> None:
        """Note that a file was used just now."""
        with contextlib.suppress(OSError):
            os.utime(self.of(path))

    def used(self, path: Path) -> float:
        """Return when a file was last used, in seconds since the epoch; 0 if that is not known."""
        try:
            return self.of(path).stat().st_mtime
        except OSError:
            return 0.0

    def forget(self, path: Path) -> None:
        """Drop the note on a file that is gone."""
        with contextlib.suppress(OSError):
            self.of(path).unlink()

    def is_right(self, path: Path, accepted: Collection[str]) -> bool | None:
        """Tell whether a file has accepted bytes, hashing it if it is not the one it was.

        Returns
        -------
        bool or None
            None if it could not be looked at, or was written to meanwhile.
        """
        try:
            status = path.lstat()
        except OSError:
            return None
        known = self.verdict(path, status)
        if known is None:
            known = self._look(path, accepted)
        elif known:
            self.touch(path)
        return known

    def _look(self, path: Path, accepted: Collection[str]) -> bool | None:
        try:
            descriptor = os.open(path, _FILE)
        except OSError:
            return None
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                return False
            found = digest_descriptor(descriptor).sha256 in accepted
            if Identity.from_stat(os.fstat(descriptor)) != Identity.from_stat(before):
                return None
        except RecallError:
            return None
        finally:
            os.close(descriptor)
        self.write(path, before, is_right=found)
        return found


def is_beyond_others(path: Path, trusted: Collection[int]) -> bool:
    """Tell whether only trusted users could change a file, or put another in its place.

    Parameters
    ----------
    path : Path
        Absolute, without symlinks on the way.
    trusted : collection of int
        User ids.
    """
    try:
        status = path.lstat()
        if (
            not stat.S_ISREG(status.st_mode)
            or status.st_uid not in trusted
            or status.st_nlink != 1
            or status.st_mode & 0o022
        ):
            return False
        for folder in path.parents:
            above = folder.lstat()
            if not stat.S_ISDIR(above.st_mode) or above.st_uid not in trusted:
                return False
            # In a sticky folder others can neither remove nor rename what is not theirs.
            if above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
                return False
    except OSError:
        return False
    return True


def is_shelf_of(folder: Path, user: int) -> bool:
    """Tell whether a folder is a user's, and nobody else may write to it."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o022
