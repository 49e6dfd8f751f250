"""Tickets: what each piece of work on a computer tells the others, in files that they share.

See `recallfs.resolve.budget` for what they are for.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import logging
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from recallfs.atomic import is_full, no_space
from recallfs.catalog.holder import Holder
from recallfs.config import Floor
from recallfs.errors import InvalidInputError, RecallError, SourceError
from recallfs.resolve.admission import Disk, Limits, Ticket, Verdict, admit
from recallfs.sources.base import Need
from recallfs.values import format_size

LOOK_S = 0.5
"""How often a waiting one looks at all tickets even if no name changed: a dead process changes
none."""

_TICK_NS = 50_000_000
"""Two changes of a folder within this time may leave it with one and the same time."""

_PREFIX = "ticket-"
_LOCK_PREFIX = "lock-"
_USER_PREFIX = "user-"
_LOCK_POLL_S = 0.002
_LOCK_PATIENCE_S = 2.0
_FOLDER_GRACE_S = 0.05
_log = logging.getLogger("recallfs")


@dataclass(frozen=True)
class Asked:
    """What a piece of work asks for.

    Parameters
    ----------
    need : Need
    place : Path
        Folder on the disk that will be written to.
    device : int
        Number of that disk.
    folder : Path
        Where the tickets are.
    keep_free : Floor
    limits : Limits
    number : int
        When it was asked for, by the monotonic clock, in nanoseconds.
    """

    need: Need
    place: Path
    device: int
    folder: Path
    keep_free: Floor
    limits: Limits
    number: int


@dataclass(eq=False)
class HeldTicket:
    """A ticket of this process: a locked file in the folder."""

    ticket: Ticket
    asked: Asked
    descriptor: int
    pid: int = field(default_factory=os.getpid)
    verdict: Verdict = field(default_factory=lambda: Verdict(may_start=False))
    folder_stamp: tuple[int, int] = (0, 0)
    looked: float = 0.0

    @classmethod
    def enter(cls, asked: Asked) -> HeldTicket:
        """Get a ticket, as one that waits."""
        ticket = Ticket(
            user=os.geteuid(),
            kind=asked.need.kind,
            size_bytes=asked.need.size_bytes,
            device=asked.device,
            number=asked.number,
            seen=time.monotonic_ns(),
            name=_PREFIX + uuid.uuid4().hex,
        )
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _locked(asked.folder) as folder:
            descriptor = _keep(os.open(ticket.name, flags, 0o644, dir_fd=folder))
            held = cls(ticket, asked, descriptor)
            try:
                os.fchmod(descriptor, 0o644)  # whatever the umask: other users must read it
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                held.write()
            except BaseException:
                held.close()
                raise
        return held

    def look(self) -> Verdict:
        """Decide whether to start, if anything changed since the last look; start if so.

        Raises
        ------
        SourceError
            Kind ``no-space``.
        """
        stamp = _stamp(self.asked.folder)
        if stamp == self.folder_stamp and time.monotonic() - self.looked < LOOK_S:
            return self.verdict
        self.ticket = replace(self.ticket, seen=time.monotonic_ns())
        usage = shutil.disk_usage(self.asked.place)
        floor = self.asked.keep_free.on(usage.total)
        disk = Disk(usage.total, usage.free, floor)
        with _locked(self.asked.folder) as folder:
            # Before the look: what changes after this is looked at again.
            self.folder_stamp, self.looked = _stamp(self.asked.folder), time.monotonic()
            if abs(time.time_ns() - self.folder_stamp[0]) < _TICK_NS:
                self.folder_stamp = (0, 0)  # another change might not show
            others = _others(folder, self.ticket.name)
            self.verdict = admit(self.ticket, others, self.asked.limits, disk, _served(folder))
            self.ticket = replace(
                self.ticket,
                is_running=self.verdict.may_start,
                lacks_space=self.verdict.lacks_space,
            )
            self.write()
            if self.verdict.may_start:
                _note_served(folder)
        if self.verdict.is_hopeless:
            raise SourceError(
                f"not enough space on the disk at {self.asked.place}: "
                f"{format_size(self.ticket.size_bytes)} are needed, {format_size(usage.free)} are "
                f"free, of which {format_size(floor)} are to stay free (recall.keep_free); "
                "free some space and try again.",
                kind="no-space",
                details={
                    "needed_bytes": self.ticket.size_bytes,
                    "free_bytes": usage.free,
                    "keep_free_bytes": floor,
                    "folder": str(self.asked.place),
                },
            )
        return self.verdict

    def write(self) -> None:
        """Write the ticket down; for use under the folder's lock."""
        told = {**vars(self.ticket), "holder": str(Holder.current())}
        content = json.dumps(told).encode()
        os.pwrite(self.descriptor, content, 0)
        os.ftruncate(self.descriptor, len(content))

    def close(self) -> None:
        """Give the ticket back; nothing in a child that was forked from its process."""
        if self.pid != os.getpid() or self.descriptor < 0:
            return
        with contextlib.suppress(OSError):
            # Without the lock: whoever reads it now, sees it a moment longer.
            (self.asked.folder / self.ticket.name).unlink()
        _let_go(self.descriptor)
        self.descriptor = -1


