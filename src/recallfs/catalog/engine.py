"""Connections to a catalog's database: transactions, versions, errors."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import (
    DBAPIError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from recallfs.atomic import has_no_room, no_space
from recallfs.catalog import schema
from recallfs.catalog.failures import is_passing, translated
from recallfs.catalog.servers import make_server_engine, one_at_a_time, parse_url
from recallfs.errors import (
    AccessError,
    CatalogError,
    RecallError,
    SchemaVersionError,
)
from recallfs.mounts import is_network

_BUSY_TIMEOUT_MS = 30_000
_ATTEMPTS = 6
_CACHE_KIB = 32 * 1024  # SQLite's own 2 MiB make it write pages again and again in large puts

_Result = TypeVar("_Result")


class Database:
    """A database by URL: one engine a process, schema upgrades, errors of ours.

    Parameters
    ----------
    url : str or Path
        SQLAlchemy URL (``sqlite``, ``postgresql+psycopg``, ``mariadb+pymysql``), or the file of an
        SQLite database.
    looks_only : bool
        Whether an SQLite file is opened for reading even if the caller may write it: not so much as
        the log beside it is made.

    Notes
    -----
    Safe to use from several threads and after a fork.
    """

    def __init__(self, url: str | Path, *, looks_only: bool = False) -> None:
        self._looks_only = looks_only
        # A path is not pasted into a URL: there '?', '#' and '%' mean something.
        self.url = (
            sa.URL.create("sqlite", database=str(url)) if isinstance(url, Path) else parse_url(url)
        )
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine: sa.Engine | None = None
        self._pid = 0
        self._writing = threading.RLock()

    @property
    def engine(self) -> sa.Engine:
        """The engine of this process, made on first use."""
        if self._engine is None or self._pid != os.getpid():
            if self._engine is not None:
                # After a fork the parent's connections are the parent's.
                self._engine.dispose(close=False)
            self._engine = self._make_engine()
            self._writing = threading.RLock()
            self._pid = os.getpid()
            # Whoever forgets to close leaves nothing open, at the latest when the process ends.
            weakref.finalize(self, _dispose, self._engine, self._pid)
        return self._engine

    def close(self) -> None:
        """Close this process's connections."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
        self._engine = None

    @property
    def is_read_only(self) -> bool:
        """Whether this is an SQLite file that the caller may, or is to, read and not write."""
        return isinstance(self.engine.pool, sa.pool.NullPool)

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

        def upgrade(connection: sa.Connection) -> None:
            settings.attributes["connection"] = connection
            alone = contextlib.nullcontext() if self.is_sqlite else one_at_a_time(connection)
            with alone:
                command.upgrade(settings, "head")

        try:
            self.transact(upgrade)
        except CommandError as error:
            raise SchemaVersionError(
                f"the catalog at {self._shown_url()} was written by a newer recallfs ({error}); "
                "update recallfs.",
                details={"url": self._shown_url()},
            ) from error

    def check_version(self) -> None:
        """Upgrade an older schema; refuse a newer one. Costs one query when all is well."""
        asked = sa.text("SELECT version_num FROM schema_version")
        try:
            version = self.query(lambda connection: connection.execute(asked).scalar())
        except CatalogError as error:
            # No such table: SQLite calls that an operational error, servers a programming error.
            missing = isinstance(error.__cause__, (OperationalError, ProgrammingError))
            if not missing or error.kind != "catalog-damaged" or self.is_read_only:
                raise
            version = None
        if version is None and self.is_sqlite:
            self.transact(_make_new)
            version = self.query(lambda connection: connection.execute(asked).scalar())
        if version != schema.REVISION:
            self.migrate()

    def query(self, ask: Callable[[sa.Connection], _Result]) -> _Result:
        """Ask something; asked again if the connection was lost or the file changed under us.

        Parameters
        ----------
        ask : callable
            Gets a connection that writes nothing, perhaps more than once.
        """

        def attempt() -> _Result:
            before = self._stamp()
            try:
                with self.engine.connect() as connection:
                    answer = ask(connection)
            except OperationalError:
                if not self.is_sqlite or not has_no_room(self._file):
                    raise
                # The log beside the file cannot be made. To read, none is needed.
                with _make_read_only_engine(self._file).connect() as connection:
                    return ask(connection)
            if before is not None and before != self._stamp():
                raise OperationalError("", None, sqlite3.OperationalError("changed meanwhile"))
            return answer

        return self._tried(attempt)

    def _stamp(self) -> tuple[int, int] | None:
        """Return what shows whether a file that is read as a constant one has changed."""
        if not self.is_read_only or _way_to_read(self._file) != _ALONE:
            return None
        status = self._file.stat()
        return status.st_mtime_ns, status.st_size

    @property
    def _file(self) -> Path:
        return Path(str(self.url.database))

    def transact(
        self,
        change: Callable[[sa.Connection], _Result],
        *,
        store_id: str | None = None,
        synced: bool = True,
    ) -> _Result:
        """Make a change as one transaction: all of it is done, or nothing.

        Parameters
        ----------
        change : callable
            Gets a connection, perhaps more than once: when the database takes two transactions
            that wait for each other apart, or a connection is lost, it is called again.
        store_id : str, optional
            One transaction at a time changes this store's rows. (In SQLite, one at a time changes
            anything.)
        synced : bool
            False where a power failure may undo the transaction, because what was synced before
            it is enough to do it again. A killed process loses nothing either way.
        """

        def attempt() -> _Result:
            with self.engine.connect() as connection:
                writing = connection.execution_options(recallfs_write=True, recallfs_synced=synced)
                with writing.begin():
                    if store_id is not None and not self.is_sqlite:
                        _lock_store(writing, store_id)
                    return change(writing)

        if self.is_read_only:
            raise AccessError(f"the catalog at {self._shown_url()} cannot be written by you.")
        # SQLite has one writer at a time, and lets the others in by chance: among a thousand
        # threads some would have none for too long. So each process sends one at a time.
        with self._writing if self.is_sqlite else contextlib.nullcontext():
            return self._tried(attempt)

    def _tried(self, attempt: Callable[[], _Result]) -> _Result:
        end = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
        for number in range(_ATTEMPTS):
            try:
                return attempt()
            except RecallError:
                raise
            except SQLAlchemyError as error:
                is_over = number + 1 == _ATTEMPTS or time.monotonic() > end
                if is_over or not self._is_passing(error):
                    if self.is_sqlite and has_no_room(self._file):
                        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                        raise no_space(full, self._file.parent) from error
                    raise translated(
                        error,
                        where=f"the catalog at {self._shown_url()}",
                        backend=self.url.get_backend_name(),
                    ) from error
                time.sleep(random.uniform(0, 0.02 * 2**number))  # noqa: S311 - no secret
        raise AssertionError("unreachable")

    def _is_passing(self, error: SQLAlchemyError) -> bool:
        """Tell whether the same might succeed when it is tried again at once."""
        if not isinstance(error, DBAPIError):
            return False
        if self.is_sqlite:
            # Seen by readers without write rights in the moment in which a writer opens the file.
            text = str(error.orig).lower()
            return self.is_read_only and "malformed" not in text and "not a database" not in text
        return is_passing(error, self.url.get_backend_name())

    def _shown_url(self) -> str:
        if self.is_sqlite and self.url.database:
            return self.url.database
        # Drivers take passwords among the options, too.
        return self.url.set(query={}).render_as_string(hide_password=True)

    def _make_engine(self) -> sa.Engine:
        if not self.is_sqlite:
            return make_server_engine(self.url)
        if self.url.database and (self._looks_only or _belongs_to_others(self._file)):
            return _make_read_only_engine(self._file)
        engine = sa.create_engine(
            self.url,
            max_overflow=-1,
            connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        )
        # A write-ahead log lives in memory that hosts would have to share.
        is_far = bool(self.url.database) and is_network(self._file.parent)
        journal = "DELETE" if is_far else "WAL"

        @event.listens_for(engine, "connect")
        def on_connect(connection: Any, _record: Any) -> None:
            # We begin transactions ourselves: the driver's own way cannot begin an immediate one.
            connection.isolation_level = None
            for pragma in (
                f"journal_mode={journal}",
                "synchronous=FULL",
                "foreign_keys=ON",
                f"cache_size=-{_CACHE_KIB}",
            ):
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


