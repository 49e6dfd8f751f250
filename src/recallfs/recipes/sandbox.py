"""Putting folders out of a recipe's sight, so that a proof cannot be a copy of the original.

The worker gets mounts of its own and covers each hidden folder with an empty one; input files and
the scratch folder are mounted back, in their places, input files read-only. By every path that
leads into a hidden folder (links, other mounts of the same disk, ``/proc/<pid>/root``) the original
is absent, not merely forbidden.

This keeps honest recipes honest: code that finds the file it should make, and returns it. Root's
recipe loses those rights with which it could take a cover away or read a disk past its files, and
keeps the others; it is no prison for hostile code for all that.

A process may look through another's root folder (``/proc/<pid>/root``) if both are in one user
namespace and it is root. So the recipe gets process ids and a ``/proc`` of its own; where the
kernel refuses those, and for users who are not root, it gets a user namespace of its own, which
alone is enough. In the rare case of root without a ``/proc`` of its own, files of other users can
then be read only as far as their permission bits let everyone.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from recallfs.errors import RecomputeError

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_NOATIME, _MS_NODIRATIME = 32, 1024, 2048
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_RELATIME = 4096, 16384, 1 << 18, 1 << 21
_CAPABILITY_VERSION_3 = 0x20080522
_ST_RELATIME = 4096
# What a bind mount had must be kept when it is made read-only, or the kernel refuses.
_KEPT_FLAGS = {
    _MS_NOSUID: _MS_NOSUID, _MS_NODEV: _MS_NODEV, _MS_NOEXEC: _MS_NOEXEC,
    _MS_NOATIME: _MS_NOATIME, _MS_NODIRATIME: _MS_NODIRATIME, _ST_RELATIME: _MS_RELATIME,
}  # fmt: skip
# DAC_READ_SEARCH (opens files by their inodes), SYS_MODULE, SYS_RAWIO, SYS_ADMIN, MKNOD.
_RIGHTS_TO_UNCOVER = sum(1 << number for number in (2, 16, 17, 21, 27))
_CAPBSET_DROP = 24
_REMEMBERED_S = 60.0
_MOST_STEPS = 1000  # more than any path has parts; links may form a loop
_O_PATH = getattr(os, "O_PATH", 0)


class _Mount(NamedTuple):
    """One line of ``/proc/self/mountinfo``: which part of a disk is mounted where."""

    device: str
    part: Path
    point: Path


class _Binding(NamedTuple):
    """A path that is mounted back: the open original, and whether it may be written."""

    place: Path
    descriptor: int
    is_writable: bool


def separate_mounts() -> bool:
    """Give this process mounts of its own, and user ids of its own if need be.

    Returns
    -------
    bool
        Whether children of this process get process ids of their own; the first one is their
        ``init`` and must call `mount_proc`.

    Raises
    ------
    RecomputeError
        Kind ``cannot-hide`` if the kernel refuses.

    Notes
    -----
    The process must have one thread. Costs a few milliseconds, since it is first tried in a fork
    whether ``/proc`` can be mounted.
    """
    if not sys.platform.startswith("linux"):
        _refuse("hiding files needs Linux")
    with_processes = _succeeds(_try_processes)
    try:
        _separate(with_processes=with_processes, with_users=os.geteuid() != 0 or not with_processes)
    except OSError as error:
        _refuse(f"the kernel refused a private view of the file system ({error})", error)
    return with_processes


def mount_proc() -> None:
    """Mount a ``/proc`` that shows the process ids of this namespace only."""
    _mount("proc", Path("/proc"), "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def cover(
    hide: Sequence[Path], expose: Iterable[Path], writable: Iterable[Path] = ()
) -> tuple[str, ...]:
    """Cover folders with empty ones and mount back what may be seen.

    Parameters
    ----------
    hide : sequence of Path
        Folders, or files, which then read as empty. What does not exist is ignored.
    expose : iterable of Path
        Mounted back read-only where it lies below a hidden folder; links keep working.
    writable : iterable of Path
        Like `expose`, but may be written.

    Returns
    -------
    tuple of str
        The places that were covered: the folders and their other names on this computer.

    Raises
    ------
    RecomputeError
        Kind ``cannot-hide`` if a mount is refused, or if a hidden folder is to be exposed as a
        whole.

    Notes
    -----
    Call `separate_mounts` before, or the whole computer loses sight of the folders. Writes into a
    cover stay in memory and end with the run. The working folder must be entered anew afterwards.
    """
    hidden = [path.resolve() for path in hide]
    if Path("/") in hidden:
        _refuse("the root of the file system cannot be hidden")
    covers = sorted({place for path in hidden if path.exists() for place in _places(path)})
    bindings: list[_Binding] = []
    try:
        bindings += _bindings(expose, covers, is_writable=False)
        bindings += _bindings(writable, covers, is_writable=True)
        _mount_all(covers, bindings)
    except OSError as error:
        _refuse(f"a folder could not be covered ({error})", error)
    finally:
        for binding in bindings:
            os.close(binding.descriptor)
    return tuple(map(str, covers))


def drop_privileges() -> None:
    """Give up the capabilities that a user namespace brought; root, those that undo a cover.

    Notes
    -----
    Of root's, what is run from now on does not get them back either.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Effective, permitted and inheritable ones: of the first 32, then of the others.
    rights = (ctypes.c_uint32 * 6)()
    if os.geteuid() == 0:
        for number in range(32):
            if _RIGHTS_TO_UNCOVER >> number & 1:
                _check(libc.prctl(_CAPBSET_DROP, number, 0, 0, 0), "prctl")
        _check(libc.capget(header, rights), "capget")
        rights[0:3] = [right & ~_RIGHTS_TO_UNCOVER for right in rights[0:3]]
    _check(libc.capset(header, rights), "capset")


