"""Release plans: files that say what may be released, to be looked at, approved and applied."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from recallfs.atomic import write_record
from recallfs.catalog.evidence import Listed, listing
from recallfs.catalog.holder import user_name
from recallfs.catalog.store import Store
from recallfs.errors import ConflictError, IntegrityError, InvalidInputError
from recallfs.release.assessment import Assessed, assess, collecting_nothing
from recallfs.release.policy import Decision, Wanted
from recallfs.resolve.presence import settle
from recallfs.resolve.stores import Stores
from recallfs.values import Entry, Level, State, canonical_json, now_utc

FORMAT = "rrp1"
_PAGE_ITEMS = 1000


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
    known: Mapping[str, Listed] | None = None,
) -> ReleasePlan:
    """Draw up a plan of files that were found fit. Changes nothing.

    Parameters
    ----------
    known : mapping of str to Evidence, optional
        What the catalog said of entries a moment ago, by id.
    """
    files_of: dict[str, tuple[Store, list[str]]] = {}
    for store, entry, _ in fit:
        files_of.setdefault(store.id, (store, []))[1].append(entry.id)
    chains = {key: _Chains(store, ids, known or {}) for key, (store, ids) in files_of.items()}
    items: list[Item] = []
    # What `Item` does, of which there is one call for each of so many files.
    new = tuple.__new__
    resting: dict[int, int] = {}
    grounds: dict[int, tuple[str, _Ground]] = {}
    for store, file, decision in fit:
        seconds, depth, ground = chains[store.id].of(file.id)
        key = id(ground)
        if key in resting:
            resting[key] += 1
        else:
            grounds[key], resting[key] = (store.id, ground), 1
        url, _, _, reason, evidence, frees, expected, _ = decision
        worst = seconds if evidence[:6] == "proof:" else None
        values = (url, file.id, file.sha256, file.size_bytes, frees, evidence, reason, expected,
                  worst, depth, ground.urls)  # fmt: skip
        items.append(new(Item, values))
    files: Counter[tuple[str, str]] = Counter()
    for key, (store_id, ground) in grounds.items():
        for path in ground.paths:
            files[store_id, path] += resting[key]
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


class _Ground(NamedTuple):
    """Paths in a store that files rest on, in order, and their addresses."""

    paths: tuple[str, ...]
    urls: tuple[str, ...]


class _Chain(NamedTuple):
    """Seconds and recipes that it takes to bring a file back with all that it rests on."""

    seconds: float
    depth: int
    ground: _Ground


_NO_CHAIN = _Chain(0.0, 0, _Ground((), ()))


class _Chains:
    """What files of a store rest on, read from the catalog one generation at a time."""

    def __init__(self, store: Store, entry_ids: Sequence[str], known: Mapping[str, Listed]) -> None:
        self._store, self._url = store, store.url("")
        self._listed = dict(known)
        self._chains: dict[str, _Chain] = {}
        self._below: dict[int, _Chain] = {}
        self._ids: dict[str, str] = {}
        now = now_utc()
        asked: set[str] = set()
        waiting: Collection[str] = entry_ids
        while waiting:
            unknown = [each for each in waiting if each not in self._listed]
            self._listed.update(listing(store.catalog, unknown, now))
            # Files that are made from the same have the same object as inputs.
            distinct = {
                id(item.inputs): item.inputs
                for item in map(self._listed.get, waiting)
                if item is not None
            }
            inputs = {ref.path: ref.entry_id for refs in distinct.values() for ref in refs}
            self._ids.update(inputs)
            waiting = set(inputs.values()) - asked
            asked |= waiting

    def of(self, entry_id: str) -> tuple[float, int, _Ground]:
        """Return the chain of an entry, as a `_Chain` has it."""
        item = self._listed.get(entry_id)
        if item is None or item.recipe is None:
            return _NO_CHAIN
        below = self._below.get(id(item.inputs))
        if below is None:
            self._chains[entry_id] = _NO_CHAIN  # what is made from itself stops here
            below = self._below[id(item.inputs)] = self._under(item)
            del self._chains[entry_id]
        seconds, depth, ground = below
        return (item.seconds or 0.0) + seconds, depth + 1, ground

    def support(self, path: str, files: int) -> Support:
        """Say why an input can be relied on."""
        item = self._listed.get(self._ids[path])
        if item is not None and item.is_pinned:
            how = "pinned"
        elif item is None or item.state != State.RELEASED.value:
            how = "held"
        else:
            how = "proof" if item.proof_id is not None else "copies"
        return Support(self._url + path, how, files)

    def _once(self, entry_id: str) -> _Chain:
        if entry_id not in self._chains:
            self._chains[entry_id] = _Chain(*self.of(entry_id))
        return self._chains[entry_id]

    def _under(self, item: Listed) -> _Chain:
        """Return what a file rests on, without its own run."""
        chains = [self._once(ref.entry_id) for ref in item.inputs]
        own = {ref.path for ref in item.inputs}
        paths = sorted(own.union(*(chain.ground.paths for chain in chains)))
        return _Chain(
            sum(chain.seconds for chain in chains),
            max((chain.depth for chain in chains), default=0),
            _Ground(tuple(paths), tuple(self._url + path for path in paths)),
        )


@collecting_nothing()
def write_plan(plan: ReleasePlan, path: Path) -> None:
    """Write a plan where people can read it; its digest tells if it was changed since."""
    rest = dict(vars(plan))
    del rest["files"], rest["ground"]
    # One file a line, each in the form that the digest is taken of: a hundred thousand of them are
    # encoded once.
    pages = list(_pages(plan.files))
    supports = [vars(item) for item in plan.ground]
    before, between, after = canonical_json({**rest, "files": [], "ground": supports}).partition(
        _NO_FILES
    )
    digest = blake3(before + between[:-1])
    for number, page in enumerate(pages):
        digest.update((b"," if number else b"") + page.replace(b"\n", b""))
    digest.update(b"]" + after)
    totals = plan.totals
    canonical_json(totals)  # which tells of a number that JSON does not have
    head = {"format": FORMAT, "digest": digest.hexdigest(), "totals": totals}
    ground = ",\n".join(json.dumps(item, ensure_ascii=False) for item in supports)
    text = (
        f'{json.dumps(head, indent=1, ensure_ascii=False)[:-2]},\n "plan": '
        f'{json.dumps(rest, indent=1, ensure_ascii=False)[:-2]},\n "ground": [\n'
        f'{ground}\n],\n "files": [\n'
    )
    write_record(path, b"".join([text.encode(), b",\n".join(pages), b"\n]}}\n"]))


_NO_FILES = b'"files":[]'
"""Where the files go; nothing else has a list of that name, and in a text quotes are escaped."""


def _pages(items: Sequence[Item]) -> Iterator[bytes]:
    """Spell files as `canonical_json` does, so many at a time."""
    quoted = json.encoder.encode_basestring
    reasons: dict[str, str] = {}
    lists: dict[tuple[str, ...], str] = {}
    lines: list[str] = []
    for url, entry_id, sha256, size, frees, evidence, reason, expected, worst, depth, on in items:
        why, rests_on = reasons.get(reason), lists.get(on)
        if why is None:
            why = reasons[reason] = quoted(reason)
        if rests_on is None:
            rests_on = lists[on] = f"[{','.join(map(quoted, on))}]"
        lines.append(
            f'{{"depth":{depth},"entry_id":{quoted(entry_id)},"evidence":{quoted(evidence)},'
            f'"expected_s":{"null" if expected is None else repr(expected)},'
            f'"frees_bytes":{frees},"reason":{why},"rests_on":{rests_on},'
            f'"sha256":{quoted(sha256)},"size_bytes":{size},"url":{quoted(url)},'
            f'"worst_s":{"null" if worst is None else repr(worst)}}}'
        )
        if len(lines) == _PAGE_ITEMS:
            yield ",\n".join(lines).encode()
            lines.clear()
    if lines:
        yield ",\n".join(lines).encode()


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
