"""A process between the caller and the recipe, so that none outlives the other.

The supervisor does nothing but wait. When its parent is gone, by whatever signal, it kills the
whole process group; when the recipe's process ends, it ends in the same way, signals included.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_ORPHAN_CHECK_S = 1.0


def supervise(parent: int, initialise: Callable[[], None] | None = None) -> None:
    """Fork; return in the child only, while this process watches over it and ends as it ends.

    Parameters
    ----------
    parent : int
        Id of the process that must stay alive. The process group must be led by this process.
    initialise : callable, optional
        Given if the next fork is the ``init`` of a process namespace: called in that process,
        which then forks once more, so that signals keep their usual meaning for the recipe.

    Notes
    -----
    On Linux the kernel tells of the parent's death at once. It does so as well when only the
    parent's *thread* ended, so the parent's id is looked at before anything is killed. Elsewhere
    it is looked at each second.
    """
    if os.getppid() != parent:
        _leave("the process that asked for this run is gone, or started it through a wrapper.")
    supervisor = os.getpid()
    wake, alarm = os.pipe()
    told, tell = os.pipe()
    os.set_blocking(alarm, False)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, _wake_up)
    _signal_on_parents_death(signal.SIGUSR1)
    child = os.fork()
    if child != 0:
        os.close(tell)
        os.chdir("/")  # no way back into a hidden folder leads through this process
        status = _watch(child, parent, wake)
        _end_as(int(os.read(told, 16) or status))
    _become_child((wake, alarm, told))
    if initialise is None:
        os.close(tell)
        if os.getppid() != supervisor:
            _leave("the supervisor is gone.")
        return
    _become_init(initialise, tell)


def _become_child(descriptors: tuple[int, ...]) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    _signal_on_parents_death(signal.SIGKILL)
    for descriptor in descriptors:
        os.close(descriptor)


def _become_init(initialise: Callable[[], None], tell: int) -> None:
    """Reap all processes of the namespace until the recipe's ends; return in the latter only."""
    try:
        initialise()
        child = os.fork()
    except BaseException:  # noqa: BLE001 - this process must not go on as if it were the worker
        traceback.print_exc()
        os._exit(1)
    if child == 0:
        os.close(tell)
        _signal_on_parents_death(signal.SIGKILL)
        return
    os.chdir("/")
    while True:
        ended, status = os.wait()
        if ended == child:
            os.write(tell, str(status).encode())
            os._exit(0)  # and the kernel kills whatever the recipe left behind


def _watch(child: int, parent: int, wake: int) -> int:
    """Return the wait status of `child`; kill the group if `parent` goes first."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended == child:
            return status
        if os.getppid() != parent:
            os.killpg(0, signal.SIGKILL)
        ready, _, _ = select.select([wake], [], [], _ORPHAN_CHECK_S)
        if ready:
            os.read(wake, 512)


def _end_as(status: int) -> NoReturn:
    """End this process in the way that a wait status tells of."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def _signal_on_parents_death(number: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)


def _wake_up(number: int, frame: FrameType | None) -> None:
    """Do nothing: that the signal was caught has written to the wake-up pipe."""


def _leave(reason: str) -> NoReturn:
    os.write(2, f"recallfs worker: {reason}\n".encode())
    os._exit(3)
