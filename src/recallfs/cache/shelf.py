"""A shelf: one user's files in a cache, by their sha256.

::

    <shelf>/files/<aa>/<sha256>/<name>    a file; its name, since readers look at that
    <shelf>/staging/<process>.<bytes>/    bytes on their way in, and the space promised to them
    <shelf>/usage                         how many files, how many bytes, when they were counted

What is removed is reached folder by folder, never through a symlink, so that root may tidy up after
users who mean harm. The sum in `usage` saves a look at every file each time one is added; it is
only a sum, and counted anew when it is a day old, gone, or too high.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from recallfs.atomic import sync_file, sync_folder
from recallfs.catalog.holder import Holder
from recallfs.exclusive import take_lease

YOUNG_S = 60.0
"""What was used within this time stays, however full the cache is."""

_AFTERWARDS = 0.9
"""Where something must go, a shelf is brought down to this part of its limit: to list the files
takes long, and is seldom needed then."""

_RECOUNT_S = 86400.0
_PATIENCE_S = 0.5
_NAMES = 4
"""How many names of one digest are looked at; more than one are there only by mishap or malice."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Usage:
    """How much there is.

    Parameters
    ----------
    files : int
    size_bytes : int
    """

    files: int
    size_bytes: int

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.files + other.files, self.size_bytes + other.size_bytes)


@dataclass(frozen=True)
class Kept:
    """A file on a shelf.

    Parameters
    ----------
    accessed : float
        When it was last read, as the mount gives it; seconds since the epoch.
    """

    sha256: str
    name: str
    size_bytes: int
    accessed: float


