"""Leases: one holder, fencing, take-over without clocks, shared failures."""

from __future__ import annotations

import threading
import time

import pytest

from conftest import Lab
from recallfs.catalog.holder import Holder
from recallfs.errors import CatalogError, RecipeFailedError
from recallfs.resolve import lease as leases
from recallfs.resolve.lease import hold_lease


def test_holder_is_alone_and_waiter_sees_the_work_done(lab: Lab) -> None:
    """While one holds the lease another waits, and does nothing once the work is done."""
    catalog = lab.store.catalog
    done = threading.Event()
    order: list[str] = []

    def wait() -> None:
        with hold_lease(catalog, "k", done.is_set) as grant:
            order.append("waiter got it" if grant else "waiter saw it done")

    with hold_lease(catalog, "k", done.is_set) as grant:
        assert grant is not None
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.2)
        assert order == []
        done.set()
    waiter.join(5)
    assert order == ["waiter saw it done"]


def test_fence_grows_with_each_holder(lab: Lab) -> None:
    """Every holder gets a higher number, so that an old one can be told from a new one."""
    fences = []
    for _ in range(3):
        with hold_lease(lab.store.catalog, "k", lambda: False) as grant:
            assert grant is not None
            fences.append(grant.fence)
    assert fences == sorted(set(fences))


def test_dead_holder_is_replaced_at_once_and_fenced_off(lab: Lab) -> None:
    """A lease of a process that ended is taken over, and its old number cannot be used."""
    catalog = lab.store.catalog
    alive = Holder.current()
    dead = Holder(alive.host, alive.pid, "1")
    old = catalog.take_lease("k", f"{dead}|x", instead_of=None)
    assert old is not None
    start = time.monotonic()
    with hold_lease(catalog, "k", lambda: False) as grant:
        assert grant is not None
        assert grant.fence > old
        assert not catalog.beat_lease("k", old)
        assert not catalog.free_lease("k", old)
    assert time.monotonic() - start < 10


def test_silent_holder_of_another_host_is_taken_over(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another host only the beat tells; when it stands still long enough, we take over."""
    monkeypatch.setattr(leases, "PATIENCE_S", 0.5)
    catalog = lab.store.catalog
    catalog.take_lease("k", "elsewhere/boot|12|34|x", instead_of=None)
    start = time.monotonic()
    with hold_lease(catalog, "k", lambda: False) as grant:
        assert grant is not None
    assert time.monotonic() - start >= 0.5


def test_beating_holder_of_another_host_is_waited_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder whose beat goes on is not taken over, however long it takes."""
    monkeypatch.setattr(leases, "PATIENCE_S", 0.4)
    catalog = lab.store.catalog
    fence = catalog.take_lease("k", "elsewhere/boot|12|34|x", instead_of=None)
    assert fence is not None
    taken = threading.Event()

    def wait() -> None:
        with hold_lease(catalog, "k", lambda: False):
            taken.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    for _ in range(10):
        assert catalog.beat_lease("k", fence)
        time.sleep(0.1)
    assert not taken.is_set()
    catalog.free_lease("k", fence)
    waiter.join(5)
    assert taken.is_set()


def test_lost_lease_cannot_commit(lab: Lab) -> None:
    """A grant that was taken over says so when it is checked before a commit."""
    catalog = lab.store.catalog
    with hold_lease(catalog, "k", lambda: False) as grant:
        assert grant is not None
        current = catalog.lease("k")
        assert current is not None
        assert catalog.take_lease("k", "another|1|1|y", instead_of=current)
        with pytest.raises(CatalogError) as caught:
            grant.check()
        assert caught.value.kind == "lease-lost"


def test_waiter_gets_the_holder_s_failure_and_a_newcomer_does_not(lab: Lab) -> None:
    """Who waited shares the failure; who comes later may try again."""
    catalog = lab.store.catalog
    caught: list[Exception] = []

    def wait() -> None:
        try:
            with hold_lease(catalog, "k", lambda: False):
                pass
        except RecipeFailedError as error:
            caught.append(error)

    def fail() -> None:
        with hold_lease(catalog, "k", lambda: False):
            waiter.start()
            time.sleep(0.2)
            raise RecipeFailedError("the probe was unplugged")

    waiter = threading.Thread(target=wait)
    with pytest.raises(RecipeFailedError):
        fail()
    waiter.join(5)
    assert [str(error) for error in caught] == ["the probe was unplugged"]
    with hold_lease(catalog, "k", lambda: False) as grant:
        assert grant is not None
