"""Release plans: files that say what may be released, to be looked at, approved and applied."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import itemgetter
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
        that rest on it are released; or it is not here, or the plan releases it too, and it comes
        back by a proof or from copies.
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
    known : mapping of str to Listed, optional
        What the catalog said of entries a moment ago, by id.
    """
    chains = {
        id(store): _Chains(store, [file for each, file, _ in fit if each is store], known or {})
        for store in {id(store): store for store, *_ in fit}.values()
    }
    items: list[Item] = []
    # What `Item` does, of which there is one call for each of so many files.
    new = tuple.__new__
    for store, file, decision in fit:
        seconds, depth, rests_on = chains[id(store)].of(file)
        url, _, _, reason, evidence, frees, expected, _ = decision
        worst = seconds if evidence[:6] == "proof:" else None
        values = (url, file.id, file.sha256, file.size_bytes, frees, evidence, reason, expected,
                  worst, depth, rests_on)  # fmt: skip
        items.append(new(Item, values))
    hold = stores.config.release.hold if wanted.hold is None else wanted.hold
    return ReleasePlan(
        made_at=now_utc(),
        made_by=user_name(),
        hold_s=hold.total_seconds(),
        max_skeleton=wanted.max_skeleton,
        allow_chain=wanted.allow_chain,
        files=tuple(items),
        ground=tuple(support for each in chains.values() for support in each.supports(items)),
        warnings=tuple(warnings),
        policy=wanted.policy,
        lowest=wanted.lowest.value if wanted.lowest else "",
        copies=wanted.copies,
    )


_Chain = tuple[float, int, tuple[str, ...]]
"""Seconds and recipes that it takes to bring a file back with all that it rests on; and that."""

_NO_CHAIN: _Chain = (0.0, 0, ())


class _Chains:
    """What files of a store rest on, read from the catalog one generation at a time."""

    def __init__(
        self, store: Store, files: Sequence[Entry | Listed], known: Mapping[str, Listed]
    ) -> None:
        self._url = store.url("")
        self._known, self._read = known, dict[str, Listed]()
        self._chains: dict[str, _Chain] = {}
        self._below: dict[int, _Chain] = {}
        self._ids: dict[str, str] = {}
        now = now_utc()
        items = [file for file in files if isinstance(file, Listed)]
        waiting = {file.id for file in files if not isinstance(file, Listed)}
        asked = set(waiting)
        while items or waiting:
            unknown = waiting - known.keys() - self._read.keys()
            self._read.update(listing(store.catalog, unknown, now))
            items += filter(None, map(self._item, waiting))
            # Files that are made from the same have the same object as inputs.
            distinct = {id(item.inputs): item.inputs for item in items}
            inputs = {ref.path: ref.entry_id for refs in distinct.values() for ref in refs}
            self._ids.update(inputs)
            items, waiting = [], set(inputs.values()) - asked
            asked |= waiting

    def of(self, file: Entry | Listed) -> _Chain:
        """Return the chain of a file."""
        item = file if type(file) is Listed else self._item(file.id)
        if item is None or item.recipe is None:
            return _NO_CHAIN
        below = self._below.get(id(item.inputs))
        if below is None:
            self._chains[item.id] = _NO_CHAIN  # what is made from itself stops here
            below = self._below[id(item.inputs)] = self._under(item)
            del self._chains[item.id]
        seconds, depth, rests_on = below
        return (item.seconds or 0.0) + seconds, depth + 1, rests_on

    def supports(self, items: Sequence[Item]) -> Iterator[Support]:
        """Say of each input of files why it can be relied on, in the order of paths."""
        groups = {id(item.rests_on): item.rests_on for item in items}
        counts = Counter(map(id, map(itemgetter(Item._fields.index("rests_on")), items)))
        files: Counter[str] = Counter()
        for key, urls in groups.items():
            for url in urls:
                files[url] += counts[key]
        needed = set(self._ids.values())
        released = {item.entry_id for item in items if item.entry_id in needed}
        for path, entry_id in sorted(self._ids.items()):
            url = self._url + path
            if files[url]:
                yield Support(url, self._hold(entry_id, released), files[url])

    def _hold(self, entry_id: str, released: Collection[str]) -> str:
        item = self._item(entry_id)
        if item is not None and item.is_pinned:
            return "pinned"
        if item is None or (item.state != State.RELEASED.value and entry_id not in released):
            return "held"
        return "proof" if item.proof_id is not None else "copies"

    def _item(self, entry_id: str) -> Listed | None:
        return self._known.get(entry_id) or self._read.get(entry_id)

    def _once(self, entry_id: str) -> _Chain:
        if entry_id not in self._chains:
            item = self._item(entry_id)
            self._chains[entry_id] = _NO_CHAIN if item is None else self.of(item)
        return self._chains[entry_id]

    def _under(self, item: Listed) -> _Chain:
        """Return what a file rests on, without its own run."""
        seconds, depth = 0.0, 0
        urls: set[str] = set()
        for ref in item.inputs:
            chain = self._once(ref.entry_id)
            seconds, depth = seconds + chain[0], max(depth, chain[1])
            urls.add(self._url + ref.path)
            urls.update(chain[2])
        return seconds, depth, tuple(sorted(urls))


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
    for page in pages:
        digest.update(page.replace(b"\n", b""))
    digest.update(b"]" + after)
    totals = plan.totals
    canonical_json(totals)  # which tells of a number that JSON does not have
    head = {"format": FORMAT, "digest": digest.hexdigest(), "totals": totals}
    ground = ",\n".join(map(json.JSONEncoder(ensure_ascii=False).encode, supports))
    text = (
        f'{json.dumps(head, indent=1, ensure_ascii=False)[:-2]},\n "plan": '
        f'{json.dumps(rest, indent=1, ensure_ascii=False)[:-2]},\n "ground": [\n'
        f'{ground}\n],\n "files": [\n'
    )
    write_record(path, [text.encode(), *pages, b"\n]}}\n"])


