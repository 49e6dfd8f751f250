"""The policy of release: pure, so each rule is tried alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from recallfs.config import ReleaseSettings
from recallfs.release.policy import Candidate, Wanted, decide
from recallfs.values import Level, Proof, State

PROOF = Proof(
    id="p",
    entry_id="e",
    derivation_id="d",
    environment_id="v",
    level=Level.EXACT,
    method="graft",
    sha256="0" * 64,
    made_by="ann@lab",
    made_at="2026-01-01T00:00:00+00:00",
    valid_until="2027-01-01T00:00:00+00:00",
    seconds=12.0,
)
FIT = Candidate(
    url="recall://lab/a.nwb",
    size_bytes=1_000_000,
    state=State.RESIDENT,
    is_pinned=False,
    idle=timedelta(days=30),
    unused=timedelta(days=30),
    proofs=(PROOF,),
    verified_copies=(),
    kept_bytes=10_000,
    links=1,
    resting=(),
    rests_on=(),
    lost_inputs={},
)
SETTINGS = ReleaseSettings()


def test_proved_resident_file_is_released() -> None:
    """A file with all in order is released; what is kept is not counted as freed."""
    decision = decide(FIT, SETTINGS, Wanted())
    assert (decision.verdict, decision.evidence) == ("release", "proof:p")
    assert decision.frees_bytes == 990_000
    assert decision.expected_s == 12.0


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"state": State.DIRTY}, "dirty"),
        ({"state": State.MISSING}, "conflict"),
        ({"state": State.CONFLICT}, "conflict"),
        ({"is_pinned": True}, "pinned"),
        ({"links": 2}, "hard-linked"),
        ({"proofs": ()}, "unproved"),
        ({"proofs": (replace(PROOF, level=Level.TOLERANCE),), "lowest": Level.CONTENT}, "unproved"),
        ({"proofs": (), "verified_copies": ("one",)}, "unproved"),
        ({"kept_bytes": 60_000}, "skeleton-too-large"),
        ({"resting": ("recall://lab/b",)}, "relied-on"),
        ({"rests_on": ("recall://lab/raw",)}, "relied-on"),
        (
            {"rests_on": ("recall://lab/raw",), "lost_inputs": {"recall://lab/raw": "gone"}},
            "relied-on",
        ),
    ],
)
def test_each_danger_alone_is_a_refusal(change: dict[str, object], kind: str) -> None:
    """One thing out of order is enough to refuse, and it is named."""
    decision = decide(FIT._replace(**change), SETTINGS, Wanted())  # type: ignore[arg-type] # fields vary
    assert (decision.verdict, decision.kind) == ("refuse", kind)
    assert decision.reason


def test_lost_input_is_refused_even_in_a_chain() -> None:
    """Asking for a chain does not allow resting on what nothing can bring back."""
    lost = FIT._replace(rests_on=("recall://lab/raw",), lost_inputs={"recall://lab/raw": "gone"})
    assert decide(lost, SETTINGS, Wanted(allow_chain=True)).verdict == "refuse"
    chained = FIT._replace(rests_on=("recall://lab/raw",))
    assert decide(chained, SETTINGS, Wanted(allow_chain=True)).verdict == "release"


def test_enough_copies_replace_a_proof() -> None:
    """Two verified copies are enough by default, and the inputs do not matter then."""
    copied = FIT._replace(proofs=(), verified_copies=("one", "two"), rests_on=("recall://lab/raw",))
    decision = decide(copied, SETTINGS, Wanted())
    assert (decision.verdict, decision.evidence) == ("release", "copies")


def test_filters_come_before_refusals() -> None:
    """What the caller did not ask about is skipped, whatever its condition."""
    young = FIT._replace(idle=timedelta(hours=1), proofs=())
    assert decide(young, SETTINGS, Wanted(older_than=timedelta(days=1))).verdict == "skip"
    assert decide(FIT, SETTINGS, Wanted(min_size_bytes=2_000_000)).verdict == "skip"
    released = FIT._replace(state=State.RELEASED)
    assert decide(released, SETTINGS, Wanted()).verdict == "skip"


def test_skeleton_limit_can_be_raised() -> None:
    """A large skeleton is accepted where it is asked for."""
    large = FIT._replace(kept_bytes=600_000)
    assert decide(large, SETTINGS, Wanted(max_skeleton=0.7)).verdict == "release"
