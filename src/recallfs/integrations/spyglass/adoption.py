"""Adopting, trying, proving and releasing the files that a DataJoint query names."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from recallfs.catalog import audit
from recallfs.catalog.holder import user_name
from recallfs.catalog.store import Store
from recallfs.digest.plain import hash_file
from recallfs.digest.tally import Tolerance
from recallfs.errors import ConflictError, InvalidInputError, RecallError
from recallfs.integrations.spyglass.database import (
    FileRow,
    external_files,
    file_rows,
    told_plainly,
)
from recallfs.integrations.spyglass.declared import recipe_for
from recallfs.integrations.spyglass.logged import Log, Logged, embedded_versions
from recallfs.integrations.spyglass.places import note_copies, register_missing
from recallfs.integrations.spyglass.upstream import nearest_files
from recallfs.recipes.registry import find_recipe
from recallfs.recipes.runs import Run
from recallfs.release.assessment import assess
from recallfs.release.estimate import estimate
from recallfs.release.policy import Wanted
from recallfs.release.proving import Terms, Tried, campaign
from recallfs.release.release import Released
from recallfs.release.release import release as release_entry
from recallfs.release.sample import Population, Sampled, draw, population_of_runs, try_sample
from recallfs.resolve.binding import Adopted, Present
from recallfs.resolve.binding import adopt as adopt_file
from recallfs.resolve.commit import add_existing
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.values import Entry

_T = TypeVar("_T")


@dataclass(frozen=True)
class Result(Generic[_T]):
    """What became of one row's file.

    Parameters
    ----------
    file : str
        Its ``analysis_file_name``; of a file in a folder, the folder's name.
    value : object or None
        What was done; None if it was refused.
    error : RecallError or None
        Why it was refused.
    notes : tuple of str
        What else is to be known of it.
    """

    file: str
    value: _T | None = None
    error: RecallError | None = None
    notes: tuple[str, ...] = ()

    def checked(self) -> _T:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.value is not None  # noqa: S101 - one of the two is there
        return self.value


@dataclass(frozen=True)
class Trial:
    """What a sample of a query's files tells of all of them.

    Parameters
    ----------
    population : Population
        All files; what was left out, and why.
    sampled : tuple of Sampled
    estimate : Mapping
        See `recallfs.release.sample.estimate`.
    """

    population: Population
    sampled: tuple[Sampled, ...]
    estimate: Mapping[str, Any]


def adopt(
    query: Any, recipe: str = "", *, told: Callable[[str], None] = lambda _file: None
) -> list[Result[Adopted]]:
    """Put on record how the files of a query's rows were made. Nothing is run.

    Parameters
    ----------
    query : datajoint.Table
        A table with ``-> AnalysisNwbfile``, or v0's ``SpikeSortingRecording``; restricted or not.
    recipe : str, optional
        By default the one that is declared with `rows` of this table.
    told : callable
        Called with the name of each file that is done.

    Returns
    -------
    list of Result
        One for each row. A row whose file is not there, or not as DataJoint registered it (size and
        checksum), is refused, and the others go on. `notes` say what Spyglass has logged of it.

    Raises
    ------
    InvalidInputError
        No recipe is declared for the table (kind ``unknown-recipe``).
    SourceError, AccessError
        The database does not answer, or denies it.

    Notes
    -----
    A file that Spyglass deleted after a recompute of its own, or that is in Kachery or DANDI only,
    is adopted as missing: known by the size and md5 that DataJoint has, with an empty key. Nothing
    else than these very bytes is ever accepted for it, so no recipe is bound to it.
    """
    stores = stores_in_reach()
    with told_plainly():
        query = query() if isinstance(query, type) else query
        name = recipe or recipe_for(stores, query)
        adopter = _Adopter(stores, query, name)
        results = []
        for row in file_rows(query):
            results.append(_tried(row, adopter.bind))
            told(row.name)
        return results


def trial(
    query: Any,
    recipe: str = "",
    *,
    sample: int = 30,
    seed: int | None = None,
    tolerance: Tolerance | None = None,
    scratch: Path | None = None,
    jobs: int = 1,
    told: Callable[[Sampled], None] = lambda _sampled: None,
) -> Trial:
    """Try on a sample what could be proved; nothing is recorded, nothing need be adopted.

    Parameters
    ----------
    query, recipe
        As for `adopt`.
    sample : int
        How many files.
    seed : int, optional
        Draw the same ones again.
    tolerance, scratch, jobs, told
        See `recallfs.release.sample.try_sample`.
    """
    stores = stores_in_reach()
    population = population_of_runs(stores, runs(stores, query, recipe))
    chosen = draw(population, sample, seed)
    start = time.monotonic()
    sampled = try_sample(
        stores, chosen, tolerance=tolerance or Tolerance(), scratch=scratch, jobs=jobs, told=told
    )
    found = estimate(population, sampled, time.monotonic() - start)
    return Trial(population, tuple(sampled), found)


def prove(query: Any, **terms: Any) -> list[Result[Tried]]:
    """Prove that the adopted files of a query's rows come back. The database is only read.

    Parameters
    ----------
    query : datajoint.Table
        As for `adopt`.
    **terms
        Fields of `recallfs.release.proving.Terms`, such as ``jobs``, ``largest_first``,
        ``until_bytes``, ``again``.

    Returns
    -------
    list of Result
        What is proved already is passed over, so that the same call goes on after an interrupt. Of
        a folder, one for each of its files.
    """
    stores = stores_in_reach()
    results: list[Result[Tried]] = []
    named: dict[str, str] = {}
    found: list[tuple[Store, Entry]] = []
    for row, entries in _entries(stores, query):
        if isinstance(entries, RecallError):
            results.append(Result(row.name, error=entries))
        else:
            named.update((entry.id, row.name) for _, entry in entries)
            found += entries
    done = campaign(stores, found, Terms(**terms))
    if done.stopped is not None:
        raise done.stopped
    return results + [
        Result(named[item.entry.id], None if item.error else item, item.error)
        for item in done.tried
    ]


def release(query: Any, *, hold: timedelta | None = None) -> list[Result[Released]]:
    """Release the proved files of a query's rows; see `recallfs.release.release`.

    Parameters
    ----------
    hold : timedelta, optional
        How long the bytes stay in the trash; by default as configured.
    """
    stores = stores_in_reach()
    wanted = Wanted(hold=hold)
    results: list[Result[Released]] = []
    for row, entries in _entries(stores, query):
        if isinstance(entries, RecallError):
            results.append(Result(row.name, error=entries))
            continue
        for store, entry in entries:
            try:
                decision = assess(stores, store, entry, wanted)
                done = release_entry(stores, store, entry, decision, wanted)
                results.append(Result(row.name, done))
            except RecallError as error:
                results.append(Result(row.name, error=error))
    return results


def runs(stores: Stores, query: Any, recipe: str = "") -> list[Run]:
    """Return how the files of a query's rows are made, as a list for a trial has it."""
    with told_plainly():
        query = query() if isinstance(query, type) else query
        name = recipe or recipe_for(stores, query)
        adopter = _Adopter(stores, query, name)
        return [adopter.run_of(row) for row in file_rows(query) if row.path is not None]