_NO_FILES = b'"files":[]'
"""Where the files go; nothing else has a list of that name, and in a text quotes are escaped."""


def _pages(items: Sequence[Item]) -> Iterator[bytes]:
    """Spell files as `canonical_json` does, with a line for each; so many at a time."""
    quoted = json.encoder.encode_basestring
    reasons: dict[str, str] = {}
    lists: dict[tuple[str, ...], str] = {}
    for start in range(0, len(items), _PAGE_ITEMS):
        lines = []
        for (
            url, entry_id, sha256, size, frees, evidence, reason, expected, worst, depth, on,
        ) in items[start : start + _PAGE_ITEMS]:  # fmt: skip
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
        yield (",\n" if start else "").encode() + ",\n".join(lines).encode()


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
        raise _edited(path)
    try:
        files = tuple(
            Item(**{**item, "rests_on": tuple(item["rests_on"])}) for item in body["files"]
        )
        ground = tuple(Support(**item) for item in body.get("ground", ()))
        warnings = tuple(body.get("warnings", ()))
        known = {**body, "files": files, "ground": ground, "warnings": warnings}
        plan = ReleasePlan(**known)
        # Not in the digest, and what is looked at most by whoever approves.
        is_whole = _are_same(document["totals"], plan.totals)
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{path} is no release plan.") from error
    if not is_whole:
        raise _edited(path)
    return plan


def _are_same(told: Mapping[str, float], totals: Mapping[str, float]) -> bool:
    """Compare totals; another Python may add up seconds to another last digit."""
    return told.keys() == totals.keys() and all(
        math.isclose(told[name], total) if name.endswith("_s") else told[name] == total
        for name, total in totals.items()
    )


def _edited(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path} was changed since it was made; make a new plan with --plan-out and other filters.",
        kind="damaged-record",
    )


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
