"""What opening a path would do, decided without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recallfs.sources.base import Offer
from recallfs.values import State


@dataclass(frozen=True)
class Facts:
    """What a plan is made from.

    Parameters
    ----------
    url : str
    state : State
        What is at the path now.
    size_bytes : int
    recall_missing : bool
        Whether the store brings back files that vanished without a release.
    offers : sequence of (kind, Offer)
        What each source would do.
    order : sequence of str
        Kinds or names of sources, first asked first; one that is not named is not asked.
    """

    url: str
    state: State
    size_bytes: int
    recall_missing: bool
    offers: Sequence[tuple[str, Offer]]
    order: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """What would happen.

    Parameters
    ----------
    action : {"open", "recall", "refuse"}
    reason : str
        Why, in one sentence.
    steps : tuple of Offer
        Sources in the order in which they would be asked; the first that has the bytes ends it.
    cache : str, optional
        Where the bytes would go, or are, if the caller may not write to the store.
    """

    url: str
    state: State
    size_bytes: int
    action: str
    reason: str
    steps: tuple[Offer, ...] = ()
    cache: str | None = None

    @property
    def gone(self) -> str:
        """How the file went, for a sentence."""
        return "was released" if self.state is State.RELEASED else "vanished without a release"

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON-able mapping."""
        return {**asdict(self), "state": self.state.value, "steps": [asdict(s) for s in self.steps]}


def make_plan(facts: Facts) -> Plan:
    """Decide what opening a path does. Pure: the same facts give the same plan."""

    def planned(action: str, reason: str, steps: tuple[Offer, ...] = ()) -> Plan:
        return Plan(facts.url, facts.state, facts.size_bytes, action, reason, steps)

    if facts.state is State.RESIDENT:
        return planned("open", "The bytes are here and are the recorded ones.")
    if facts.state is State.DIRTY:
        return planned(
            "refuse",
            "The file was changed and matches nothing that was recorded; `recall add` accepts it "
            "as it is now.",
        )
    if facts.state is State.CONFLICT:
        return planned(
            "refuse", "Something else is at the path of a released file; move it away first."
        )
    if facts.state is State.MISSING and not facts.recall_missing:
        return planned(
            "refuse",
            "The file vanished without a release, and the store is told not to bring such files "
            "back (recall_missing = false).",
        )
    chosen = (
        offer
        for wanted in ("trash", *facts.order)
        for kind, offer in facts.offers
        if wanted in (kind, offer.source)
    )
    steps = tuple(dict.fromkeys(chosen))  # one named by kind and by name is asked once
    gone = planned("", "").gone
    if not steps:
        return planned(
            "refuse",
            f"The file {gone}, and there is neither a copy in the trash, nor a mirror, nor a "
            "recipe to bring it back.",
        )
    return planned("recall", f"The file {gone}.", steps)