def addresses(stores: Stores, query: Any) -> tuple[list[str], list[str]]:
    """Return the addresses of the adopted files of a query's rows, and the names of the others."""
    known, unknown = [], []
    for row, entries in _entries(stores, query):
        if isinstance(entries, RecallError):
            unknown.append(row.name)
        else:
            known += [store.url(entry.path) for store, entry in entries]
    return known, unknown


@dataclass
class _Adopter:
    """Binds the files of one query's rows, one after the other."""

    stores: Stores
    query: Any
    recipe: str

    def __post_init__(self) -> None:
        settings = self.stores.config.recipes
        outputs = find_recipe(self.recipe, settings.modules, settings.paths).outputs
        self.output = next(iter(outputs), "output")
        self.present = Present()
        self.log = Log(self.query)

    def run_of(self, row: FileRow) -> Run:
        """Return how a row's file is made. Nothing is recorded."""
        store, path = _located(self.stores, row)
        above = [self.stores.resolve(os.fspath(place)) for place in self._made_from(row)]
        return Run(
            label=row.name,
            recipe=self.recipe,
            outputs={self.output: store.url(path)},
            inputs={Path(name).name: owner.url(name) for owner, name in above},
            parameters={"key": row.key, "file": row.name},
        )

    def bind(self, row: FileRow) -> tuple[Adopted, tuple[str, ...]]:
        """Put a row's file on record; return what to say of it, too."""
        logged = self.log.of(row)
        notes = logged.notes()
        if not row.is_folder and (row.path is None or not row.path.exists()):
            return self._missing(row, logged, notes)
        _check_registered(row)
        store, _ = _located(self.stores, row)
        for place in self._made_from(row):
            _catalog(self.stores, store, place)
        run = self.run_of(row)
        adopted = adopt_file(
            self.stores,
            run.recipe,
            outputs=run.outputs,
            inputs=run.inputs,
            parameters=run.parameters,
            present=self.present,
        )
        for _, entry in _entries_of(self.stores, row):
            notes += note_copies(self.stores, store, entry, logged, row)
            if adopted.is_new:
                self._note(store, entry, row, logged)
        return adopted, tuple(notes)

    def _missing(
        self, row: FileRow, logged: Logged, notes: list[str]
    ) -> tuple[Adopted, tuple[str, ...]]:
        elsewhere = logged.kachery or logged.dandi
        if row.path is None or not (logged.deleted_after or elsewhere):
            raise _not_there(row)
        if not row.md5:
            raise InvalidInputError(
                f"{row.name} is gone, and DataJoint has no checksum of it, so nothing that comes "
                "back could be told from another file; leave it to Spyglass.",
                kind="unknown-entry",
                details={"file": row.name},
            )
        store, path = _located(self.stores, row)
        entry, is_new = register_missing(store, path, row)
        notes += note_copies(self.stores, store, entry, logged, row)
        if is_new:
            self._note(store, entry, row, logged)
        notes.append(
            "its bytes are not here: it is known by the size and md5 that DataJoint has, and comes "
            "back from a copy with these only"
        )
        return Adopted({self.output: store.url(path)}, "", is_new), tuple(notes)

    def _note(self, store: Store, entry: Entry, row: FileRow, logged: Logged) -> None:
        """Keep what Spyglass says in the audit trail: it is no evidence."""
        versions = {} if row.is_folder or row.path is None else embedded_versions(row.path)
        said = {**logged.to_json(), "versions": versions, "key": row.key}
        audit.note(store, "spyglass", entry, user_name(), said)

    def _made_from(self, row: FileRow) -> list[Path]:
        """Return the paths of the analysis files that a row's file may be made from."""
        from spyglass.common.common_nwbfile import AnalysisRegistry

        found = []
        for owner, name in nearest_files(self.query, row.key):
            files = external_files(AnalysisRegistry().get_class(owner), [name])
            if name in files:
                found.append(files[name][0])
        return found


