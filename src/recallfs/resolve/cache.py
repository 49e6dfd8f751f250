"""The reader's own cache: where bytes go that were brought back without write rights to a store.

::

    <folder>/<store id>/<aa>/<sha256>/<name>     the file; its name, since readers look at that
    <folder>/<store id>/<aa>/<sha256>-<…>.json   its identity when it was verified
    <folder>/staging/                            bytes on their way in
    <folder>/locks                               one recall of a file at a time

It is private to its user. A file in it is served only while it is the very one that was verified;
in doubt it is hashed again, and thrown away if it differs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import platformdirs
from blake3 import blake3

from recallfs.atomic import (
    is_full,
    make_folder,
    make_shared_file,
    no_space,
    sync_file,
    sync_folder,
    write_record,
)
from recallfs.catalog.holder import Holder
from recallfs.catalog.locks import entry_byte, locked
from recallfs.config import CacheSettings
from recallfs.digest.stream import digest_file
from recallfs.errors import AccessError, RecallError
from recallfs.skeleton.neighbours import needed_neighbour
from recallfs.values import Entry, Identity

YOUNG_S = 60.0
"""What was used within this time stays, however full the cache is."""


class Cache:
    """Files of one store in the calling user's cache.

    Parameters
    ----------
    settings : CacheSettings
    store_id : str

    Notes
    -----
    Safe to use from several threads and processes at once.
    """

    def __init__(self, settings: CacheSettings, store_id: str) -> None:
        self.folder = settings.folder or Path(platformdirs.user_cache_dir("recallfs"))
        self.limit_bytes = settings.limit
        self._files = self.folder / store_id

    def path_of(self, entry: Entry) -> Path:
        """Return where a file is, or would be."""
        return self._files / entry.sha256[:2] / entry.sha256 / Path(entry.path).name

    def find(self, entry: Entry, accepted: Collection[str]) -> Path | None:
        """Return a file that is in the cache, verified; None if it is not there.

        Parameters
        ----------
        accepted : collection of str
            Every sha256 that the file may have.
        """
        path, note = self.path_of(entry), self._note_of(entry)
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if is_ours and Identity.from_stat(status) == _read_note(note):
            with contextlib.suppress(OSError):
                os.utime(note)  # when it was last used
            return path
        with contextlib.suppress(RecallError, OSError):
            if is_ours and digest_file(path).sha256 in accepted:
                self._note(note, Identity.from_stat(status))
                return path
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    @contextmanager
    def lock(self, entry: Entry) -> Iterator[None]:
        """Be the only one of this user's threads and processes to bring a file.

        Raises
        ------
        AccessError
            If the cache cannot be used.
        """
        self._prepare()
        key = blake3(os.fsencode(self.path_of(entry))).hexdigest()
        locks = self.folder / "locks"
        make_shared_file(locks)
        with locked(locks, entry_byte(key)):
            yield

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Make a private folder for bytes on their way in; it is gone afterwards."""
        self._prepare()
        folder = self.folder / "staging" / f"{Holder.current().token()}-{uuid.uuid4().hex}"
        try:
            folder.mkdir(mode=0o700)
            yield folder
        except OSError as error:
            if is_full(error):
                raise no_space(error, self.folder) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, entry: Entry, staged: Path) -> Path:
        """Put verified bytes into the cache; for use under the file's lock.

        Raises
        ------
        AccessError
            If the file is HDF5 and takes data from files beside it: here it would read as zeros.
        """
        neighbour = needed_neighbour(staged)
        if neighbour is not None:
            raise AccessError(
                f"{entry.path} reads right only at its own place in the store ({neighbour}), and "
                "you cannot write there; ask somebody who can to bring it back (`recall get`).",
                details={"path": entry.path, "object": neighbour},
            )
        path = self.path_of(entry)
        staged.chmod(0o400)
        os.utime(staged, ns=(time.time_ns(), entry.metadata.mtime_ns))
        sync_file(staged)
        make_folder(path.parent)
        try:
            staged.replace(path)
        except FileNotFoundError:  # the folder was empty, and another process tidied it away
            make_folder(path.parent)
            staged.replace(path)
        sync_folder(path.parent)
        self._note(self._note_of(entry), Identity.from_stat(path.lstat()))
        return path

    def trim(self) -> None:
        """Remove what was not used for the longest time, until the cache is within its limit.

        Notes
        -----
        What this process has open stays, and so does what was used within the last minute.
        """
        for folder in (self.folder / "staging").iterdir():
            holder = Holder.from_token(folder.name)
            if holder is not None and holder.is_known_dead():
                shutil.rmtree(folder, ignore_errors=True)
        found = []
        for path in self.folder.glob("*/??/*/*"):
            with contextlib.suppress(OSError):
                note = _note_beside(path)
                used = note.stat().st_mtime if note.exists() else 0.0
                found.append((used, path.lstat().st_size, path, note))
        total = sum(size for _, size, _, _ in found)
        opened = _open_files() if total > self.limit_bytes else set()
        for used, size, path, note in sorted(found):
            if total <= self.limit_bytes or time.time() - used < YOUNG_S:
                return
            with contextlib.suppress(OSError):
                status = path.lstat()
                if (status.st_dev, status.st_ino) not in opened:
                    path.unlink()
                    note.unlink(missing_ok=True)
                    path.parent.rmdir()
                    total -= size

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
            (self.folder / "staging").mkdir(mode=0o700, exist_ok=True)
        except RecallError:
            raise
        except OSError as error:
            raise AccessError(
                f"you cannot write to the store, and not to the cache {self.folder} either "
                f"({error.strerror}); name a folder of yours as cache.folder in the configuration."
            ) from error

    def _note_of(self, entry: Entry) -> Path:
        return _note_beside(self.path_of(entry))

    @staticmethod
    def _note(note: Path, identity: Identity) -> None:
        write_record(note, json.dumps(asdict(identity)).encode(), mode=0o600)


def _note_beside(path: Path) -> Path:
    """Return where the identity of a cached file is kept."""
    short = blake3(os.fsencode(path.name)).hexdigest()[:16]
    return path.parent.with_name(f"{path.parent.name}-{short}.json")


def _read_note(note: Path) -> Identity | None:
    try:
        return Identity(**{key: int(value) for key, value in json.loads(note.read_bytes()).items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _open_files() -> set[tuple[int, int]]:
    """Return device and inode of every file that this process has open."""
    found = set()
    for place in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError, ValueError):
            status = os.fstat(int(place.name))
            found.add((status.st_dev, status.st_ino))
    return found
