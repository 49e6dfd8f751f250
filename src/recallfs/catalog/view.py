"""What every part of the catalog's interface stands on: a database and one store's rows in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from recallfs.catalog import schema
from recallfs.catalog.engine import Database

_PAGE_ROWS = 1000

_Result = TypeVar("_Result")


class View:
    """One store's view of a database.

    Parameters
    ----------
    url : str or Path
        SQLAlchemy URL, or the file of an SQLite database.
    store_id : str
        Rows of other stores in the same database are never touched.
    """

    def __init__(self, url: str | Path, store_id: str) -> None:
        self.store_id = store_id
        self._database = Database(url)

    @property
    def is_read_only(self) -> bool:
        """Whether the caller may read and not write; every change raises `AccessError` then."""
        return self._database.is_read_only

    @property
    def is_file(self) -> bool:
        """Whether this is an SQLite file, which hardly ever has more stores than one."""
        return self._database.is_sqlite

    def prepare(self) -> None:
        """Make or upgrade the schema if need be; see `Database.check_version`."""
        self._database.check_version()

    def close(self) -> None:
        """Close this process's connections."""
        self._database.close()

    def rows(self, query: sa.Select[Any], values: Mapping[str, Any] | None = None) -> list[Any]:
        """Return the rows of a query; of which store is for the query, or its values, to say."""
        return self._database.query(
            lambda connection: list(connection.execute(query, values).all())
        )

    def folded(self, query: sa.Select[Any], fold: Callable[[Iterator[Any]], _Result]) -> _Result:
        """Return what is made of the rows of a query, which need not all be in memory.

        Parameters
        ----------
        fold : callable
            Gets the rows; again from the start if the connection was lost meanwhile. Of an SQLite
            file they are as the driver gives them: no type of a column converts anything.
        """

        def ask(connection: sa.Connection) -> _Result:
            result = connection.execute(query)
            if not self.is_file:
                return fold(row for rows in result.partitions(_PAGE_ROWS) for row in rows)
            try:
                return fold(cast("Iterator[Any]", result.cursor))
            except sqlite3.Error as error:
                raise DBAPIError.instance(
                    str(query), None, error, sqlite3.Error, dialect=connection.dialect
                ) from error
            finally:
                result.close()

        return self._database.query(ask)


def below(folder: str) -> sa.ColumnElement[bool]:
    """Tell of a path whether it is a folder's own or below it; '0' is the character after '/'.

    Notes
    -----
    The range alone, which an index answers, also has siblings such as ``folder-2``.
    """
    path = schema.paths.c.path
    if not folder:
        return path != ""
    return sa.and_(path >= folder, path < f"{folder}0", sa.or_(path == folder, path > f"{folder}/"))