def _tried(
    row: FileRow, act: Callable[[FileRow], tuple[Adopted, tuple[str, ...]]]
) -> Result[Adopted]:
    try:
        with told_plainly():
            value, notes = act(row)
            return Result(row.name, value, notes=notes)
    except RecallError as error:
        return Result(row.name, error=error)


def _check_registered(row: FileRow) -> None:
    """Make sure that a file is the one that DataJoint registered."""
    if row.is_folder:
        if row.path is None or not row.path.is_dir():
            raise _not_there(row)
        return
    if row.path is None or not row.path.exists():
        raise _not_there(row)
    size = row.path.stat().st_size
    if size != row.size_bytes or (row.md5 and hash_file(row.path, "md5") != row.md5):
        what = (
            f"{size} bytes instead of {row.size_bytes}" if size != row.size_bytes else "other bytes"
        )
        raise ConflictError(
            f"{row.path} is not the file that DataJoint registered ({what}); DataJoint would "
            "refuse it when it comes back. Mend the file or its row first.",
            kind="dirty",
            details={"file": row.name},
        )


def _not_there(row: FileRow) -> InvalidInputError:
    where = "DataJoint has no path for it" if row.path is None else f"{row.path} is not there"
    return InvalidInputError(
        f"{row.name} is in the database, but {where}; it was deleted or never written. Only "
        "files that exist can be adopted: make it anew with Spyglass, or delete its row.",
        kind="unknown-entry",
        details={"file": row.name},
    )


def _located(stores: Stores, row: FileRow) -> tuple[Store, str]:
    place = row.path or Path(row.name)
    return stores.resolve(os.fspath(place))


def _entries(
    stores: Stores, query: Any
) -> Iterator[tuple[FileRow, list[tuple[Store, Entry]] | RecallError]]:
    """Iterate over a query's rows with the entries of their files, or why there are none."""
    for row in file_rows(query):
        try:
            yield row, _entries_of(stores, row)
        except RecallError as error:
            yield row, error


def _entries_of(stores: Stores, row: FileRow) -> list[tuple[Store, Entry]]:
    entries: list[tuple[Store, Entry]] = []
    if row.path is not None:
        store, path = _located(stores, row)
        if row.is_folder:
            entries = [(store, entry) for entry in store.catalog.entries_below(path)]
        elif (entry := store.catalog.entry_at(path)) is not None:
            entries = [(store, entry)]
    if not entries:
        raise InvalidInputError(
            f"nothing is on record of {row.name}; adopt it first.",
            kind="unknown-entry",
            details={"file": row.name},
        )
    return entries


def _catalog(stores: Stores, store: Store, place: Path) -> None:
    """Catalog an input if it was not yet."""
    owner, path = stores.resolve(os.fspath(place))
    if owner.id == store.id and owner.catalog.entry_at(path) is None and place.is_file():
        add_existing(owner, [path])
