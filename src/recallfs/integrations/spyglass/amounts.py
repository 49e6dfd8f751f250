"""What the analysis files of a database amount to, table by table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from recallfs.integrations.spyglass.adoption import recipes_by_table
from recallfs.integrations.spyglass.database import FileRow, file_rows, told_plainly
from recallfs.resolve.stores import stores_in_reach


@dataclass(frozen=True)
class TableAmount:
    """What one table's files amount to.

    Parameters
    ----------
    table : str
        Full name, with backticks.
    files, size_bytes : int
        As the database has them.
    there_files, there_bytes : int
        What of it is on disk now.
    last_access : str
        ISO time of the newest access to any of them; empty if none is there. As true as the disk's
        access times are.
    recipes : tuple of str
        Recipes that can bring the table's files back; none means that they cannot be recomputed.
    """

    table: str
    files: int
    size_bytes: int
    there_files: int
    there_bytes: int
    last_access: str
    recipes: tuple[str, ...]


def survey(*queries: Any) -> list[TableAmount]:
    """Sum up analysis files by table, largest first. Changes nothing.

    Parameters
    ----------
    *queries : datajoint.Table
        Tables with ``-> AnalysisNwbfile``, restricted or not; by default all that refer to the
        common ``AnalysisNwbfile`` in schemas that are loaded.

    Raises
    ------
    SourceError, AccessError
        The database does not answer, or denies it.
    """
    with told_plainly():
        recipes = recipes_by_table(stores_in_reach())
        chosen = list(queries) or _all_tables()
        amounts = [_amount(query, recipes) for query in chosen]
    return sorted(amounts, key=lambda amount: -amount.size_bytes)


def _all_tables() -> list[Any]:
    import datajoint
    from spyglass.common.common_nwbfile import AnalysisNwbfile

    files = AnalysisNwbfile()
    files.connection.dependencies.load()
    tables = [datajoint.FreeTable(files.connection, name) for name in files.children()]
    return [table for table in tables if "analysis_file_name" in table.heading.names]


def _amount(query: Any, recipes: dict[str, list[str]]) -> TableAmount:
    query = query() if isinstance(query, type) else query
    rows: dict[str, FileRow] = {row.name: row for row in file_rows(query)}
    there = []
    for row in rows.values():
        if row.path is not None and row.path.is_file():
            there.append(row.path.stat())
    newest = max((status.st_atime for status in there), default=0.0)
    return TableAmount(
        query.full_table_name,
        len(rows),
        sum(row.size_bytes for row in rows.values()),
        len(there),
        sum(status.st_size for status in there),
        datetime.fromtimestamp(newest, timezone.utc).isoformat() if there else "",
        tuple(recipes.get(query.full_table_name, ())),
    )
