"""The mount point: whether it can be used, putting the mount there, and taking it away."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import shutil
import socket
import subprocess
from pathlib import Path

from recallfs.errors import AccessError, ConflictError, InvalidInputError
from recallfs.mounts import MountInfo, find, read_mounts

KIND = "fuse.recall"
"""What the system's list of mounts calls one of ours."""

_DEVICE = Path("/dev/fuse")

# Stays outside of the server's own view of the disks, and outlives it: a mount whose server is
# gone, however it went, does not stay behind. What it is told to run is in its arguments.
_KEEPER = """
trap '' INT TERM HUP
read -r line || exit 0
"$1" -o "$2" -- "$3" || exit
line=
read -r line
if [ "$line" = unmount ] || ! test -d "$3"; then exec "$1" -u -z -- "$3" 2> /dev/null; fi
"""


def program() -> str:
    """Return the program that mounts and unmounts.

    Raises
    ------
    InvalidInputError
        It, or the kernel's part, is not there.
    """
    found = shutil.which("fusermount3")
    if found is None:
        raise InvalidInputError(
            "a mount needs fusermount3; install it (on Debian and Ubuntu `apt install fuse3`)."
        )
    if not _DEVICE.exists():
        raise InvalidInputError(
            "there is no /dev/fuse here: load the kernel's module (`modprobe fuse`), or start this "
            "container with `--device /dev/fuse --cap-add SYS_ADMIN`."
        )
    return found


def mounted(place: Path, pid: int | None = None) -> MountInfo | None:
    """Return what of ours is mounted at a path without symlinks, or None.

    Parameters
    ----------
    place : Path
    pid : int, optional
        Process whose view of the disks counts; by default this one's.
    """
    table = Path(f"/proc/{'self' if pid is None else pid}/mountinfo")
    found = find(read_mounts(table), place)
    return found if found.kind == KIND and found.mount_point == str(place) else None


def is_dead(place: Path) -> bool:
    """Tell whether what is mounted at a path has no server any more."""
    try:
        os.stat(place)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def resolved(place: Path) -> Path:
    """Return a mount point without symlinks, whatever state it is in."""
    absolute = Path(os.path.abspath(place))
    return Path(os.path.realpath(absolute.parent)) / absolute.name


def prepare(place: Path, root: Path) -> Path:
    """Make sure that something can be mounted at a path; take a dead mount away from it.

    Parameters
    ----------
    place : Path
    root : Path
        Of the store: it may be mounted over itself.

    Returns
    -------
    Path
        Without symlinks.

    Raises
    ------
    InvalidInputError
        There is no such folder, it is in the store, or it is not empty.
    ConflictError
        A store is mounted there already.
    """
    place = resolved(place)
    while is_dead(place):
        if mounted(place) is None:
            raise InvalidInputError(
                f"what is mounted at {place} does not answer, and is none of ours; unmount it."
            )
        unmount(place, lazy=True)
    place = Path(os.path.realpath(place))
    there = mounted(place)
    if there is not None:
        raise ConflictError(f"{there.source} is mounted at {place} already.", kind="in-use")
    if not place.is_dir():
        raise InvalidInputError(f"there is no folder {place} to mount at; make it first.")
    if place == root or place.samefile(root):
        return place
    if place.is_relative_to(root):
        raise InvalidInputError(
            f"{place} is inside the store that would be mounted there; take an empty folder "
            f"outside of it, or {root} itself."
        )
    try:
        is_empty = next(place.iterdir(), None) is None
    except PermissionError as error:
        raise AccessError(f"you cannot look into {place}: {error.strerror}.") from error
    if not is_empty:
        raise InvalidInputError(
            f"{place} is not empty, and what is in it would be hidden; take an empty folder."
        )
    return place


def unmount(place: Path, *, lazy: bool = False) -> None:
    """Take a mount away.

    Parameters
    ----------
    place : Path
        Without symlinks.
    lazy : bool
        Take away the name at once and the rest when nobody uses it any more.

    Raises
    ------
    ConflictError
        Kind ``in-use``: a program has a file or folder of it open.
    AccessError
        Somebody else mounted it.
    """
    command = [program(), "-u", *(["-z"] if lazy else []), "--", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = done.stderr.strip()
    if "busy" in said:
        raise ConflictError(
            f"programs are using {place}; end them, or let them finish with `recall unmount "
            f"--lazy {place}`.",
            kind="in-use",
        )
    if mounted(place) is not None:  # else somebody was quicker
        raise AccessError(f"{place} cannot be unmounted: {said}.")


class Keeper:
    """A small process that mounts, and unmounts when the server ends or dies.

    Parameters
    ----------
    place : Path
        Mount point.
    source : str
        Address of the store.
    allow_other : bool
        Whether all users may use it.

    Notes
    -----
    It is started before the server leaves the common view of the disks (`apart.leave`), and stays
    there.
    """

    def __init__(self, place: Path, source: str, *, allow_other: bool) -> None:
        self.place = place
        ours, theirs = socket.socketpair()
        options = f"fsname={source},subtype=recall,nosuid,nodev"
        if allow_other:
            options += ",allow_other"
        with theirs:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _KEEPER, "recall-keeper", program(), options, str(place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # the terminal's Ctrl-C is for the server
                cwd="/",
            )
        self._socket = ours

    def mount(self) -> int:
        """Mount, and return the open ``/dev/fuse``.

        Raises
        ------
        AccessError
            The system does not let this user mount there.
        """
        self._tell("mount")
        numbers = array.array("i")
        with self._socket:
            _, control, *_ = self._socket.recvmsg(1, socket.CMSG_LEN(numbers.itemsize))
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers.frombytes(data[: numbers.itemsize])
        if not numbers:
            said = self._process.communicate()[1].decode(errors="replace").strip()
            raise AccessError(f"{self.place} cannot be mounted at: {said}.")
        os.set_inheritable(numbers[0], False)
        return numbers[0]

    @property
    def outside(self) -> Path:
        """The mount point as everybody else sees it, and not this process's view of the disks."""
        return Path(f"/proc/{self._process.pid}/root{self.place}")

    @property
    def is_mounted(self) -> bool:
        """Whether the mount is still there, or it cannot be told."""
        return (
            self._process.poll() is not None or mounted(self.place, self._process.pid) is not None
        )

    def unmount(self) -> None:
        """Unmount, also what programs still use: they finish what they are at."""
        with contextlib.suppress(OSError):
            self._tell("unmount")

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(f"{word}\n".encode())
        self._process.stdin.flush()
