"""Whether a file may be released: decided purely, from facts, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from recallfs.config import ReleaseSettings
from recallfs.values import Level, Proof, State, format_size


@dataclass(frozen=True)
class Wanted:
    """What the caller asked for beyond the configuration.

    Parameters
    ----------
    older_than : timedelta, optional
        Leave files alone that were written or recalled more recently.
    min_size_bytes : int
        Leave smaller files alone.
    hold : timedelta, optional
        How long to keep the trash; by default as configured.
    max_skeleton : float, optional
        Overrides the configuration.
    allow_chain : bool
        Release files although others that are released rest on them, or they on others.
    idle : timedelta, optional
        Leave files alone that were used, in any way that shows, more recently.
    """

    older_than: timedelta | None = None
    min_size_bytes: int = 0
    hold: timedelta | None = None
    max_skeleton: float | None = None
    allow_chain: bool = False
    idle: timedelta | None = None


@dataclass(frozen=True)
class Candidate:
    """What is known of a file that may be released.

    Parameters
    ----------
    idle : timedelta
        Since it was last written or recalled.
    unused : timedelta
        Since it was last written, recalled, or read as far as the mount says so.
    proofs : sequence of Proof
        Valid now, newest first.
    verified_copies : sequence of str
        Names of sources whose copies count, verified just now.
    kept_bytes : int
        Stored size of its skeleton.
    links : int
        Names that the file has.
    resting : sequence of str
        Released files that are made from it.
    rests_on : sequence of str
        Its inputs that are not resident.
    lost_inputs : sequence of str
        Its inputs that nothing can bring back.
    residual_bytes : int
        Stored size of its residual.
    lowest : Level, optional
        Lowest level of a proof that counts; by default any that was made on purpose does.
    """

    url: str
    size_bytes: int
    state: State
    is_pinned: bool
    idle: timedelta
    unused: timedelta
    proofs: Sequence[Proof]
    verified_copies: Sequence[str]
    kept_bytes: int
    links: int
    resting: Sequence[str]
    rests_on: Sequence[str]
    lost_inputs: Sequence[str]
    residual_bytes: int = 0
    lowest: Level | None = None


@dataclass(frozen=True)
class Decision:
    """Whether a file is released, and why.

    Parameters
    ----------
    verdict : {"release", "skip", "refuse"}
        *Skip* is what the caller's own filters leave alone; *refuse* is what would not be safe.
    kind : str
        The error kind of a refusal, else empty.
    frees_bytes : int
        Size less what is kept.
    expected_s : float or None
        Seconds that a recall is expected to take.
    """

    url: str
    verdict: str
    kind: str
    reason: str
    evidence: str = ""
    frees_bytes: int = 0
    expected_s: float | None = None


def decide(candidate: Candidate, settings: ReleaseSettings, wanted: Wanted) -> Decision:
    """Decide about one file. Pure: the same facts give the same decision."""
    skip = _filtered(candidate, wanted)
    if skip is not None:
        return Decision(candidate.url, "skip", "", skip)
    refusal = _unsafe(candidate, settings, wanted)
    if refusal is not None:
        kind, reason = refusal
        return Decision(candidate.url, "refuse", kind, reason)
    frees = candidate.size_bytes - candidate.kept_bytes - candidate.residual_bytes
    counted = _counted(candidate)
    if counted:
        proof = counted[0]
        reason = f"proved {proof.level.value} on {proof.made_at[:10]} ({proof.method})"
        return Decision(
            candidate.url, "release", "", reason, f"proof:{proof.id}", frees, proof.seconds
        )
    reason = f"verified copies: {', '.join(candidate.verified_copies)}"
    return Decision(candidate.url, "release", "", reason, "copies", frees)


def _filtered(candidate: Candidate, wanted: Wanted) -> str | None:
    if candidate.state is State.RELEASED:
        return "is released already"
    if candidate.size_bytes < wanted.min_size_bytes:
        return f"is smaller than {format_size(wanted.min_size_bytes)}"
    if wanted.older_than is not None and candidate.idle < wanted.older_than:
        return f"was used {_days(candidate.idle)} ago"
    if wanted.idle is not None and candidate.unused < wanted.idle:
        return f"was used {_days(candidate.unused)} ago"
    return None


def _unsafe(
    candidate: Candidate, settings: ReleaseSettings, wanted: Wanted
) -> tuple[str, str] | None:
    if candidate.state is State.DIRTY:
        return "dirty", "was changed since it was recorded"
    if candidate.state is not State.RESIDENT:
        return "conflict", f"is {candidate.state.value}, not resident"
    if candidate.is_pinned:
        return "pinned", "is pinned"
    if candidate.links != 1:
        return (
            "hard-linked",
            f"has {candidate.links} names (hard links)",
        )
    if not _counted(candidate) and len(candidate.verified_copies) < settings.copies:
        return "unproved", (
            f"no valid proof, {len(candidate.verified_copies)} of {settings.copies} verified copies"
        )
    limit = settings.max_skeleton if wanted.max_skeleton is None else wanted.max_skeleton
    if candidate.kept_bytes > limit * candidate.size_bytes:
        return "skeleton-too-large", (
            f"{format_size(candidate.kept_bytes)} of {format_size(candidate.size_bytes)} would "
            f"have to be kept, above {limit:.0%}"
        )
    if candidate.lost_inputs:
        return "relied-on", f"rests on {candidate.lost_inputs[0]}, which nothing can bring back"
    if not wanted.allow_chain:
        if candidate.resting:
            return "relied-on", (f"the released {candidate.resting[0]} rests on it")
        if candidate.rests_on and _counted(candidate) and not _copied(candidate, settings):
            return "relied-on", (f"rests on {candidate.rests_on[0]}, which is not resident")
    return None


def _counted(candidate: Candidate) -> list[Proof]:
    """Return the proofs that count: of the closest level first, newest first within it."""
    counted = [
        proof
        for proof in candidate.proofs
        if candidate.lowest is None or proof.level.reaches(candidate.lowest)
    ]
    return sorted(counted, key=lambda proof: list(Level).index(proof.level))


def _copied(candidate: Candidate, settings: ReleaseSettings) -> bool:
    return len(candidate.verified_copies) >= settings.copies


def _days(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours"
