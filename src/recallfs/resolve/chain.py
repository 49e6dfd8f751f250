"""The chain of sources for one file: which are asked, in what order, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.config import PUBLIC_KINDS, SOURCE_KINDS, nearest
from recallfs.errors import InvalidInputError
from recallfs.resolve.caching import cache_for, find_cached, is_shared
from recallfs.resolve.inquiry import Answer, Inquiry
from recallfs.resolve.plan import Facts, Plan, make_plan
from recallfs.resolve.presence import settle
from recallfs.resolve.stores import Stores
from recallfs.sources.base import RemoteSource, Source
from recallfs.sources.cache import CacheSource
from recallfs.sources.recompute import RecomputeSource
from recallfs.sources.trash import TrashSource
from recallfs.values import Entry, State


@dataclass(frozen=True)
class Limits:
    """Which sources a caller wants asked.

    Parameters
    ----------
    only : str, optional
        This one alone (its kind or name).
    no_recompute : bool
        Run no recipe.
    refresh : bool
        Ask even those that answered lately.
    from_afar : bool
        Ask neither the trash nor a cache: what they hold will not be there one day.
    """

    only: str | None = None
    no_recompute: bool = False
    refresh: bool = False
    from_afar: bool = False

    def allows(self, source: Source) -> bool:
        """Tell whether a source may be asked."""
        if self.no_recompute and source.kind == "recompute":
            return False
        if self.from_afar and source.kind in ("trash", "cache"):
            return False
        return self.only in (None, source.kind, source.name)


EVERY_SOURCE = Limits()


def known_source(stores: Stores, name: str | None) -> str | None:
    """Return the name of a source that a caller gave.

    Raises
    ------
    InvalidInputError
        If there is none of that name or kind.
    """
    remotes = (source.name for source in stores.remotes())
    known = tuple(dict.fromkeys(("trash", *SOURCE_KINDS, *remotes)))
    if name is None or name in known:
        return name
    raise InvalidInputError(
        f"there is no source {name!r}{nearest(name, known)} (known: {', '.join(known)})."
    )


@dataclass(frozen=True)
class Chain:
    """The plan for a file, and the sources that its steps name, in its order."""

    plan: Plan
    sources: Sequence[Source]


def chain_for(
    stores: Stores, store: Store, entry: Entry, state: State, limits: Limits = EVERY_SOURCE
) -> Chain:
    """Decide which sources are asked for a file, without asking them."""
    sources: list[Source] = [
        TrashSource(),
        CacheSource(stores.config.cache),
        *stores.remotes(),
        RecomputeSource(stores.config.recipes, stores.config.environments.folder),
    ]
    offers = []
    if state in (State.RELEASED, State.MISSING):
        record = records.load(store, entry.id)
        for source in sources:
            if store.settings.offline and source.kind in PUBLIC_KINDS:
                continue
            offer = source.offer(store, record) if limits.allows(source) else None
            if offer is not None:
                offers.append((source.kind, offer))
    facts = Facts(
        url=store.url(entry.path),
        state=state,
        size_bytes=entry.size_bytes,
        recall_missing=store.settings.recall_missing,
        offers=offers,
        order=store.settings.order,
    )
    plan = make_plan(facts)
    named = {source.name: source for source in sources}
    return Chain(plan, [named[step.source] for step in plan.steps])


def plan_for(stores: Stores, store: Store, entry: Entry, limits: Limits = EVERY_SOURCE) -> Plan:
    """Gather the facts about an entry and decide what opening it would do."""
    plan = chain_for(stores, store, entry, settle(store, entry), limits).plan
    if store.is_writable or plan.action == "open":
        return plan
    cached = find_cached(stores, store, entry)
    if cached is not None and plan.state in (State.RELEASED, State.MISSING):
        plan = replace(plan, action="open", reason="It is in the cache.", steps=())
    cache = cache_for(stores, store)
    place = cached or cache.path_of(entry, share=is_shared(stores, store, entry, cache))
    return replace(plan, cache=str(place))


def inquire(
    stores: Stores, store: Store, entry: Entry, sources: Sequence[Source], limits: Limits
) -> Inquiry:
    """Begin to ask sources for a file."""
    inquiry = Inquiry(store, records.load(store, entry.id), sources, stores.memory)
    if limits.refresh:
        for source in sources:
            if isinstance(source, RemoteSource):
                stores.memory.forget(source, inquiry.key)
    return inquiry


def ask_all(
    stores: Stores, store: Store, entry: Entry, limits: Limits = EVERY_SOURCE
) -> list[Answer]:
    """Return what every source of an entry's plan says; nothing is fetched."""
    sources = chain_for(stores, store, entry, settle(store, entry), limits).sources
    return inquire(stores, store, entry, sources, limits).answers(sources)
