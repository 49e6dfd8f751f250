"""Release plans: files that say what may be released, to be looked at, approved and applied."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from blake3 import blake3

from recallfs.atomic import write_record
from recallfs.catalog import records
from recallfs.catalog.holder import user_name
from recallfs.catalog.store import Store
from recallfs.errors import ConflictError, IntegrityError, InvalidInputError
from recallfs.release.policy import Decision, Wanted
from recallfs.release.release import assess
from recallfs.resolve.presence import settle
from recallfs.resolve.recall import entries_of_input
from recallfs.resolve.stores import Stores
from recallfs.values import Entry, State, canonical_json, now_utc

FORMAT = "rrp1"


@dataclass(frozen=True)
class Item:
    """One file of a plan.

    Parameters
    ----------
    evidence : str
        What its release rests on: ``proof:<id>`` or ``copies``.
    frees_bytes : int
        Size less what is kept.
    expected_s, worst_s : float or None
        Seconds to get it back: as things are, and if all that it rests on had to come back too.
    depth : int
        Recipes that run one after the other in that case.
    rests_on : tuple of str
        Addresses of its inputs, and of theirs.
    """

    url: str
    entry_id: str
    sha256: str
    size_bytes: int
    frees_bytes: int
    evidence: str
    reason: str
    expected_s: float | None
    worst_s: float | None
    depth: int
    rests_on: tuple[str, ...]


@dataclass(frozen=True)
class ReleasePlan:
    """What may be released, by whom it was drawn up, and when."""

    made_at: str
    made_by: str
    hold_s: float | None
    max_skeleton: float | None
    allow_chain: bool
    files: tuple[Item, ...]

    @property
    def frees_bytes(self) -> int:
        """Net bytes, once the trash is emptied."""
        return sum(item.frees_bytes for item in self.files)

    @property
    def wanted(self) -> Wanted:
        """What the plan was drawn up with, as far as it matters when it is applied."""
        hold = None if self.hold_s is None else timedelta(seconds=self.hold_s)
        return Wanted(hold=hold, max_skeleton=self.max_skeleton, allow_chain=self.allow_chain)


def draw_up(
    stores: Stores, fit: Sequence[tuple[Store, Entry, Decision]], wanted: Wanted
) -> ReleasePlan:
    """Draw up a plan of files that `assess` found fit. Changes nothing."""
    items = []
    for store, entry, decision in fit:
        worst, depth, ground = _chain(store, entry, frozenset())
        items.append(
            Item(
                url=decision.url,
                entry_id=entry.id,
                sha256=entry.sha256,
                size_bytes=entry.size_bytes,
                frees_bytes=decision.frees_bytes,
                evidence=decision.evidence,
                reason=decision.reason,
                expected_s=decision.expected_s,
                worst_s=worst if decision.evidence.startswith("proof:") else None,
                depth=depth,
                rests_on=tuple(sorted(ground)),
            )
        )
    hold = stores.config.release.hold if wanted.hold is None else wanted.hold
    return ReleasePlan(
        made_at=now_utc(),
        made_by=user_name(),
        hold_s=hold.total_seconds(),
        max_skeleton=wanted.max_skeleton,
        allow_chain=wanted.allow_chain,
        files=tuple(items),
    )


def _chain(store: Store, entry: Entry, visiting: frozenset[str]) -> tuple[float, int, set[str]]:
    """Return seconds, depth and ground of bringing a file back with all that it rests on."""
    record = records.load(store, entry.id)
    now = now_utc()
    derivation = record.derivation(now)
    if derivation is None or entry.id in visiting:
        return 0.0, 0, set()
    proofs = record.valid_proofs(now)
    seconds = proofs[0].seconds if proofs else derivation.seconds
    depth, ground = 0, set()
    for reference in derivation.inputs:
        ground.add(store.url(reference.path))
        for source in entries_of_input(store, reference)[:1]:
            more, below, further = _chain(store, source, visiting | {entry.id})
            seconds, depth, ground = seconds + more, max(depth, below), ground | further
    return seconds, depth + 1, ground


def write_plan(plan: ReleasePlan, path: Path) -> None:
    """Write a plan where people can read it; its digest tells if it was changed since."""
    body = asdict(plan)
    document = {"format": FORMAT, "digest": _digest(body), "plan": body}
    write_record(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


def read_plan(path: Path) -> ReleasePlan:
    """Read a plan.

    Raises
    ------
    InvalidInputError
        It is not there, or no plan.
    IntegrityError
        Kind ``damaged-record``: it was changed since it was made.
    """
    try:
        document = json.loads(path.read_bytes())
        body = document["plan"]
        is_known, is_whole = document["format"] == FORMAT, document["digest"] == _digest(body)
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror or error}.", kind="invalid-path"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInputError(f"{path} is no release plan.") from error
    if not is_known:
        raise InvalidInputError(f"{path} is a plan of another format than {FORMAT}.")
    if not is_whole:
        raise IntegrityError(
            f"{path} was changed since it was made; make a new plan with --plan-out and other "
            "filters.",
            kind="damaged-record",
        )
    try:
        files = tuple(
            Item(**{**item, "rests_on": tuple(item["rests_on"])}) for item in body["files"]
        )
        return ReleasePlan(**{**body, "files": files})
    except (KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} is no release plan.") from error


def _digest(body: Any) -> str:
    # As it reads back: tuples are lists then.
    return blake3(canonical_json(json.loads(json.dumps(body)))).hexdigest()


def check_again(
    stores: Stores, plan: ReleasePlan
) -> Iterator[tuple[Store, Entry, Decision] | ConflictError]:
    """Look at each file of a plan once more.

    Yields
    ------
    tuple or ConflictError
        What to release; or why that is no longer what was approved.
    """
    for item in plan.files:
        store, path = stores.resolve(item.url)
        entry = store.catalog.entry_at(path)
        if entry is None or (entry.id, entry.sha256) != (item.entry_id, item.sha256):
            yield ConflictError(f"{item.url} is no longer the file that was approved.")
            continue
        if settle(store, entry) is State.RELEASED:
            continue  # the plan was applied before, and cut short perhaps
        decision = assess(stores, store, entry, plan.wanted)
        if decision.verdict != "release":
            yield ConflictError(f"{item.url} {decision.reason}.", kind=decision.kind or "conflict")
        elif decision.evidence != item.evidence:
            yield ConflictError(
                f"{item.url} rests on something else by now than was approved ({decision.reason}); "
                "make a new plan."
            )
        else:
            yield store, entry, decision
