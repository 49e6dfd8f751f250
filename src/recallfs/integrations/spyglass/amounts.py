"""What the files of a database amount to, table by table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from recallfs.integrations.spyglass.database import FileRow, file_rows, known_table, told_plainly
from recallfs.integrations.spyglass.declared import recipes_by_table
from recallfs.integrations.spyglass.logged import Log
from recallfs.resolve.stores import Stores, stores_in_reach

_REFERRING = """
    SELECT table_schema, table_name, referenced_table_schema
    FROM information_schema.key_column_usage
    WHERE referenced_table_name = 'analysis_nwbfile' AND column_name = 'analysis_file_name'
    ORDER BY table_schema, table_name
"""
_FOLDERS = "`spikesorting_recording`.`__spike_sorting_recording`"


@dataclass(frozen=True)
class TableAmount:
    """What one table's files amount to.

    Parameters
    ----------
    table : str
        Full name, with backticks.
    files, size_bytes : int
        As the database has them; folders of spikesorting v0 as the disk has them.
    there_files, there_bytes : int
        What of it is on disk now.
    last_access : str
        ISO time of the newest access to any of them; empty if none is there. As true as the disk's
        access times are.
    recipes : tuple of str
        Recipes that can bring the table's files back; none means that they cannot be recomputed.
    adopted_files, released_files : int
        What of it recallfs has on record, and has released.
    attempts, matched, deleted : int
        Recomputes that Spyglass has logged, those that it counts as equal, and those after which it
        deleted the file. They prove nothing.
    """

    table: str
    files: int
    size_bytes: int
    there_files: int
    there_bytes: int
    last_access: str
    recipes: tuple[str, ...]
    adopted_files: int = 0
    released_files: int = 0
    attempts: int = 0
    matched: int = 0
    deleted: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON-able mapping."""
        return {**asdict(self), "recipes": list(self.recipes)}


def survey(*queries: Any) -> list[TableAmount]:
    """Sum up files by table, largest first. Changes nothing.

    Parameters
    ----------
    *queries : datajoint.Table
        Tables with ``-> AnalysisNwbfile``, restricted or not; by default all in the database, whose
        schemas need not be imported, and the recordings of spikesorting v0.

    Raises
    ------
    SourceError, AccessError
        The database does not answer, or denies it.
    """
    stores = stores_in_reach()
    with told_plainly():
        recipes = recipes_by_table(stores)
        chosen = [(query() if isinstance(query, type) else query, None) for query in queries]
        amounts = [
            _amount(stores, query, owner, recipes) for query, owner in chosen or _all_tables()
        ]
    return sorted(amounts, key=lambda amount: -amount.size_bytes)


def _all_tables() -> Iterator[tuple[Any, Any]]:
    """Iterate over the tables whose rows have files of their own, with those of the files."""
    import datajoint
    from spyglass.common.common_nwbfile import AnalysisNwbfile, AnalysisRegistry

    connection = AnalysisNwbfile().connection
    for schema, name, owner in connection.query(_REFERRING).fetchall():
        table = datajoint.FreeTable(connection, f"`{schema}`.`{name}`")
        # Where the file is part of the key, the row is about a file that another table made.
        if "analysis_file_name" not in table.primary_key:
            own = f"`{owner}`.`analysis_nwbfile`"
            is_common = own == AnalysisNwbfile().full_table_name
            yield table, AnalysisNwbfile if is_common else AnalysisRegistry().get_class(own)
    folders = known_table(connection, _FOLDERS)
    if folders is not None:
        yield folders, None


def _amount(
    stores: Stores, query: Any, owner: Any, recipes: Mapping[str, list[str]]
) -> TableAmount:
    rows: dict[str, FileRow] = {row.name: row for row in file_rows(query, owner)}
    there_files = there_bytes = adopted = released = 0
    newest = 0.0
    for row in rows.values():
        if row.path is None:
            continue
        if row.is_folder:
            files = [path.stat() for path in row.path.rglob("*") if path.is_file()]
        else:
            files = [row.path.stat()] if row.path.is_file() else []
        there_files += bool(files)
        there_bytes += sum(status.st_size for status in files)
        newest = max([newest, *(status.st_atime for status in files)])
        found = stores.containing(row.path)
        if found is not None:
            store, path = found
            entries = (
                list(store.catalog.entries_below(path))
                if row.is_folder
                else [entry for entry in (store.catalog.entry_at(path),) if entry]
            )
            adopted += bool(entries)
            released += bool(entries) and not files
    attempts, matched, deleted = Log(query).totals()
    return TableAmount(
        query.full_table_name,
        len(rows),
        sum(row.size_bytes for row in rows.values()),
        there_files,
        there_bytes,
        datetime.fromtimestamp(newest, timezone.utc).isoformat() if there_files else "",
        tuple(recipes.get(query.full_table_name, ())),
        adopted,
        released,
        attempts,
        matched,
        deleted,
    )
