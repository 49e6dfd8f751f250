"""The whole examination: area after area, each mended before the next one is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from recallfs.atomic import is_full
from recallfs.catalog import records
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store, open_store
from recallfs.config import Config, load_config
from recallfs.doctor import cache, configuration, mirrors, places, vault
from recallfs.doctor.computer import (
    check_abilities,
    check_clock,
    check_computer,
    check_disk,
    check_rights,
)
from recallfs.doctor.evidence import check_evidence
from recallfs.doctor.faults import Finding, Severity
from recallfs.doctor.files import check_files, check_ownership
from recallfs.doctor.kept import KeptCheck
from recallfs.doctor.released import ReleasedCheck
from recallfs.doctor.trash import check_trash
from recallfs.doctor.work import check_work
from recallfs.errors import CatalogError, RecallError
from recallfs.resolve.stores import Stores, rebuild_catalog

Progress = Callable[[str, int], None]
"""Told what is being looked at, and how many entries were done since the last call."""

_Take = Callable[[Iterable[Finding]], bool]
"""Puts findings into the report, mends them if asked to, and tells whether any was mended."""


@dataclass(frozen=True)
class Outcome:
    """A finding and what became of it.

    Parameters
    ----------
    done : str, optional
        What was done to mend it.
    failure : str, optional
        Why mending it failed.
    """

    finding: Finding
    done: str | None = None
    failure: str | None = None

    @property
    def is_left(self) -> bool:
        """Whether it is still to be mended."""
        return self.done is None

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as a JSON-able mapping."""
        return {
            **self.finding.to_json(),
            "fixed": self.done is not None,
            "done": self.done,
            "failure": self.failure,
        }


@dataclass
class Report:
    """What an examination found."""

    outcomes: list[Outcome] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)

    def left(self, severity: Severity) -> list[Outcome]:
        """Return what is still to be mended of one severity."""
        return [
            item
            for item in self.outcomes
            if item.is_left and item.finding.fault.severity is severity
        ]

    @property
    def is_healthy(self) -> bool:
        """Whether no error is left; warnings and notes are risks, not faults."""
        return not self.left(Severity.ERROR)


def examine(
    names: Sequence[str] = (), *, fix: bool = False, progress: Progress | None = None
) -> Report:
    """Look for everything that is wrong, and mend what is safe to.

    Parameters
    ----------
    names : sequence of str
        Stores; by default all.
    fix : bool
        Mend findings that can be mended. Nothing is ever deleted that may be the last copy of
        something, and files of the tree are only written to where that gives back their recorded
        bytes.

    Raises
    ------
    InvalidInputError
        Kind ``unknown-store`` for a name that is not configured.
    """
    report = Report()
    told = progress or (lambda _what, _count: None)

    seen: set[tuple[str, str]] = set()

    def take(findings: Iterable[Finding]) -> bool:
        # All of an area first: mending changes what is being listed.
        new = [item for item in list(findings) if (item.id, item.place) not in seen]
        seen.update((item.id, item.place) for item in new)
        outcomes = [_mended(item) if fix else Outcome(item) for item in new]
        report.outcomes += outcomes
        return any(not outcome.is_left for outcome in outcomes)

    told("configuration", 0)
    take(configuration.check_file())
    try:
        config = load_config()
    except RecallError as error:
        take([Finding("config-invalid", "configuration", error.message)])
        return report
    stores = Stores(config)
    wanted = list(names) or stores.names()
    roots = {name: stores.root_of(name) for name in wanted}
    take(configuration.check_configuration(config))
    opened: dict[str, Store] = {}
    for name, root in roots.items():
        found = list(places.check_root(config, name, root))
        take(found)
        if not found:
            store = _opened(stores, config, name, take)
            if store is not None:
                opened[name] = store
    report.stores = list(opened)
    take(places.check_places(opened))
    for store in {store.root: store for store in opened.values()}.values():
        try:
            _examine_store(stores, store, take, told)
        except RecallError as error:
            take([Finding("store-unusable", str(store.root), error.message, store.name)])
        except OSError as error:
            problem = f"{error.filename or store.root}: {error.strerror or error}."
            if is_full(error):
                problem += " Free some space."
            take([Finding("store-unusable", str(store.root), problem, store.name)])
        finally:
            store.catalog.close()
    told("sources", 0)
    take(mirrors.check_sources(stores, opened.values()))
    take(mirrors.check_places(config, opened.values()))
    take(cache.check_cache(config))
    told("computer", 0)
    take(check_computer())
    return report


def _examine_store(stores: Stores, store: Store, take: _Take, told: Progress) -> None:
    def step(count: int) -> None:
        told(store.name, count)

    step(0)
    take(check_work(store))
    take(vault.check_vault(store))
    has_vault = vault.is_there(store)
    kept = KeptCheck(store, has_vault=has_vault)
    released = ReleasedCheck(stores, store)

    def each(record: Record) -> Iterator[Finding]:
        step(1)
        yield from kept.check(record)
        yield from released.check(record)

    if take(check_evidence(store, has_vault=has_vault, each=each)):
        # A sidecar that was restored names evidence that could not be looked at before.
        take(check_evidence(store, has_vault=has_vault, each=each))
    take(released.check_shared())
    take(check_trash(store))
    take(check_files(stores, store, step))
    take(check_ownership(store))
    for check in (check_clock, check_disk, check_abilities, check_rights):
        take(check(store))


def _opened(stores: Stores, config: Config, name: str, take: _Take) -> Store | None:
    """Open a store without the cleaning up that opening it usually brings: that is our subject."""
    settings = config.store_settings(name)

    def rebuild() -> str:
        return f"{rebuild_catalog(stores, name).entries} entries are indexed again"

    try:
        store = open_store(settings.root, name=name, settings=settings)
        if store.catalog.is_empty() and records.has_sidecars(store):
            problem = "The catalog is empty, and there are sidecars."
            take([Finding("catalog-empty", str(store.root), problem, name, rebuild)])
    except CatalogError as error:
        if error.kind != "catalog-damaged":
            take([Finding("store-unusable", str(settings.root), error.message, name)])
            return None
        take([Finding("catalog-damaged", str(settings.root), error.message, name, rebuild)])
    except RecallError as error:
        take([Finding("store-unusable", str(settings.root), error.message, name)])
        return None
    try:
        store = open_store(settings.root, name=name, settings=settings)
    except RecallError:
        return None
    return store


def _mended(finding: Finding) -> Outcome:
    if finding.mend is None:
        return Outcome(finding)
    try:
        return Outcome(finding, done=finding.mend())
    except RecallError as error:
        return Outcome(finding, failure=error.message)
    except OSError as error:
        return Outcome(finding, failure=f"{error.filename or ''}: {error.strerror or error}.")
