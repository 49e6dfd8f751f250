"""Who holds a lease or has work in hand: a process that can be told alive or dead."""

from __future__ import annotations

import functools
import getpass
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3


@dataclass(frozen=True)
class Holder:
    """A process, named so that no later process can be taken for it.

    Parameters
    ----------
    host : str
        Host name and boot, so that a reboot makes all earlier holders dead. In a container or a
        sandbox, the PID namespace too: from elsewhere its process ids say nothing.
    pid : int
    started : str
        The process's start time as the kernel counts it; guards against reused process ids.
    """

    host: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> Holder:
        """Return the calling process."""
        pid = os.getpid()
        return cls(_host(), pid, _start_time(pid) or _UNKNOWN)

    @classmethod
    def parse(cls, text: str) -> Holder:
        """Read what `str` wrote; nonsense gives a holder that is never known to be dead."""
        host, _, rest = text.partition("|")
        pid, _, started = rest.partition("|")
        return cls(host, int(pid) if pid.isdecimal() else 0, started.partition("|")[0])

    def __str__(self) -> str:
        return f"{self.host}|{self.pid}|{self.started}"

    def token(self) -> str:
        """Spell the holder as part of a file name; `from_token` is the way back."""
        name, _, boot = self.host.partition("/")
        return f"{_short(name)}-{_short(boot)}-{self.pid}-{self.started}"

    @classmethod
    def from_token(cls, token: str) -> Holder | None:
        """Read the start of a file name made with `token`; None for another host's or no token."""
        parts = token.split("-")
        own_name, _, own_boot = _host().partition("/")
        if len(parts) < 4 or parts[0] != _short(own_name) or not parts[2].isdecimal():
            return None
        boot = own_boot if parts[1] == _short(own_boot) else "an earlier boot"
        return cls(f"{own_name}/{boot}", int(parts[2]), parts[3])

    def is_known_dead(self) -> bool:
        """Tell whether the process has surely ended; of other hosts nothing is known."""
        name, _, boot = self.host.partition("/")
        own_name, _, own_boot = _host().partition("/")
        if name != own_name or self.pid == 0:
            return False
        if boot != own_boot:
            return True
        if not _sees_processes():
            return False
        return _start_time(self.pid) not in (self.started, _UNKNOWN)

    def is_known_stopped(self) -> bool:
        """Tell whether the process stands still (SIGSTOP, a debugger) on this host."""
        if self.host != _host() or not _sees_processes():
            return False
        try:
            fields = _status(self.pid)
        except OSError:  # it ended, perhaps just now
            return False
        return fields[19] == self.started and fields[0] in ("T", "t")


_UNKNOWN = "?"  # start time of a process that is there and does not show more


def _short(text: str) -> str:
    return blake3(text.encode()).hexdigest()[:12]


_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # the kernel's PROC_PID_INIT_INO, the same at every boot


@functools.cache
def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        boot, namespace = "?", _FIRST_PID_NAMESPACE
    inside = "" if namespace == _FIRST_PID_NAMESPACE else f":{namespace}"
    return f"{socket.gethostname()}{inside}/{boot}"


# A fork may be in a PID namespace of its own.
os.register_at_fork(after_in_child=_host.cache_clear)


def _sees_processes() -> bool:
    """Tell whether /proc shows this process's namespace; an enclosing one's has other ids."""
    try:
        return Path("/proc/self").readlink() == Path(str(os.getpid()))
    except OSError:
        return True  # no /proc: signals are asked instead


def _start_time(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot; None if there is no such process."""
    try:
        fields = _status(pid)
    except OSError:
        return _start_time_without_proc(pid)
    # A zombie holds nothing any more.
    return None if fields[0] == "Z" else fields[19]


def _status(pid: int) -> list[str]:
    """Return what /proc says of a process, from its state on; OSError if it says nothing."""
    name = "self" if pid == os.getpid() else pid
    status = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
    # The command name, in parentheses, may itself hold spaces and parentheses.
    return status.rpartition(")")[2].split()


def _start_time_without_proc(pid: int) -> str | None:
    # Also where there is a /proc: mounted with hidepid, it hides the processes of other users.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return _UNKNOWN


def user_name() -> str:
    """Return who is acting, for the audit trail: ``user@host``."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"
