"""Who of those that wait may start: decided from what everybody said of themselves. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PATIENCE_NS = 3_000_000_000
"""A waiting piece of work that was not heard of for this long is passed over."""


@dataclass(frozen=True)
class Ticket:
    """What a piece of work says of itself.

    Parameters
    ----------
    user : int
        User id.
    kind : {"recompute", "fetch"}
    size_bytes : int
        What it may write to its disk.
    device : int
        Its disk, as `os.stat` numbers them.
    number : int
        When it was asked for, in nanoseconds of the computer's monotonic clock.
    seen : int
        When it was last heard of, on that clock.
    is_running : bool
        False while it waits.
    lacks_space : bool
        Of a waiting one: only its disk keeps it waiting.
    name : str
        Unlike any other's.
    """

    user: int
    kind: str
    size_bytes: int
    device: int
    number: int
    seen: int
    is_running: bool = False
    lacks_space: bool = False
    name: str = ""


@dataclass(frozen=True)
class Limits:
    """How much of a kind may run at once on a computer.

    Parameters
    ----------
    running : int
    running_per_user : int
    """

    running: int
    running_per_user: int


@dataclass(frozen=True)
class Verdict:
    """Whether a piece of work may start.

    Parameters
    ----------
    may_start : bool
    before : int
        How many of its kind come first.
    lacks_space : bool
        Whether only its disk keeps it waiting.
    is_hopeless : bool
        Whether the disk is too full for it even once all that runs there has ended.
    """

    may_start: bool
    before: int = 0
    lacks_space: bool = False
    is_hopeless: bool = False


@dataclass(frozen=True)
class Disk:
    """The disk that will be written to.

    Parameters
    ----------
    total_bytes, free_bytes : int
    floor_bytes : int
        How much is to stay free.
    """

    total_bytes: int
    free_bytes: int
    floor_bytes: int


def admit(
    own: Ticket,
    others: Sequence[Ticket],
    limits: Limits,
    disk: Disk,
    served: Mapping[int, int] = {},
) -> Verdict:
    """Decide whether a piece of work may start now.

    Parameters
    ----------
    own : Ticket
        Of the one who asks.
    others : sequence of Ticket
        Of all others on this computer that are alive.
    limits : Limits
        Of the kind of `own`.
    disk : Disk
        Its disk.
    served : Mapping of int to int
        When each user's work last started; of two with equally many running, the one that has
        waited for longer comes first.

    Notes
    -----
    What runs is taken to write all that it reserved from now on, so that space is never promised
    twice; what it has written already is then counted double until it ends.

    Examples
    --------
    >>> own = Ticket(user=1, kind="fetch", size_bytes=5, device=1, number=1, seen=1)
    >>> admit(own, [], Limits(1, 1), Disk(100, 10, 5)).may_start
    True
    """
    running = [ticket for ticket in others if ticket.is_running]
    waiting = [t for t in others if not t.is_running and own.seen - t.seen < PATIENCE_NS]
    reserved = sum(ticket.size_bytes for ticket in running if ticket.device == own.device)
    most_free = min(disk.free_bytes + reserved, disk.total_bytes)
    if most_free - own.size_bytes < disk.floor_bytes:
        return Verdict(False, lacks_space=True, is_hopeless=True)

    queue = in_order([own, *waiting], running, own.kind, limits, served)
    ahead = queue[: queue.index(own)] if own in queue else None
    earlier = [ticket for ticket in waiting if ticket.number < own.number]
    before = sum(t.kind == own.kind for t in earlier) if ahead is None else len(ahead)
    # One that lacks space would leave its slot unused: whoever comes next may have it.
    takers = [ticket for ticket in ahead or () if not ticket.lacks_space]
    busy = sum(ticket.kind == own.kind for ticket in running)
    has_slot = ahead is not None and busy + len(takers) < limits.running
    # But not its space, else small files would keep a large one waiting for ever. Space goes by
    # age alone: with an order for each kind, two could each wait for the other.
    promised = sum(ticket.size_bytes for ticket in earlier if ticket.device == own.device)
    has_space = disk.free_bytes - reserved - promised - own.size_bytes >= disk.floor_bytes
    return Verdict(has_slot and has_space, before, lacks_space=has_slot and not has_space)


def in_order(
    waiting: Sequence[Ticket],
    running: Sequence[Ticket],
    kind: str,
    limits: Limits,
    served: Mapping[int, int],
) -> list[Ticket]:
    """Return the waiting pieces of work of a kind in the order in which they may start.

    The user with the fewest running comes first, then the one whose last start is the longest ago,
    then who asked first. Whoever is at their user's limit is left out.
    """
    counts = Counter(ticket.user for ticket in running if ticket.kind == kind)
    queues: Mapping[int, list[Ticket]] = {ticket.user: [] for ticket in waiting}
    for ticket in sorted(waiting, key=lambda ticket: (ticket.number, ticket.name)):
        if ticket.kind == kind:
            queues[ticket.user].append(ticket)
    ordered: list[Ticket] = []
    while True:
        heads = [
            (counts[user], served.get(user, 0), queue[0].number, queue[0].name, user)
            for user, queue in queues.items()
            if queue and counts[user] < limits.running_per_user
        ]
        if not heads:
            return ordered
        user = min(heads)[-1]
        ticket = queues[user].pop(0)
        ordered.append(ticket)
        if not ticket.lacks_space:
            counts[user] += 1
