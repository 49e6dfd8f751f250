"""Leases: one process at a time brings a file back; the others wait and share the result.

A lease is a row of the catalog with a fencing number, which grows each time the lease changes
hands, and a beat, which its holder increases every second. No wall clock is compared: a waiter
takes over from a holder that is known to be dead (same host), or whose beat stood still for
`PATIENCE_S` by the waiter's own clock. A holder that was taken over learns it from its fencing
number and cannot commit.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from recallfs import log
from recallfs.catalog.database import Catalog, Lease
from recallfs.catalog.holder import Holder
from recallfs.errors import CatalogError, RecallError, SourceError

BEAT_S = 1.0
PATIENCE_S = 4.5
POLL_S = 0.02
"""How often a waiter looks whether the work is done."""

LOOK_S = 0.1
"""How often it asks the catalog who holds the lease."""


@dataclass(eq=False)
class Grant:
    """A lease that the caller holds.

    Parameters
    ----------
    lost : threading.Event
        Set when somebody else took the lease over; work should stop.
    """

    catalog: Catalog
    key: str
    fence: int
    lost: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Make sure, right before a commit, that the lease is still held.

        Raises
        ------
        CatalogError
            Kind ``lease-lost``.
        """
        if self.lost.is_set() or not self.catalog.beat_lease(self.key, self.fence):
            self.lost.set()
            raise CatalogError(
                "another process took this recall over while this one stood still; "
                "nothing was committed here.",
                kind="lease-lost",
                details={"key": self.key, "fence": self.fence},
            )


@contextmanager
def hold_lease(
    catalog: Catalog, key: str, is_ready: Callable[[], bool], *, waits: bool = True
) -> Iterator[Grant | None]:
    """Hold a lease, or wait until whoever holds it has done the work.

    Parameters
    ----------
    is_ready : callable
        Whether the work is done; cheap, asked about 50 times a second.
    waits : bool
        Whether to wait for somebody who holds it.

    Yields
    ------
    Grant or None
        None if the work is done: somebody else did it. Without waiting, also if somebody is at it.

    Raises
    ------
    RecallError
        The error with which the holder failed while this caller waited for it.
    """
    grant = _acquire(catalog, key, is_ready, waits=waits)
    if grant is None:
        yield None
        return
    failure: str | None = None
    try:
        _keep_beating(grant)
        yield grant
    except RecallError as error:
        failure = json.dumps(error.to_json())
        raise
    finally:
        with _lock:
            _held.discard(grant)
        if not grant.lost.is_set():
            catalog.free_lease(key, grant.fence, failure)


def _acquire(
    catalog: Catalog, key: str, is_ready: Callable[[], bool], *, waits: bool
) -> Grant | None:
    holder = f"{Holder.current()}|{uuid.uuid4().hex}"
    last: Lease | None = None
    last_change = time.monotonic()
    while not is_ready():
        current = catalog.lease(key)
        if (
            current is not None
            and last is not None
            and current.failure is not None
            and current.fence == last.fence
        ):
            raise RecallError.from_json(json.loads(current.failure))
        fence = None
        if current is None or current.holder is None:
            fence = catalog.take_lease(key, holder, instead_of=None)
        else:
            if current != last:
                last, last_change = current, time.monotonic()
            stood_still = time.monotonic() - last_change > PATIENCE_S
            if stood_still or Holder.parse(current.holder).is_known_dead():
                fence = catalog.take_lease(key, holder, instead_of=current)
                if fence is not None:
                    log.event("take-over", key=key, holder=current.holder, fence=fence)
        if fence is not None:
            if is_ready():
                catalog.free_lease(key, fence)
                return None
            return Grant(catalog, key, fence)
        if not waits:
            return None
        look_again = time.monotonic() + LOOK_S
        while time.monotonic() < look_again and not is_ready():
            time.sleep(POLL_S)
    return None


_lock = threading.Lock()
_held: set[Grant] = set()
_beating: set[Catalog] = set()


def _forget_parent() -> None:
    """After a fork, the parent's leases are the parent's."""
    global _lock  # noqa: PLW0603 - the parent's lock may have been held at the fork
    _lock = threading.Lock()
    _beating.clear()
    _held.clear()


os.register_at_fork(after_in_child=_forget_parent)


def _keep_beating(grant: Grant) -> None:
    """Let the thread that beats for a catalog's leases, however many there are, do so for this."""
    with _lock:
        _held.add(grant)
        if grant.catalog in _beating:
            return
        _beating.add(grant.catalog)
    threading.Thread(target=_beat, args=(grant.catalog,), daemon=True, name="recall-leases").start()


def _beat(catalog: Catalog) -> None:
    """Beat for all leases of a catalog that this process holds, until there are none."""
    while True:
        time.sleep(BEAT_S)
        with _lock:
            grants = {grant.key: grant for grant in _held if grant.catalog is catalog}
            if not grants:
                _beating.discard(catalog)
                return
        # A failure now is none yet: patience is longer than a beat, and the next may get through.
        # At the latest the commit notices.
        with contextlib.suppress(CatalogError, SourceError):
            for key in catalog.beat_leases({key: g.fence for key, g in grants.items()}):
                grants[key].lost.set()
