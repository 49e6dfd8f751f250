"""Leases: one process at a time brings a file back; the others wait and share the result.

A lease is a row of the catalog with a fencing number, which grows each time the lease changes
hands, and a beat, which its holder increases every second. No wall clock is compared: a waiter
takes over from a holder that is known to be dead (same host), or whose beat stood still for
`PATIENCE_S` by the waiter's own clock. A holder that was taken over learns it from its fencing
number and cannot commit.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from recallfs import log
from recallfs.catalog.database import Catalog, Lease
from recallfs.catalog.holder import Holder
from recallfs.errors import CatalogError, LockedError, RecallError

BEAT_S = 1.0
PATIENCE_S = 4.5
POLL_S = 0.02


@dataclass
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
def hold_lease(catalog: Catalog, key: str, is_ready: Callable[[], bool]) -> Iterator[Grant | None]:
    """Hold a lease, or wait until whoever holds it has done the work.

    Parameters
    ----------
    is_ready : callable
        Whether the work is done; cheap, asked about 50 times a second.

    Yields
    ------
    Grant or None
        None if the work is done: somebody else did it.

    Raises
    ------
    RecallError
        The error with which the holder failed while this caller waited for it.
    """
    grant = _acquire(catalog, key, is_ready)
    if grant is None:
        yield None
        return
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(grant, stop), daemon=True, name="recall-lease")
    beating.start()
    failure: str | None = None
    try:
        yield grant
    except RecallError as error:
        failure = json.dumps(error.to_json())
        raise
    finally:
        stop.set()
        beating.join()
        if not grant.lost.is_set():
            catalog.free_lease(key, grant.fence, failure)


def _acquire(catalog: Catalog, key: str, is_ready: Callable[[], bool]) -> Grant | None:
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
        time.sleep(POLL_S)
    return None


def _beat(grant: Grant, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        try:
            if not grant.catalog.beat_lease(grant.key, grant.fence):
                grant.lost.set()
                return
        except LockedError:
            continue  # the next beat may get through; patience is longer than a beat