def _make_new(connection: sa.Connection) -> None:
    """Make the newest schema where there is none, much faster than all migrations in a row."""
    if not sa.inspect(connection).get_table_names():
        schema.metadata.create_all(connection)
        schema.VERSION_TABLE.create(connection)
        connection.execute(schema.VERSION_TABLE.insert().values(version_num=schema.REVISION))


def _dispose(engine: sa.Engine, pid: int) -> None:
    if pid == os.getpid():
        engine.dispose()


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert the rows whose primary keys are not there yet; those that are stay as they are."""
    if rows:
        connection.execute(_insertion(connection.dialect.name, table), rows)


@functools.cache
def _insertion(dialect: str, table: sa.Table) -> sa.Insert:
    # Each dialect takes long to load; one of them is there already.
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table).on_conflict_do_nothing()
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import mysql

    key = next(iter(table.primary_key.columns)).name
    # Unlike INSERT IGNORE, this lets nothing else that is wrong with a row pass.
    return mysql.insert(table).on_duplicate_key_update({key: table.c[key]})


def _lock_store(connection: sa.Connection, store_id: str) -> None:
    columns = schema.stores.c
    lock = (
        sa.update(schema.stores)
        .where(columns.id == store_id)
        .values(writes=schema.stores.c.writes + 1)
    )
    if not connection.execute(lock).rowcount:
        insert_new(connection, schema.stores, [{"id": store_id, "writes": 0}])
        connection.execute(lock)


def _belongs_to_others(file: Path) -> bool:
    return file.exists() and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


_WITH_OTHERS, _ALONE = "mode=ro", "mode=ro&immutable=1"


def _way_to_read(file: Path) -> str:
    """Tell how SQLite is to open a file that the caller may not write."""
    with file.open("rb") as opened:
        header = opened.read(20)
    has_log = header[18:19] == b"\x02"
    # In a file with a log nothing else says that somebody has it open.
    is_alone = has_log and not file.with_name(f"{file.name}-wal").exists()
    return _ALONE if is_alone else _WITH_OTHERS


def _make_read_only_engine(file: Path) -> sa.Engine:
    """Open a file that belongs to others, or is only looked at, at each query anew.

    Notes
    -----
    While somebody has it open for writing there is a log, and SQLite reads both; else it reads the
    file alone, as one that cannot change. Somebody may begin to write right then, which
    `Database.query` looks for.

    References
    ----------
    https://www.sqlite.org/wal.html#readonly
    """

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(str(file))}?{_way_to_read(file)}",
            uri=True,
            timeout=_BUSY_TIMEOUT_MS / 1000,
            check_same_thread=False,
            isolation_level=None,
        )

    return sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.NullPool)