class Shelf:
    """One user's files.

    Parameters
    ----------
    folder : Path
        Made by `prepare`.
    is_open : bool
        Whether all users of the computer may read it.
    """

    def __init__(self, folder: Path, *, is_open: bool) -> None:
        self.folder = folder
        self.is_open = is_open

    def __repr__(self) -> str:
        return f"Shelf({str(self.folder)!r})"

    def prepare(self) -> None:
        """Make the folders, with permissions that no umask changes.

        Raises
        ------
        OSError
            If that cannot be, or something else is in their place.
        """
        for folder in (self.folder, self.folder / "files", self.folder / "staging"):
            self._make(folder)

    def path_of(self, sha256: str, name: str) -> Path:
        """Return where a file is, or would be."""
        return self.folder / "files" / sha256[:2] / sha256 / name

    def names(self, sha256: str, wanted: str) -> list[str]:
        """Return the names under which bytes are kept, the wanted one first."""
        place = self.path_of(sha256, wanted)
        try:
            with os.scandir(place.parent) as found:
                names = [item.name for item in islice(found, _NAMES)]
        except OSError:
            return []
        if wanted not in names and os.path.lexists(place):
            names.append(wanted)
        return sorted(names, key=lambda name: (name != wanted, name))

    def reserve(self, size_bytes: int) -> Path:
        """Make a private folder for bytes on their way in, which counts as that many already."""
        token = f"{Holder.current().token()}-{uuid.uuid4().hex}.{size_bytes}"
        folder = self.folder / "staging" / token
        folder.mkdir(mode=0o700)
        return folder

    def reserved(self, *, up_to: int) -> int:
        """Return the bytes promised to the living; what the dead left is removed where we may.

        Parameters
        ----------
        up_to : int
            Single promises above this are left out.
        """
        total = 0
        try:
            names = [path.name for path in (self.folder / "staging").iterdir()]
        except OSError:
            return 0
        for name in names:
            holder = Holder.from_token(name)
            size = name.rpartition(".")[2]
            if holder is not None and holder.is_known_dead():
                if self.is_ours():
                    shutil.rmtree(self.folder / "staging" / name, ignore_errors=True)
            elif size.isdecimal() and int(size) <= up_to:
                total += int(size)
        return total

    def is_ours(self) -> bool:
        """Tell whether it is a folder of the caller's, in whom nobody else can meddle."""
        try:
            status = self.folder.lstat()
        except OSError:
            return False
        is_folder = stat.S_ISDIR(status.st_mode) or not self.is_open
        return is_folder and self.folder.stat().st_uid == os.geteuid()

    def put(self, staged: Path, sha256: str, name: str, mtime_ns: int) -> Path:
        """Move verified bytes in; an older file of that name gives way.

        Parameters
        ----------
        staged : Path
            Below a folder that `reserve` gave.
        """
        path = self.path_of(sha256, name)
        staged.chmod(0o444 if self.is_open else 0o400)
        os.utime(staged, ns=(time.time_ns(), mtime_ns))
        sync_file(staged)
        size = staged.stat().st_size
        # First the sum: killed in between, it is too high, and then it is counted again.
        self.add_usage(Usage(1, size))
        while True:
            self._make(path.parent.parent)
            self._make(path.parent)
            try:
                staged.replace(path)
                break
            except FileNotFoundError:
                # The folder was empty, and another process tidied it away.
                if not staged.exists():
                    raise
        sync_folder(path.parent)
        return path

    def drop(self, path: Path) -> None:
        """Remove a file that turned out to be wrong."""
        with contextlib.suppress(OSError):
            size = path.lstat().st_size
            path.unlink()
            self.add_usage(Usage(-1, -size))
            path.parent.rmdir()

    def usage(self) -> Usage:
        """Return how much there is, without looking at the files if their sum is known."""
        known = self._read_usage()
        return self.count() if known is None else known

    def count(self) -> Usage:
        """Look at all files, and write their sum down where we may."""
        total = sum((Usage(1, item.size_bytes) for item in self.files()), Usage(0, 0))
        self._write_usage(total)
        return total

    def add_usage(self, more: Usage) -> None:
        """Change the sum."""
        with self._alone():
            known = self._read_usage()
            if known is None:
                self._write_usage(self.count() + more)
            else:
                self._write_usage(known + more, keep_age=True)

    def files(self) -> Iterator[Kept]:
        """Iterate over the files; nothing but regular ones, and nothing through a symlink."""
        for sha256, folder in self._folders():
            with os.scandir(folder) as found:
                for item in found:
                    with contextlib.suppress(OSError):
                        status = item.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            yield Kept(sha256, item.name, status.st_size, status.st_atime)

    def trim(
        self,
        limit_bytes: int,
        used: Callable[[Kept], float],
        *,
        used_now: Callable[[Kept], float],
        large_bytes: int,
        idle_s: float = 0.0,
    ) -> list[Kept]:
        """Remove files if there are more bytes than allowed: the longest unused first.

        Parameters
        ----------
        limit_bytes : int
            Below 0, everything may go.
        used : callable
            When a file was last used, in seconds since the epoch; asked of all.
        used_now : callable
            The same, asked again just before a file is removed.
        large_bytes : int
            Larger files go before all others.
        idle_s : float
            What was used within this time stays; at least `YOUNG_S`.

        Returns
        -------
        list of Kept
            What is gone. What any process of this computer has open stays.
        """
        files = list(self.files())
        total = Usage(len(files), sum(item.size_bytes for item in files))
        self._write_usage(total)
        if total.size_bytes <= limit_bytes:
            return []
        judge = _Opened()
        order = sorted(
            ((item.size_bytes <= large_bytes, used(item), item) for item in files),
            key=lambda entry: entry[:2],
        )
        gone: list[Kept] = []
        left = total.size_bytes
        for _, moment, item in order:
            if left <= limit_bytes * _AFTERWARDS:
                break
            # Somebody may have found it while others were removed.
            latest = max(moment, used_now(item))
            is_idle = time.time() - latest >= max(idle_s, YOUNG_S)
            if is_idle and self._remove_unless_open(item, judge):
                left -= item.size_bytes
                gone.append(item)
        self.add_usage(Usage(-len(gone), left - total.size_bytes))
        return gone

    def _remove_unless_open(self, item: Kept, judge: _Opened) -> bool:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:

            def opened(name: str, flags: int, within: int | None = None) -> int:
                descriptor = os.open(name, flags, dir_fd=within)
                stack.callback(os.close, descriptor)
                return descriptor

            top = stack.enter_context(contextlib.closing(self._opened())).number
            shard = opened(item.sha256[:2], _FOLDER, opened("files", _FOLDER, top))
            folder = opened(item.sha256, _FOLDER, shard)
            file = opened(item.name, _FILE, folder)
            # The lease ends with the descriptor: who opens the file meanwhile waits, and reads it.
            if judge.is_open(file, folder):
                return False
            os.unlink(item.name, dir_fd=folder)
            with contextlib.suppress(OSError):
                os.rmdir(item.sha256, dir_fd=shard)
            return True
        return False

    def _folders(self) -> Iterator[tuple[str, int]]:
        """Iterate over the folders of the digests, each opened."""
        try:
            top = self._opened()
        except OSError:
            return
        with contextlib.closing(top):
            for _, files in _inner(top.number, only="files"):
                for _, shard in _inner(files):
                    yield from _inner(shard)

    def _make(self, folder: Path) -> None:
        mode = 0o755 if self.is_open else 0o700
        try:
            folder.mkdir(mode=mode)
            folder.chmod(mode)
        except FileExistsError:
            if not folder.is_dir() or (self.is_open and folder.is_symlink()):
                raise
        else:
            sync_folder(folder.parent)

    def _read_usage(self) -> Usage | None:
        try:
            descriptor = os.open(self.folder / "usage", _FILE)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return None
                files, size, counted = (int(word) for word in file.read(100).split())
        except (OSError, ValueError):
            return None
        is_fresh = abs(time.time() - counted) < _RECOUNT_S or not self.is_ours()
        return Usage(files, size) if is_fresh and files >= 0 and size >= 0 else None

    def _write_usage(self, usage: Usage, *, keep_age: bool = False) -> None:
        """Write the sum; quietly not at all where we may not."""
        counted = int(time.time())
        if keep_age:
            with contextlib.suppress(OSError, ValueError, IndexError):
                counted = int((self.folder / "usage").read_bytes()[:100].split()[2])
        content = f"{usage.files} {usage.size_bytes} {counted}\n".encode()
        temporary = f".new-{uuid.uuid4().hex}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(OSError), contextlib.closing(self._opened()) as top:
            descriptor = os.open(temporary, flags, 0o600, dir_fd=top.number)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    os.fchmod(descriptor, 0o644 if self.is_open else 0o600)
                    if os.geteuid() == 0:
                        os.fchown(descriptor, os.fstat(top.number).st_uid, -1)
                os.rename(temporary, "usage", src_dir_fd=top.number, dst_dir_fd=top.number)
            except OSError:
                os.unlink(temporary, dir_fd=top.number)
                raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from changing the sum; not for long, since any reader may take this lock."""
        try:
            top = self._opened()
        except OSError:
            yield
            return
        with contextlib.closing(top):
            give_up = time.monotonic() + _PATIENCE_S
            while time.monotonic() < give_up:
                try:
                    fcntl.flock(top.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    time.sleep(0.002)
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    fcntl.flock(top.number, fcntl.LOCK_UN)

    def _opened(self) -> _Descriptor:
        flags = _FOLDER if self.is_open else _FOLDER & ~os.O_NOFOLLOW
        return _Descriptor(os.open(self.folder, flags))


@dataclass
class _Descriptor:
    number: int

    def close(self) -> None:
        os.close(self.number)


def _inner(folder: int, *, only: str | None = None) -> Iterator[tuple[str, int]]:
    """Open the folders in a folder, one after the other."""
    names = [only] if only is not None else os.listdir(folder)
    for name in names:
        try:
            descriptor = os.open(name, _FOLDER, dir_fd=folder)
        except OSError:
            continue
        try:
            yield name, descriptor
        finally:
            os.close(descriptor)


class _Opened:
    """Tells whether anybody on this computer has a file open.

    Notes
    -----
    A lease is granted only if nobody has. Where there are none (NFS, another's file), the processes
    that /proc shows are asked, which are at least all of the caller's.
    """

    def __init__(self) -> None:
        self._has_leases: bool | None = None
        self._seen: set[tuple[int, int]] | None = None

    def is_open(self, file: int, folder: int) -> bool:
        """Look at an open file; its lease is kept until its descriptor is closed."""
        granted = take_lease(file)
        if granted:
            return False
        if granted is False and self._are_leases_given(folder):
            return True
        if self._seen is None:
            self._seen = _open_files(but=file)
        status = os.fstat(file)
        return (status.st_dev, status.st_ino) in self._seen

    def _are_leases_given(self, folder: int) -> bool:
        """Try with a file that nobody can have open."""
        if self._has_leases is None:
            name = f".new-{uuid.uuid4().hex}"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=folder)
            try:
                self._has_leases = take_lease(descriptor) is True
            finally:
                os.unlink(name, dir_fd=folder)
                os.close(descriptor)
        return self._has_leases


def _open_files(*, but: int) -> set[tuple[int, int]]:
    """Return device and inode of every file that a process has open which we may look at.

    Parameters
    ----------
    but : int
        Descriptor of this process that does not count.
    """
    found = set()
    own = str(os.getpid())
    processes = [name for name in _listed("/proc") if name.isdecimal() and name != own]
    for place in ["/dev/fd", *(f"/proc/{name}/fd" for name in processes)]:
        for number in _listed(place):
            if place == "/dev/fd" and number == str(but):
                continue
            with contextlib.suppress(OSError):
                status = os.stat(f"{place}/{number}")  # noqa: PTH116 - a link to an open file
                if stat.S_ISREG(status.st_mode):
                    found.add((status.st_dev, status.st_ino))
    return found


def _listed(folder: str) -> list[str]:
    try:
        return [path.name for path in Path(folder).iterdir()]
    except OSError:
        return []
