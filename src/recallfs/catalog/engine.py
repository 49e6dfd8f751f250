"""Connections to a catalog's database: transactions, versions, errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DatabaseError, OperationalError, ProgrammingError, SQLAlchemyError

from recallfs.catalog import schema
from recallfs.errors import (
    AccessError,
    CatalogError,
    LockedError,
    RecallError,
    SchemaVersionError,
    SourceError,
)

_BUSY_TIMEOUT_MS = 30_000


class Database:
    """A database by URL: one engine a process, schema upgrades, errors of ours.

    Parameters
    ----------
    url : str or Path
        SQLAlchemy URL, or the file of an SQLite database.

    Notes
    -----
    Safe to use from several threads and after a fork.
    """

    def __init__(self, url: str | Path) -> None:
        # A path is not pasted into a URL: there '?', '#' and '%' mean something.
        is_file = isinstance(url, Path)
        self.url = sa.URL.create("sqlite", database=str(url)) if is_file else sa.make_url(str(url))
        self._engine: sa.Engine | None = None
        self._pid = 0

    @property
    def engine(self) -> sa.Engine:
        """The engine of this process, made on first use."""
        if self._engine is None or self._pid != os.getpid():
            if self._engine is not None:
                # After a fork the parent's connections are the parent's.
                self._engine.dispose(close=False)
            self._engine = _make_engine(self.url)
            self._pid = os.getpid()
        return self._engine

    def close(self) -> None:
        """Close this process's connections."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
        self._engine = None

    def migrate(self) -> None:
        """Bring the schema to the newest version, making it if need be.

        Raises
        ------
        SchemaVersionError
            If the catalog was written by a newer recallfs.
        """
        from alembic import command
        from alembic.config import Config as AlembicConfig
        from alembic.util import CommandError

        settings = AlembicConfig()
        folder = str(Path(__file__).parent / "migrations")
        settings.set_main_option("script_location", folder.replace("%", "%%"))
        settings.set_main_option("path_separator", "os")
        try:
            with self.write() as connection:
                settings.attributes["connection"] = connection
                command.upgrade(settings, "head")
        except CommandError as error:
            raise SchemaVersionError(
                f"the catalog at {self._shown_url()} was written by a newer recallfs ({error}); "
                "update recallfs.",
                details={"url": self._shown_url()},
            ) from error

    def check_version(self) -> None:
        """Upgrade an older schema; refuse a newer one. Costs one query when all is well."""
        try:
            with self.read() as connection:
                found = connection.execute(sa.text("SELECT version_num FROM schema_version"))
                version = found.scalar()
        except CatalogError as error:
            # No such table: SQLite calls that an operational error, servers a programming error.
            missing = isinstance(error.__cause__, (OperationalError, ProgrammingError))
            if not missing or isinstance(error, LockedError):
                raise
            version = None
        if version != schema.REVISION:
            self.migrate()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a connection for queries."""
        with self._mapped_errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, *, synced: bool = True) -> Iterator[sa.Connection]:
        """Open a transaction that may write; committed at the end, rolled back on an error.

        Parameters
        ----------
        synced : bool
            False where a power failure may undo the transaction, because what was synced before
            it is enough to do it again. A killed process loses nothing either way.
        """
        with self._mapped_errors(), self.engine.connect() as connection:
            writing = connection.execution_options(recallfs_write=True, recallfs_synced=synced)
            with writing.begin():
                yield writing

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except RecallError:
            raise
        except OperationalError as error:
            text = str(error.orig).lower()
            if "locked" in text or "busy" in text:
                raise LockedError(
                    f"the catalog at {self._shown_url()} stayed busy for "
                    f"{_BUSY_TIMEOUT_MS // 1000} s; try again."
                ) from error
            if "disk is full" in text:
                raise SourceError(
                    f"no space left for the catalog at {self._shown_url()}; nothing was changed "
                    "in it. Free some space and try again.",
                    kind="no-space",
                ) from error
            if "readonly" in text or "read-only" in text:
                raise AccessError(
                    f"the catalog at {self._shown_url()} cannot be written by you."
                ) from error
            raise CatalogError(
                f"the catalog at {self._shown_url()} cannot be used: {error.orig}."
            ) from error
        except DatabaseError as error:
            raise CatalogError(
                f"the catalog at {self._shown_url()} is damaged ({error.orig}); "
                "move it away, then `recall catalog rebuild` makes it again from the sidecars.",
            ) from error
        except SQLAlchemyError as error:
            raise CatalogError(f"the catalog at {self._shown_url()} failed: {error}.") from error

    def _shown_url(self) -> str:
        if self.url.get_backend_name() == "sqlite" and self.url.database:
            return self.url.database
        return self.url.render_as_string(hide_password=True)


def _make_engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(
        url,
        max_overflow=-1,
        connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        # We begin transactions ourselves: the driver's own way cannot begin an immediate one.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        # A write that began as a read cannot wait for another writer: it fails at once. A read
        # needs no transaction: each query sees one state of the database by itself.
        options = connection.get_execution_options()
        if options.get("recallfs_write", False):
            level = "FULL" if options["recallfs_synced"] else "NORMAL"
            connection.exec_driver_sql(f"PRAGMA synchronous={level}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
