"""Adopting, proving and releasing the analysis files that a DataJoint query names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from recallfs.catalog.store import Store
from recallfs.errors import ConflictError, InvalidInputError, RecallError
from recallfs.integrations.spyglass.database import (
    FileRow,
    external_files,
    file_rows,
    load_table,
    told_plainly,
)
from recallfs.integrations.spyglass.upstream import Rows, nearest_files
from recallfs.recipes.registry import load_recipes
from recallfs.release.assessment import assess
from recallfs.release.policy import Wanted
from recallfs.release.proof import Proved
from recallfs.release.proof import prove as prove_entry
from recallfs.release.release import Released
from recallfs.release.release import release as release_entry
from recallfs.resolve.binding import Adopted
from recallfs.resolve.binding import adopt as adopt_file
from recallfs.resolve.commit import add_existing
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.values import Entry

_T = TypeVar("_T")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Result(Generic[_T]):
    """What became of one row's file.

    Parameters
    ----------
    file : str
        Its ``analysis_file_name``.
    value : object or None
        What was done; None if it was refused.
    error : RecallError or None
        Why it was refused.
    """

    file: str
    value: _T | None = None
    error: RecallError | None = None

    def checked(self) -> _T:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.value is not None  # noqa: S101 - one of the two is there
        return self.value


def adopt(query: Any, recipe: str = "") -> list[Result[Adopted]]:
    """Put on record how the files of a query's rows were made. Nothing is run.

    Parameters
    ----------
    query : datajoint.Table
        A table with ``-> AnalysisNwbfile``, restricted or not.
    recipe : str, optional
        By default the one that is declared with `rows` of this table.

    Returns
    -------
    list of Result
        One for each row. A row whose file is not there, or not as DataJoint registered it (size and
        checksum), is refused, and the others go on.

    Raises
    ------
    InvalidInputError
        No recipe is declared for the table (kind ``unknown-recipe``).
    SourceError, AccessError
        The database does not answer, or denies it.
    """
    stores = stores_in_reach()
    with told_plainly():
        query = query() if isinstance(query, type) else query
        name = recipe or recipe_for(stores, query)

        def bind(row: FileRow) -> Adopted:
            _check_registered(row)
            store, path = _located(stores, row)
            inputs = {
                place.name: _cataloged(stores, store, place) for place in _made_from(query, row)
            }
            return adopt_file(
                stores,
                name,
                outputs={"output": store.url(path)},
                inputs=inputs,
                parameters={"key": row.key, "file": row.name},
            )

        return [_tried(row, bind) for row in file_rows(query)]


def prove(
    query: Any, *, hiding: str = "auto", max_residual: float | None = None
) -> list[Result[Proved]]:
    """Prove that the adopted files of a query's rows come back. The database is only read.

    Parameters
    ----------
    query : datajoint.Table
        As for `adopt`.
    hiding, max_residual
        See `recallfs.release.proof.prove`.
    """
    stores = stores_in_reach()

    def run(row: FileRow) -> Proved:
        store, entry = _entry(stores, row)
        return prove_entry(stores, store, entry, hiding=hiding, max_residual=max_residual)

    return [_tried(row, run) for row in file_rows(query)]


def release(query: Any, *, hold: timedelta | None = None) -> list[Result[Released]]:
    """Release the proved files of a query's rows; see `recallfs.release.release`.

    Parameters
    ----------
    hold : timedelta, optional
        How long the bytes stay in the trash; by default as configured.
    """
    stores = stores_in_reach()
    wanted = Wanted(hold=hold)

    def drop(row: FileRow) -> Released:
        store, entry = _entry(stores, row)
        return release_entry(stores, store, entry, assess(stores, store, entry, wanted), wanted)

    return [_tried(row, drop) for row in file_rows(query)]


def recipe_for(stores: Stores, query: Any) -> str:
    """Return the name of the recipe that is declared for a query's table.

    Raises
    ------
    InvalidInputError
        Kind ``unknown-recipe``: there is none, or more than one.
    """
    found = recipes_by_table(stores).get(query.full_table_name, [])
    if len(found) == 1:
        return found[0]
    among = f"several are: {', '.join(found)}; name one of them" if found else "none is; write one"
    raise InvalidInputError(
        f"a recipe must be declared for {query.full_table_name}, and {among} "
        "(docs: how-to/spyglass).",
        kind="unknown-recipe",
        details={"table": query.full_table_name, "recipes": found},
    )


def recipes_by_table(stores: Stores) -> dict[str, list[str]]:
    """Return names of recipes by the full name of the table whose rows they declare."""
    found: dict[str, list[str]] = {}
    settings = stores.config.recipes
    for recipe in load_recipes(settings.modules, settings.paths).values():
        for read in recipe.declares.values():
            if isinstance(read, Rows):
                table = load_table(read.table)
                found.setdefault(table.full_table_name, []).append(recipe.name)
    return found


def _tried(row: FileRow, act: Callable[[FileRow], _T]) -> Result[_T]:
    try:
        with told_plainly():
            return Result(row.name, act(row))
    except RecallError as error:
        return Result(row.name, error=error)


def _check_registered(row: FileRow) -> None:
    """Make sure that a file is the one that DataJoint registered."""
    if row.path is None or not row.path.exists():
        where = "DataJoint has no path for it" if row.path is None else f"{row.path} is not there"
        raise InvalidInputError(
            f"{row.name} is in the database, but {where}; it was deleted or never written. Only "
            "files that exist can be adopted: make it anew with Spyglass, or delete its row.",
            kind="unknown-entry",
            details={"file": row.name},
        )
    size = row.path.stat().st_size
    if size != row.size_bytes or (row.md5 and _md5(row.path) != row.md5):
        what = (
            f"{size} bytes instead of {row.size_bytes}" if size != row.size_bytes else "other bytes"
        )
        raise ConflictError(
            f"{row.path} is not the file that DataJoint registered ({what}); DataJoint would "
            "refuse it when it comes back. Mend the file or its row first.",
            kind="dirty",
            details={"file": row.name},
        )


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _located(stores: Stores, row: FileRow) -> tuple[Store, str]:
    place = row.path or Path(row.name)
    return stores.resolve(os.fspath(place))


def _entry(stores: Stores, row: FileRow) -> tuple[Store, Entry]:
    store, path = _located(stores, row) if row.path is not None else (None, "")
    entry = None if store is None else store.catalog.entry_at(path)
    if store is None or entry is None:
        raise InvalidInputError(
            f"nothing is on record of {row.name}; adopt it first.",
            kind="unknown-entry",
            details={"file": row.name},
        )
    return store, entry


def _made_from(query: Any, row: FileRow) -> list[Path]:
    """Return the paths of the analysis files that a row's file may be made from."""
    from spyglass.common.common_nwbfile import AnalysisRegistry

    found = []
    for owner, name in nearest_files(query, row.key):
        files = external_files(AnalysisRegistry().get_class(owner), [name])
        if name in files:
            found.append(files[name][0])
    return found


def _cataloged(stores: Stores, store: Store, place: Path) -> str:
    """Return the address of an input, which is catalogued now if it was not yet."""
    owner, path = stores.resolve(os.fspath(place))
    if owner.id == store.id and owner.catalog.entry_at(path) is None and place.is_file():
        add_existing(owner, [path])
    return owner.url(path)
