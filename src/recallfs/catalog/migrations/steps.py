"""Steps of a migration that may find themselves done.

SQLite and PostgreSQL take back a migration that was interrupted. MariaDB keeps each step by itself:
there the migration is run again from its beginning, and passes over what is done already.
Statements that fill tables must give the same when they are run twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op


def create_table(name: str, *columns: Any, **options: Any) -> None:
    """Make a table."""
    look = _inspector()
    if look is None or not look.has_table(name):
        op.create_table(name, *columns, **options)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column to a table."""
    look = _inspector()
    if look is None or column.name not in {known["name"] for known in look.get_columns(table)}:
        op.add_column(table, column)


def create_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Make an index."""
    look = _inspector()
    if look is None or name not in {known["name"] for known in look.get_indexes(table)}:
        op.create_index(name, table, list(columns), unique=False)


def drop_index(name: str, table: str) -> None:
    """Drop an index."""
    look = _inspector()
    if look is None or name in {known["name"] for known in look.get_indexes(table)}:
        op.drop_index(name, table_name=table)


def _inspector() -> sa.Inspector | None:
    """Return what looks at the schema, where steps are kept one by one."""
    connection = op.get_bind()
    return sa.inspect(connection) if connection.dialect.name == "mysql" else None
