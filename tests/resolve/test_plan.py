"""Plans: what opening a path would do, decided without doing it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recallfs.resolve.plan import Facts, make_plan
from recallfs.sources.base import Offer
from recallfs.values import State

OFFERS = (
    ("trash", Offer("trash", "put back", 0.0)),
    ("mirror", Offer("mirror:a", "look")),
    ("mirror", Offer("mirror:b", "look")),
    ("recompute", Offer("recompute", "run", 5.0)),
)
ORDER = ("cache", "kachery", "dandi", "mirror", "recompute")


def facts(state: State, **changes: Any) -> Facts:
    """Facts of a file with every offer, changed as asked."""
    usual: dict[str, Any] = {"recall_missing": True, "offers": OFFERS, "order": ORDER}
    return Facts(url="recall://lab/x", state=state, size_bytes=7, **{**usual, **changes})


@pytest.mark.parametrize("state", [State.RESIDENT, State.DIRTY, State.CONFLICT])
def test_what_is_there_is_never_recalled(state: State) -> None:
    """A file that is there is opened or refused; no source is asked."""
    plan = make_plan(facts(state))
    assert plan.action == ("open" if state is State.RESIDENT else "refuse")
    assert plan.steps == ()


@pytest.mark.parametrize("state", [State.RELEASED, State.MISSING])
def test_sources_are_asked_in_order(state: State) -> None:
    """The trash is asked first, then the kinds as the store orders them, mirrors as configured."""
    plan = make_plan(facts(state))
    assert plan.action == "recall"
    assert [s.source for s in plan.steps] == ["trash", "mirror:a", "mirror:b", "recompute"]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (("recompute", "mirror"), ["trash", "recompute", "mirror:a", "mirror:b"]),
        (("mirror:b", "mirror:a"), ["trash", "mirror:b", "mirror:a"]),
        ((), ["trash"]),
    ],
)
def test_store_may_order_and_leave_out(order: tuple[str, ...], expected: list[str]) -> None:
    """Kinds and names are asked in the given order; what is not named is not asked."""
    plan = make_plan(facts(State.RELEASED, order=order))
    assert [step.source for step in plan.steps] == expected


def test_no_source_is_asked_twice() -> None:
    """A mirror that is named by itself and by its kind is one step."""
    plan = make_plan(facts(State.RELEASED, order=("mirror:b", "mirror")))
    assert [step.source for step in plan.steps] == ["trash", "mirror:b", "mirror:a"]


def test_missing_file_stays_missing_where_the_store_says_so() -> None:
    """``recall_missing = false`` concerns files that vanished, not released ones."""
    plan = make_plan(facts(State.MISSING, recall_missing=False))
    assert plan.action == "refuse"
    assert "recall_missing" in plan.reason
    assert make_plan(facts(State.RELEASED, recall_missing=False)).action == "recall"


def test_no_way_back_is_a_refusal() -> None:
    """Without any offer the plan says what was looked for."""
    plan = make_plan(facts(State.RELEASED, offers=()))
    assert plan.action == "refuse"
    assert "nor a mirror" in plan.reason


def test_plans_are_pure_and_printable() -> None:
    """The same facts give the same plan, and a plan is JSON."""
    one, two = make_plan(facts(State.RELEASED)), make_plan(facts(State.RELEASED))
    assert one == two
    document = json.loads(json.dumps(one.to_json()))
    assert document["state"] == "released"
    assert document["steps"][0] == {
        "source": "trash",
        "what": "put back",
        "expected_s": 0.0,
        "is_sure": True,
    }
