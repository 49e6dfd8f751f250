"""Who may start: limits, turns, space; and that nobody waits for ever."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from recallfs.resolve.admission import PATIENCE_NS, Disk, Limits, Ticket, admit, in_order

TWO = Limits(2, 2)


def ticket(number: int, *, user: int = 1, kind: str = "recompute", **values: object) -> Ticket:
    """Make a ticket that was seen just now."""
    name = f"t{number}"
    base = Ticket(user, kind, 0, 1, number, seen=10 * PATIENCE_NS, name=name)
    return replace(base, **values)  # type: ignore[arg-type] # fields by name


def verdict(own: Ticket, *others: Ticket, limits: Limits = TWO, free: int = 0, floor: int = 0):  # type: ignore[no-untyped-def] # as `admit`
    return admit(own, others, limits, Disk(1000, free, floor))


def test_slots_are_taken_in_order_of_asking() -> None:
    """With one slot free, the first that asked gets it, and the next knows its place."""
    running = ticket(1, is_running=True)
    first, second = ticket(2), ticket(3)
    assert verdict(first, running, second).may_start
    assert not verdict(second, running, first).may_start
    assert verdict(second, running, first).before == 1


def test_user_with_fewest_running_goes_first() -> None:
    """Whoever asks for one file does not wait for all that another user asked for."""
    waiting = [ticket(n, user=1) for n in range(2, 20)]
    other = ticket(99, user=2)
    running = ticket(1, user=1, is_running=True)
    assert in_order([*waiting, other], [running], "recompute", TWO, {})[0] is other
    assert verdict(other, running, *waiting).may_start


def test_users_take_turns_where_one_runs_at_a_time() -> None:
    """With nothing running, the user whose last start is the longest ago comes first."""
    early, late = ticket(1, user=1), ticket(2, user=2)
    disk = Disk(1, 1, 0)
    assert admit(late, [early], Limits(1, 1), disk, {1: 50, 2: 10}).may_start
    assert not admit(early, [late], Limits(1, 1), disk, {1: 50, 2: 10}).may_start


def test_limit_per_user_leaves_slots_to_others() -> None:
    """At their own limit a user waits, even if the computer has slots."""
    limits = Limits(4, 1)
    running = ticket(1, user=1, is_running=True)
    assert not verdict(ticket(2, user=1), running, limits=limits).may_start
    assert verdict(ticket(3, user=2), ticket(2, user=1), running, limits=limits).may_start


def test_kinds_do_not_share_slots() -> None:
    """Downloads do not wait for recipes."""
    running = [ticket(n, is_running=True) for n in (1, 2)]
    assert verdict(ticket(3, kind="fetch"), *running).may_start
    assert not verdict(ticket(3), *running).may_start


def test_one_that_was_not_heard_of_is_passed_over() -> None:
    """A waiting process that stands still does not keep the others waiting."""
    still = ticket(1, seen=0)
    assert verdict(ticket(2), still, limits=Limits(1, 1)).may_start


def test_hopeless_is_told_at_once_and_space_that_may_come_is_waited_for() -> None:
    """Only where all that runs there could make the space is it worth to wait."""
    own = ticket(2, size_bytes=50)
    assert verdict(own, free=40, floor=0).is_hopeless
    writer = ticket(1, size_bytes=30, is_running=True)
    waits = verdict(own, writer, free=40)
    assert (waits.may_start, waits.lacks_space, waits.is_hopeless) == (False, True, False)
    elsewhere = replace(writer, device=2)
    assert verdict(own, elsewhere, free=40).is_hopeless
    assert verdict(own, elsewhere, free=50).may_start
    assert verdict(own, elsewhere, free=50, floor=1).is_hopeless
    assert admit(own, [writer], TWO, Disk(60, 60, 20)).is_hopeless


def test_small_files_do_not_starve_a_large_one() -> None:
    """Space is promised by age: who came later does not take what an earlier one waits for."""
    writer = ticket(1, size_bytes=60, is_running=True)
    large = ticket(2, size_bytes=80, lacks_space=True)
    small = ticket(3, size_bytes=10)
    assert not verdict(small, writer, large, free=100, limits=Limits(9, 9)).may_start
    assert verdict(small, writer, free=100, limits=Limits(9, 9)).may_start


def test_waiting_for_one_disk_leaves_the_slot_to_another() -> None:
    """Who only lacks space does not keep a slot from work on another disk."""
    writer = ticket(1, size_bytes=60, is_running=True)
    large = ticket(2, size_bytes=80, lacks_space=True)
    other_disk = ticket(3, device=2)
    assert verdict(other_disk, writer, large, free=1).may_start


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[Ticket], Limits, int, int]:
    """Draw a crowd that asks for slots and space, and how much there is of either."""
    disk = draw(st.integers(10, 100))
    floor = draw(st.integers(0, 5))
    crowd = [
        ticket(
            number,
            user=draw(st.integers(1, 3)),
            kind=draw(st.sampled_from(["recompute", "fetch"])),
            size_bytes=draw(st.integers(0, disk - floor)),
            device=draw(st.integers(1, 2)),
        )
        for number in range(draw(st.integers(1, 12)))
    ]
    most = draw(st.integers(1, 3))
    return crowd, Limits(most, draw(st.integers(1, most))), disk, floor


@given(crowds(), st.randoms(use_true_random=False))
def test_no_crowd_exceeds_a_limit_or_gets_stuck(
    drawn: tuple[list[Ticket], Limits, int, int], random: object
) -> None:
    """Whatever is asked, in whatever order they look: limits hold, and all get their turn."""
    crowd, limits, disk, floor = drawn
    tickets = {item.name: item for item in crowd}
    started: list[str] = []
    served: dict[int, int] = {}
    for _ in range(20 * len(crowd)):
        if not tickets:
            break
        progressed = False
        names = sorted(tickets)
        random.shuffle(names)  # type: ignore[attr-defined] # Hypothesis' own
        for name in names:
            own = tickets[name]
            if own.is_running:
                continue
            others = [item for item in tickets.values() if item.name != name]
            said = admit(own, others, limits, Disk(disk, disk, floor), served)
            assert not said.is_hopeless
            tickets[name] = replace(own, is_running=said.may_start, lacks_space=said.lacks_space)
            progressed = progressed or said.may_start or said.lacks_space != own.lacks_space
            if said.may_start:
                started.append(name)
                served[own.user] = len(started)
            running = [item for item in tickets.values() if item.is_running]
            for kind in ("recompute", "fetch"):
                users = [item.user for item in running if item.kind == kind]
                assert len(users) <= limits.running
                assert all(users.count(u) <= limits.running_per_user for u in users)
            for device in (1, 2):
                written = sum(item.size_bytes for item in running if item.device == device)
                assert disk - written >= floor
        running_names = [name for name, item in tickets.items() if item.is_running]
        assert progressed or running_names, "nobody runs, and nobody may start"
        if running_names and not (progressed and len(running_names) < limits.running):
            del tickets[running_names[0]]  # it ends, and frees what it wrote
    assert sorted(started) == sorted(item.name for item in crowd)
