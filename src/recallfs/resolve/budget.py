"""Budgets: how much is brought back at once on one computer, by all its users' processes together.

Each piece of work, waiting or running, has a *ticket*: a small file in one folder that all users
share, locked (flock) by its process for as long as it lives. The kernel drops the lock of a process
that dies, however it dies, and with it what the ticket stood for; nothing has to be cleaned up, and
no clock is compared. Who may start is decided under one more lock, by each for itself and all from
the same tickets (`recallfs.resolve.admission`).

Only the first in line of each process has a ticket; the others wait in the process for their turn,
so that a thousand threads do not look into the folder. Whoever waits looks whether the folder
changed, which costs one `stat`.

A holder of a slot waits for nobody: not for a lease, a second slot or another recall. So a slot
always comes free, however deep the chain of files that are made from one another.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from recallfs.config import Config
from recallfs.errors import SourceError
from recallfs.resolve.admission import Limits
from recallfs.resolve.tickets import Asked, HeldTicket, usual_folder
from recallfs.sources.base import Need

POLL_S = 0.02
"""How often the first in line looks whether anything changed; each place further back, as much
longer."""

LONGEST_POLL_S = 0.25
LOCAL_POLL_S = 1.0
"""How often one that is not the first of its process looks whether it was cancelled."""

ANNOUNCED_AFTER_S = 1.0


@contextmanager
def hold_slot(
    config: Config,
    need: Need | None,
    place: Path,
    *,
    announce: Callable[[str], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Iterator[None]:
    """Hold a slot, and the space for what will be written, while the block runs.

    Parameters
    ----------
    config : Config
        Its table ``[recall]`` sets the limits.
    need : Need or None
        What is needed; None is had at once.
    place : Path
        Folder on the disk that will be written to.
    announce : callable, optional
        Told once, in a sentence, if the wait gets longer than a second.
    cancelled : threading.Event, optional
        Ends the wait.

    Raises
    ------
    SourceError
        Kind ``no-space`` if the disk would be left with less than is to stay free, even once all
        that others write there now were gone; or if the wait was cancelled.
    InvalidInputError
        Kind ``invalid-config`` if the configured folder cannot be used.

    Notes
    -----
    Not to be nested, and nothing in the block may wait for a lease or a recall.
    """
    if need is None:
        yield
        return
    waiter = _Waiter(
        Asked(
            need=need,
            place=place,
            device=place.stat().st_dev,
            folder=config.recall.budget_folder or usual_folder(),
            keep_free=config.recall.keep_free,
            limits=_limits(config, need.kind),
            number=time.monotonic_ns(),
        )
    )
    try:
        waiter.wait(announce, cancelled)
        yield
    finally:
        waiter.leave()


def _limits(config: Config, kind: str) -> Limits:
    settings = config.recall
    if kind == "fetch":
        return Limits(settings.fetches, settings.fetches_per_user or settings.fetches)
    cpus = os.cpu_count() or 1
    recomputes = settings.recomputes or max(1, cpus // (config.recipes.threads or cpus))
    return Limits(recomputes, settings.recomputes_per_user or recomputes)


@dataclass(eq=False)
class _Waiter:
    """One piece of work of this process, from asking to its end."""

    asked: Asked
    nudge: threading.Event = field(default_factory=threading.Event)
    held: HeldTicket | None = None

    @property
    def line(self) -> tuple[Path, str, int]:
        """Where it stands: by disk too, so that space on one is not waited for on another."""
        return self.asked.folder, self.asked.need.kind, self.asked.device

    def wait(
        self, announce: Callable[[str], None] | None, cancelled: threading.Event | None
    ) -> None:
        start = time.monotonic()
        with _lock:
            _lines.setdefault(self.line, deque()).append(self)
        announced = announce is None
        try:
            while True:
                before, delay = self._step()
                if delay is None:
                    return
                if cancelled is not None and cancelled.is_set():
                    raise SourceError("the wait for a slot was cancelled.")
                if not announced and announce and time.monotonic() - start > ANNOUNCED_AFTER_S:
                    announced = True
                    announce(_sentence(before, self.held))
                self.nudge.wait(delay)
                self.nudge.clear()
        finally:
            self._step_aside()

    def _step(self) -> tuple[int, float | None]:
        """Try to start; return how many come first and for how long to wait, None if started."""
        with _lock:
            line = _lines[self.line]
            behind = 0 if line[0] is self else line.index(self)
            first = line[0].held
        if behind:
            return behind + (first.verdict.before if first else 0), LOCAL_POLL_S
        if self.held is None:
            self.held = HeldTicket.enter(self.asked)
        verdict = self.held.look()
        if verdict.may_start:
            return 0, None
        return verdict.before, min(LONGEST_POLL_S, POLL_S * (1 + verdict.before))

    def _step_aside(self) -> None:
        """Leave the line, and let the next one of this process try."""
        with _lock:
            line = _lines[self.line]
            line.remove(self)
            if line:
                line[0].nudge.set()
            else:
                del _lines[self.line]

    def leave(self) -> None:
        """Give the slot or the place in line back."""
        if self.held is not None:
            self.held.close()
        with _lock:
            for line in _lines.values():
                line[0].nudge.set()


def _sentence(before: int, held: HeldTicket | None) -> str:
    if held is not None and held.verdict.lacks_space:
        return "waiting for space on the disk until other recalls have ended"
    return f"waiting for a slot: {before} before you" if before else "waiting for a slot: next"


_lock = threading.Lock()
_lines: dict[tuple[Path, str, int], deque[_Waiter]] = {}


def _forget_parent() -> None:
    """After a fork, nobody waits here."""
    global _lock  # noqa: PLW0603 - the parent's lock may have been held at the fork
    _lock = threading.Lock()
    _lines.clear()


os.register_at_fork(after_in_child=_forget_parent)