def _stamp(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError:
        return (0, 0)
    return status.st_mtime_ns, status.st_ino


def _others(folder: int, own: str) -> list[Ticket]:
    """Read the tickets of all that are alive; those of the dead are swept where we may."""
    found = []
    for name in os.listdir(folder):
        if name.startswith(_PREFIX) and name != own:
            ticket = _read_ticket(folder, name)
            if ticket is not None:
                found.append(ticket)
    return found


def _read_ticket(folder: int, name: str) -> Ticket | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = _keep(os.open(name, flags, dir_fd=folder))
    except OSError:
        return None  # gone meanwhile, or nothing of ours
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _parse_ticket(os.pread(descriptor, 4096, 0), name, status.st_uid)
        # Nobody holds it: its process is dead. In a folder that is not ours, its owner may sweep.
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        return None
    finally:
        _let_go(descriptor)


def _parse_ticket(content: bytes, name: str, owner: int) -> Ticket | None:
    """Read what a ticket says; whose it is, the file's owner tells."""
    try:
        told = json.loads(content)
        ticket = Ticket(
            user=owner,
            kind=str(told["kind"]),
            size_bytes=max(0, int(told["size_bytes"])),
            device=int(told["device"]),
            number=int(told["number"]),
            seen=int(told["seen"]),
            is_running=bool(told["is_running"]),
            lacks_space=bool(told["lacks_space"]),
            name=name,
        )
        holder = Holder.parse(str(told["holder"]))
    except (ValueError, KeyError, TypeError):
        return None
    if ticket.is_running and holder.is_known_stopped():
        # Its recall is taken over by another process, which must not wait for its slot. What it
        # may have written stays reserved.
        return replace(ticket, kind="stopped")
    return ticket


def _served(folder: int) -> dict[int, int]:
    """Read when work of each user last started, since this computer did."""
    served = {}
    for name in os.listdir(folder):
        user = name.removeprefix(_USER_PREFIX)
        if name.startswith(_USER_PREFIX) and user.isdecimal():
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            with contextlib.suppress(OSError, ValueError):
                descriptor = os.open(name, flags, dir_fd=folder)
                try:
                    is_theirs = os.fstat(descriptor).st_uid == int(user)
                    host, _, moment = os.read(descriptor, 512).decode().rpartition(" ")
                finally:
                    os.close(descriptor)
                if is_theirs and host == Holder.current().host:
                    served[int(user)] = int(moment)
    return served


def _note_served(folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    # Without it, turns between users are less even.
    with contextlib.suppress(OSError):
        descriptor = os.open(f"{_USER_PREFIX}{os.geteuid()}", flags, 0o644, dir_fd=folder)
        try:
            os.fchmod(descriptor, 0o644)
            os.write(descriptor, f"{Holder.current().host} {time.monotonic_ns()}".encode())
        finally:
            os.close(descriptor)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the lock under which tickets are read and changed; yields the folder's descriptor.

    Notes
    -----
    It is held for a millisecond. Should a process be stopped in just that one, the others go on to
    a lock of the next number; what the stopped one does when it wakes may exceed a limit by one.
    """
    descriptor = _keep(_open_folder(folder))
    lock = -1
    try:
        with _usable(folder):
            lock = _take_lock(descriptor)
            yield descriptor
    finally:
        if lock >= 0:
            _let_go(lock)
        _let_go(descriptor)


def _take_lock(folder: int) -> int:
    """Lock the newest lock file; after a while without success, make a newer one."""
    generation, since = -1, time.monotonic()
    while True:
        newest = _newest_lock(folder)
        if newest != generation:
            generation, since = newest, time.monotonic()
        if newest < 0 or time.monotonic() - since > _LOCK_PATIENCE_S:
            flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with contextlib.suppress(FileExistsError):
                made = os.open(f"{_LOCK_PREFIX}{newest + 1}", flags, 0o644, dir_fd=folder)
                os.fchmod(made, 0o644)
                os.close(made)
            continue
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = _keep(os.open(f"{_LOCK_PREFIX}{newest}", flags, dir_fd=folder))
        except FileNotFoundError:
            continue
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _newest_lock(folder) == newest:
                if newest:  # where we may, drop the one that was given up
                    with contextlib.suppress(OSError):
                        os.unlink(f"{_LOCK_PREFIX}{newest - 1}", dir_fd=folder)
                return descriptor
        _let_go(descriptor)
        time.sleep(_LOCK_POLL_S)


def _newest_lock(folder: int) -> int:
    names = (name for name in os.listdir(folder) if name.startswith(_LOCK_PREFIX))
    numbers = (name.removeprefix(_LOCK_PREFIX) for name in names)
    return max((int(n) for n in numbers if n.isdecimal() and len(n) < 12), default=-1)


@functools.cache
def usual_folder() -> Path:
    """Return the folder that all users share or, if that cannot be used, one of this user's."""
    shared = Path(tempfile.gettempdir()) / "recallfs-budget"
    own = shared.with_name(f"{shared.name}-{os.geteuid()}")
    try:
        os.close(_open_folder(shared))
    except (InvalidInputError, SourceError) as error:
        _log.warning("%s Budgets hold for your own processes only, by %s.", error, own)
        return own
    return shared


def _open_folder(folder: Path) -> int:
    """Open the folder, made if need be, unless others could put files of ours elsewhere.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-config``.
    """
    with contextlib.suppress(FileExistsError), _usable(folder):
        folder.mkdir(mode=0o700)
        folder.chmod(0o1777)  # all may make tickets; nobody may remove another's
    with _usable(folder):
        if not os.access(folder, os.W_OK):
            time.sleep(_FOLDER_GRACE_S)  # another user may be between these two steps
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(folder, flags)
    status = os.fstat(descriptor)
    is_shared = bool(status.st_mode & 0o022)
    is_safe = bool(status.st_mode & stat.S_ISVTX) if is_shared else status.st_uid == os.geteuid()
    if not is_safe or not os.access(folder, os.W_OK | os.X_OK):
        os.close(descriptor)
        raise InvalidInputError(
            f"{folder}, by which processes agree on budgets, belongs to another user or lets "
            "anybody remove files; give it the mode 1777, or name another folder as "
            "recall.budget_folder.",
            kind="invalid-config",
            details={"folder": str(folder)},
        )
    return descriptor


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if isinstance(error, RecallError):
            raise
        if is_full(error):
            raise no_space(error, folder) from error
        raise InvalidInputError(
            f"{folder}, by which processes agree on budgets, cannot be used "
            f"({os.strerror(error.errno or 0)}); name another folder as recall.budget_folder.",
            kind="invalid-config",
            details={"folder": str(folder)},
        ) from error


_descriptors: set[int] = set()


def _forget_parent() -> None:
    """After a fork, let go of the parent's tickets: they end with the parent, not with us."""
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)  # closing a copy leaves the parent its lock
    _descriptors.clear()


os.register_at_fork(after_in_child=_forget_parent)


def _keep(descriptor: int) -> int:
    _descriptors.add(descriptor)
    return descriptor


def _let_go(descriptor: int) -> None:
    _descriptors.discard(descriptor)
    # Closing is not enough where a child that was forked meanwhile has the descriptor too.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
