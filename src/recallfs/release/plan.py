"""Release plans: files that say what may be released, to be looked at, approved and applied."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from recallfs.atomic import write_record
from recallfs.catalog.evidence import Evidence, evidence_of
from recallfs.catalog.holder import user_name
from recallfs.catalog.store import Store
from recallfs.errors import ConflictError, IntegrityError, InvalidInputError
from recallfs.release.assessment import Assessed, assess, collecting_nothing
from recallfs.release.policy import Wanted
from recallfs.resolve.presence import settle
from recallfs.resolve.stores import Stores
from recallfs.values import InputRef, Level, State, canonical_json, now_utc

FORMAT = "rrp1"


class Item(NamedTuple):
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
class Support:
    """Something that files of a plan rest on, and why it can be relied on.

    Parameters
    ----------
    how : {"pinned", "held", "proof", "copies"}
        It is here and pinned; it is here, and recallfs neither releases nor forgets it while files
        that rest on it are released; or it is not here, and comes back by a proof or from copies.
    files : int
        Files of the plan that rest on it.
    """

    url: str
    how: str
    files: int


@dataclass(frozen=True)
class ReleasePlan:
    """What may be released, by whom it was drawn up, and when.

    Parameters
    ----------
    warnings : tuple of str
        What keeps bytes alive beyond the trash, and the like.
    """

    made_at: str
    made_by: str
    hold_s: float | None
    max_skeleton: float | None
    allow_chain: bool
    files: tuple[Item, ...]
    ground: tuple[Support, ...] = ()
    warnings: tuple[str, ...] = ()
    policy: str = ""
    lowest: str = ""
    copies: int | None = None

    @property
    def frees_bytes(self) -> int:
        """Net bytes, once the trash is emptied."""
        return sum(item.frees_bytes for item in self.files)

    @property
    def totals(self) -> dict[str, float]:
        """What the files add up to; the seconds are those of one after the other."""
        return {
            "files": len(self.files),
            "size_bytes": sum(item.size_bytes for item in self.files),
            "frees_bytes": self.frees_bytes,
            "expected_s": sum(item.expected_s or 0.0 for item in self.files),
            "worst_s": sum(item.worst_s or 0.0 for item in self.files),
            "depth": max((item.depth for item in self.files), default=0),
        }

    @property
    def wanted(self) -> Wanted:
        """What the plan was drawn up with, as far as it matters when it is applied."""
        return Wanted(
            hold=None if self.hold_s is None else timedelta(seconds=self.hold_s),
            max_skeleton=self.max_skeleton,
            allow_chain=self.allow_chain,
            lowest=Level(self.lowest) if self.lowest else None,
            copies=self.copies,
            policy=self.policy,
        )


@collecting_nothing()
def draw_up(
    stores: Stores,
    fit: Sequence[Assessed],
    wanted: Wanted,
    *,
    warnings: Sequence[str] = (),
    known: Mapping[str, Evidence] | None = None,
) -> ReleasePlan:
    """Draw up a plan of files that were found fit. Changes nothing.

    Parameters
    ----------
    known : mapping of str to Evidence, optional
        What the catalog said of entries a moment ago, by id.
    """
    chains = {
        store.id: _Chains(store, [e.id for other, e, _ in fit if other.id == store.id], known or {})
        for store in {store.id: store for store, *_ in fit}.values()
    }
    items = []
    resting: dict[tuple[str, frozenset[str]], int] = {}
    for store, entry, decision in fit:
        chain = chains[store.id].of(entry.id)
        is_proved = decision.evidence.startswith("proof:")
        key = store.id, chain.ground
        resting[key] = resting.get(key, 0) + 1
        items.append(
            Item(
                decision.url,
                entry.id,
                entry.sha256,
                entry.size_bytes,
                decision.frees_bytes,
                decision.evidence,
                decision.reason,
                decision.expected_s,
                chain.seconds if is_proved else None,
                chain.depth,
                chain.urls,
            )
        )
    files: Counter[tuple[str, str]] = Counter()
    for (store_id, ground), count in resting.items():
        files.update({(store_id, path): count for path in ground})
    hold = stores.config.release.hold if wanted.hold is None else wanted.hold
    return ReleasePlan(
        made_at=now_utc(),
        made_by=user_name(),
        hold_s=hold.total_seconds(),
        max_skeleton=wanted.max_skeleton,
        allow_chain=wanted.allow_chain,
        files=tuple(items),
        ground=tuple(
            chains[store_id].support(path, count)
            for (store_id, path), count in sorted(files.items())
        ),
        warnings=tuple(warnings),
        policy=wanted.policy,
        lowest=wanted.lowest.value if wanted.lowest else "",
        copies=wanted.copies,
    )


class _Chain(NamedTuple):
    """Seconds and recipes that it takes to bring a file back with all that it rests on."""

    seconds: float
    depth: int
    ground: frozenset[str]
    urls: tuple[str, ...]


_NO_CHAIN = _Chain(0.0, 0, frozenset(), ())


class _Chains:
    """What files of a store rest on, read from the catalog one generation at a time."""

    def __init__(
        self, store: Store, entry_ids: Sequence[str], known: Mapping[str, Evidence]
    ) -> None:
        self._store, self._url = store, store.url("")
        self._evidence = dict(known)
        self._chains: dict[str, _Chain] = {}
        self._below: dict[tuple[InputRef, ...], _Chain] = {}
        self._ids: dict[str, str] = {}
        now = now_utc()
        asked: set[str] = set()
        waiting = set(entry_ids)
        while waiting:
            unknown = waiting - self._evidence.keys()
            self._evidence.update(evidence_of(store.catalog, unknown, now))
            asked |= waiting
            inputs = {item.entry_id: item.path for each in waiting for item in self._inputs(each)}
            self._ids.update({path: entry_id for entry_id, path in inputs.items()})
            waiting = inputs.keys() - asked
        self._entries = store.catalog.entries_by_id(set(self._ids.values()))

    def of(self, entry_id: str) -> _Chain:
        """Return the chain of an entry."""
        if entry_id not in self._chains:
            self._chains[entry_id] = _NO_CHAIN  # what is made from itself stops here
            self._chains[entry_id] = self._chain(entry_id)
        return self._chains[entry_id]

    def support(self, path: str, files: int) -> Support:
        """Say why an input can be relied on."""
        entry_id = self._ids[path]
        evidence, entry = self._evidence.get(entry_id), self._entries.get(entry_id)
        if evidence is not None and evidence.is_pinned:
            how = "pinned"
        elif entry is None or entry.state is not State.RELEASED:
            how = "held"
        else:
            how = "proof" if evidence is not None and evidence.proofs else "copies"
        return Support(self._url + path, how, files)

    def _inputs(self, entry_id: str) -> tuple[InputRef, ...]:
        evidence = self._evidence.get(entry_id)
        return () if evidence is None or evidence.made is None else evidence.made.inputs

    def _chain(self, entry_id: str) -> _Chain:
        evidence = self._evidence.get(entry_id)
        if evidence is None or evidence.made is None:
            return _NO_CHAIN
        inputs = evidence.made.inputs
        below = self._below.get(inputs)
        if below is None:
            chains = [self.of(item.entry_id) for item in inputs]
            own = frozenset(item.path for item in inputs)
            ground = own.union(*(chain.ground for chain in chains))
            below = self._below[inputs] = _Chain(
                sum(chain.seconds for chain in chains),
                max((chain.depth for chain in chains), default=0),
                ground,
                tuple(self._url + path for path in sorted(ground)),
            )
        return _Chain(evidence.made.seconds + below.seconds, below.depth + 1, *below[2:])


def write_plan(plan: ReleasePlan, path: Path) -> None:
    """Write a plan where people can read it; its digest tells if it was changed since."""
    body = _body(plan)
    rest = {key: value for key, value in body.items() if key != "files"}
    # One file a line: people read it, and programs write a hundred thousand of them quickly.
    files = ",\n".join(json.dumps(item, ensure_ascii=False) for item in body["files"])
    head = {"format": FORMAT, "digest": _digest(body), "totals": plan.totals}
    text = (
        f'{json.dumps(head, indent=1, ensure_ascii=False)[:-2]},\n "plan": '
        f'{json.dumps(rest, indent=1, ensure_ascii=False)[:-2]},\n "files": [\n{files}\n]}}}}\n'
    )
    write_record(path, text.encode())


def _body(plan: ReleasePlan) -> dict[str, Any]:
    return {
        **vars(plan),
        "files": [item._asdict() for item in plan.files],
        "ground": [vars(item) for item in plan.ground],
    }


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
        ground = tuple(Support(**item) for item in body.get("ground", ()))
        warnings = tuple(body.get("warnings", ()))
        known = {**body, "files": files, "ground": ground, "warnings": warnings}
        return ReleasePlan(**known)
    except (KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} is no release plan.") from error


def _digest(body: Any) -> str:
    return blake3(canonical_json(body)).hexdigest()


def check_again(stores: Stores, plan: ReleasePlan) -> Iterator[Assessed | ConflictError]:
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
