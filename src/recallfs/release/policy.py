"""Whether a file may be released: decided purely, from facts, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from recallfs.catalog.evidence import Counted
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
    lowest : Level, optional
        Lowest level of a proof that counts, beside what the store asks for.
    copies : int, optional
        How many verified copies replace a proof; by default as configured.
    policy : str
        Name of the policy that asks; empty if a person does.
    """

    older_than: timedelta | None = None
    min_size_bytes: int = 0
    hold: timedelta | None = None
    max_skeleton: float | None = None
    allow_chain: bool = False
    idle: timedelta | None = None
    lowest: Level | None = None
    copies: int | None = None
    policy: str = ""


class Candidate(NamedTuple):
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
    lost_inputs : mapping of str to str
        Its inputs that nothing can bring back, with the reasons.
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
    proofs: Sequence[Proof | Counted]
    verified_copies: Sequence[str]
    kept_bytes: int
    links: int
    resting: Sequence[str]
    rests_on: Sequence[str]
    lost_inputs: Mapping[str, str]
    residual_bytes: int = 0
    lowest: Level | None = None


class Decision(NamedTuple):
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
    unused_s : float
        Seconds since it was last used in any way that shows.
    """

    url: str
    verdict: str
    kind: str
    reason: str
    evidence: str = ""
    frees_bytes: int = 0
    expected_s: float | None = None
    unused_s: float = 0.0


def decide(candidate: Candidate, settings: ReleaseSettings, wanted: Wanted) -> Decision:
    """Decide about one file. Pure: the same facts give the same decision."""
    skip = _filtered(candidate, wanted)
    if skip is not None:
        return Decision(candidate.url, "skip", "", skip)
    refusal = _unsafe(candidate, settings, wanted)
    if refusal is not None:
        kind, reason = refusal
        return Decision(candidate.url, "refuse", kind, reason)
    unused_s = candidate.unused.total_seconds()
    frees = candidate.size_bytes - candidate.kept_bytes - candidate.residual_bytes
    counted = _counted(candidate)
    if counted:
        proof = counted[0]
        reason = proved(proof.level.value, proof.made_at[:10], proof.method)
        evidence, expected_s = f"proof:{proof.id}", proof.seconds
        return Decision(candidate.url, "release", "", reason, evidence, frees, expected_s, unused_s)
    reason = f"verified copies: {', '.join(candidate.verified_copies)}"
    return Decision(candidate.url, "release", "", reason, "copies", frees, None, unused_s)


def proved(level: str, day: str, method: str) -> str:
    """Say by what a file is proved."""
    return f"proved {level} on {day} ({method})"


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
    copies = settings.copies if wanted.copies is None else wanted.copies
    is_copied = len(candidate.verified_copies) >= copies
    counted = _counted(candidate)
    if not counted and not is_copied:
        return "unproved", (
            f"no valid proof, {len(candidate.verified_copies)} of {copies} verified copies"
        )
    limit = settings.max_skeleton if wanted.max_skeleton is None else wanted.max_skeleton
    if candidate.kept_bytes > limit * candidate.size_bytes:
        return "skeleton-too-large", (
            f"{format_size(candidate.kept_bytes)} of {format_size(candidate.size_bytes)} would "
            f"have to be kept, above {limit:.0%}"
        )
    if candidate.lost_inputs:
        url, why = next(iter(candidate.lost_inputs.items()))
        return "relied-on", f"rests on {url}, which nothing can bring back: {why}"
    if not wanted.allow_chain:
        if candidate.resting:
            return "relied-on", (f"the released {candidate.resting[0]} rests on it")
        if candidate.rests_on and counted and not is_copied:
            return "relied-on", (f"rests on {candidate.rests_on[0]}, which is not resident")
    return None


def _counted(candidate: Candidate) -> Sequence[Proof | Counted]:
    """Return the proofs that count: of the closest level first, newest first within it."""
    lowest = candidate.lowest
    if lowest is None and len(candidate.proofs) < 2:
        return candidate.proofs
    counted = [p for p in candidate.proofs if lowest is None or p.level.reaches(lowest)]
    return sorted(counted, key=lambda proof: list(Level).index(proof.level))


def until_free(decisions: Sequence[Decision], missing_bytes: int) -> list[Decision]:
    """Take of files that may be released only as many as free so much. Pure.

    Parameters
    ----------
    decisions : sequence of Decision
        Of one disk. Those that were not used for the longest time are taken first.
    missing_bytes : int
        Nothing is taken if this is not above 0.

    Returns
    -------
    list of Decision
        In the given order; what is not needed is skipped.
    """
    taken: set[str] = set()
    for decision in sorted(decisions, key=lambda each: (-each.unused_s, each.url)):
        if decision.verdict == "release" and missing_bytes > 0:
            missing_bytes -= decision.frees_bytes
            taken.add(decision.url)
    return [
        decision
        if decision.verdict != "release" or decision.url in taken
        else decision._replace(
            verdict="skip", reason="is not needed: enough is free without it", evidence=""
        )
        for decision in decisions
    ]


def without_conflicts(
    decisions: Mapping[str, Decision], inputs: Mapping[str, Sequence[str]]
) -> dict[str, Decision]:
    """Refuse of files that rest on one another those that free less. Pure.

    Parameters
    ----------
    decisions : mapping of str to Decision
        By entry.
    inputs : mapping of str to sequence of str
        Entries that each was made from.

    Returns
    -------
    dict of str to Decision
        Those that are other than before.
    """
    fit = {entry_id for entry_id, decision in decisions.items() if decision.verdict == "release"}
    pairs = {
        (entry_id, other)
        for entry_id, others in inputs.items()
        if not fit.isdisjoint(others)
        and entry_id in fit
        and decisions[entry_id].evidence.startswith("proof:")
        for other in fit.intersection(others)
    }
    beside: dict[str, set[str]] = {}
    for one, other in pairs:
        beside.setdefault(one, set()).add(other)
        beside.setdefault(other, set()).add(one)
    changed: dict[str, Decision] = {}
    chosen: set[str] = set()
    for entry_id in sorted(beside, key=lambda i: (-decisions[i].frees_bytes, decisions[i].url)):
        decision = decisions[entry_id]
        rival = min(beside[entry_id] & chosen, key=lambda i: decisions[i].url, default="")
        if not rival:
            chosen.add(entry_id)
            continue
        url = decisions[rival].url
        reason = f"is what {url} is made from, which is to be released and frees more"
        if (entry_id, rival) in pairs:
            reason = f"rests on {url}, which is to be released and frees more"
        changed[entry_id] = decision._replace(
            verdict="refuse", kind="relied-on", reason=reason, evidence=""
        )
    return changed


def _days(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours"