def can_hide() -> bool:
    """Tell whether recipes can be run with folders out of sight here.

    Notes
    -----
    Tried for real in a process of its own, which takes about as long as starting Python; what it
    found is remembered for a minute.
    """
    if not sys.platform.startswith("linux"):
        return False
    return _hides(int(time.monotonic() / _REMEMBERED_S))


@functools.lru_cache(maxsize=1)
def _hides(_period: int) -> bool:
    probe = "from recallfs.recipes.sandbox import separate_mounts; separate_mounts()"
    done = subprocess.run(
        [sys.executable, "-c", probe],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    return done.returncode == 0


def _refuse(problem: str, cause: BaseException | None = None) -> NoReturn:
    raise RecomputeError(
        f"{problem}, so the original cannot be put out of the recipe's sight. Allow user "
        "namespaces (sysctl kernel.unprivileged_userns_clone=1, and "
        "kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu), run as root, or give the "
        "container CAP_SYS_ADMIN.",
        kind="cannot-hide",
    ) from cause


def _separate(*, with_processes: bool, with_users: bool) -> None:
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNS | (_CLONE_NEWPID if with_processes else 0)
    if not with_users:
        try:
            _unshare(flags)
        except PermissionError:  # a root without CAP_SYS_ADMIN, as in containers
            with_users = True
    if with_users:
        _unshare(flags | _CLONE_NEWUSER)
        # Without this the kernel lets nobody but real root map groups.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    # Else the covers would spread to everyone else's view where mounts are shared (systemd does).
    _mount("none", Path("/"), None, _MS_REC | _MS_PRIVATE)


def _try_processes() -> None:
    _separate(with_processes=True, with_users=os.geteuid() != 0)
    if not _succeeds(mount_proc):
        raise OSError(errno.EPERM, "no /proc")


def _succeeds(attempt: Callable[[], None]) -> bool:
    """Call `attempt` in a fork and tell whether it returned."""
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _unshare(flags: int) -> None:
    _check(ctypes.CDLL(None, use_errno=True).unshare(flags), "unshare")


def _mount(
    source: str, target: Path, kind: str | None, flags: int, data: str | None = None
) -> None:
    result = ctypes.CDLL(None, use_errno=True).mount(
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        None if data is None else data.encode(),
    )
    _check(result, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _places(path: Path) -> Iterator[Path]:
    """Yield a real path and its other names: where else the same part of its disk is mounted."""
    yield path
    mounts = list(_mounts())
    above = [mount for mount in mounts if path.is_relative_to(mount.point)]
    if not above:
        return
    # Of the deepest mounts above the path, the last one is the one that shows it.
    own = max(enumerate(above), key=lambda item: (len(item[1].point.parts), item[0]))[1]
    part = own.part / path.relative_to(own.point)
    identity = _identity(path)
    for mount in mounts:
        if mount is own or mount.device != own.device:
            continue
        if part.is_relative_to(mount.part):
            other = mount.point / part.relative_to(mount.part)
            if other != path and _identity(other) == identity:
                yield other
        elif mount.part.is_relative_to(part) and not (
            mount.point.is_relative_to(path) or path.is_relative_to(mount.point)
        ):
            yield mount.point


def _mounts() -> Iterator[_Mount]:
    text = Path("/proc/self/mountinfo").read_bytes()
    for line in text.splitlines():
        fields = line.split(b" ")
        yield _Mount(fields[2].decode(), _unescape(fields[3]), _unescape(fields[4]))


def _unescape(field: bytes) -> Path:
    for character in b" \t\n\\":
        field = field.replace(b"\\%03o" % character, bytes([character]))
    return Path(os.fsdecode(field))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _bindings(
    paths: Iterable[Path], covers: Sequence[Path], *, is_writable: bool
) -> Iterator[_Binding]:
    """Open each path that a cover would take away, under the names that it is asked for by."""
    for path in paths:
        real = path.resolve()
        if not real.exists():
            continue
        places = {real} if _is_below(real, covers) else set()
        places.update(_entrances(path.absolute(), covers))
        for place in sorted(places):
            if place in covers:
                _refuse(f"{place} is to be hidden and exposed at once")
            yield _Binding(place, os.open(real, _O_PATH | os.O_CLOEXEC), is_writable)


def _entrances(path: Path, covers: Sequence[Path]) -> Iterator[Path]:
    """Follow a path as the kernel does and yield where it first enters a covered folder.

    The path may be a link, or lead through links, that a cover takes away.
    """
    here = Path("/")
    waiting = list(path.parts[1:])
    for _ in range(_MOST_STEPS):
        if not waiting:
            return
        part = waiting.pop(0)
        there = here.parent if part == ".." else here / part
        if _is_below(there, covers):
            yield Path(os.path.normpath(there.joinpath(*waiting)))
            return
        if there.is_symlink():
            target = there.readlink()
            waiting = [*(target.parts[1:] if target.is_absolute() else target.parts), *waiting]
            here = Path("/") if target.is_absolute() else here
        else:
            here = there


def _is_below(path: Path, covers: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in covers)


def _mount_all(covers: Sequence[Path], bindings: Sequence[_Binding]) -> None:
    """Mount from the outside in, so that what lies deeper lands on what lies above it."""
    steps: list[tuple[Path, _Binding | None]] = [(place, None) for place in covers]
    steps += [(binding.place, binding) for binding in bindings]
    for place, binding in sorted(steps, key=lambda step: len(step[0].parts)):
        if binding is not None:
            _bind(binding)
        elif place.is_dir():
            _mount("tmpfs", place, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=64m")
        elif place.exists():
            _mount("/dev/null", place, None, _MS_BIND)
            _make_read_only(place)  # or root's chmod of it would be one of the computer's own


def _bind(binding: _Binding) -> None:
    place = binding.place
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(os.fstat(binding.descriptor).st_mode):
            place.mkdir()
        else:
            place.touch(exist_ok=False)
    _mount(f"/proc/self/fd/{binding.descriptor}", place, None, _MS_BIND | _MS_REC)
    if not binding.is_writable:
        _make_read_only(place)


def _make_read_only(place: Path) -> None:
    had = os.statvfs(place).f_flag
    kept = sum(flag for bit, flag in _KEPT_FLAGS.items() if had & bit)
    _mount("none", place, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)
