"""Engines for catalogs on a server: drivers, settings of a session, and deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from recallfs.errors import InvalidInputError

CONNECT_S = 10
"""How long a server may take to accept a connection, in seconds."""

ANSWER_S = 60
"""How long a server may take to answer one statement, in seconds."""

LOCK_S = 30
"""How long a statement waits for another transaction, in seconds."""

_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "postgresql": {
        "connect_timeout": CONNECT_S,
        "options": f"-c lock_timeout={LOCK_S}s -c statement_timeout={ANSWER_S}s",
    },
    "mysql": {
        "connect_timeout": CONNECT_S,
        "read_timeout": ANSWER_S,
        "write_timeout": ANSWER_S,
        # A server that is not strict shortens what is too long for a column, and says nothing.
        "sql_mode": "STRICT_ALL_TABLES",
        "init_command": f"SET lock_wait_timeout = {LOCK_S}, innodb_lock_wait_timeout = {LOCK_S}",
    },
}
_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
}
_EXTRAS = {"postgresql": "postgresql", "mysql": "mariadb"}


def parse_url(url: str) -> sa.URL:
    """Read a catalog's address, with the driver that is meant where it names none.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-config``; the address, which may hold a password, is not repeated.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise InvalidInputError(
            "the store's catalog is not a database URL such as postgresql://user@host/name.",
            kind="invalid-config",
        ) from None
    backend, _, driver = parsed.drivername.partition("+")
    if not driver:
        parsed = parsed.set(drivername=_DRIVERS.get(backend, backend))
    elif backend == "mariadb":
        parsed = parsed.set(drivername=f"mysql+{driver}")
    if parsed.get_backend_name() not in ("sqlite", *_OPTIONS):
        raise InvalidInputError(
            f"catalogs are kept in SQLite, PostgreSQL or MariaDB, not in {backend!r}.",
            kind="invalid-config",
        )
    return parsed


def make_server_engine(url: sa.URL) -> sa.Engine:
    """Make an engine whose connections have deadlines; what the URL sets itself stays as set.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-config`` if the driver is not installed.
    """
    backend = url.get_backend_name()
    options = {key: value for key, value in _OPTIONS[backend].items() if key not in url.query}
    try:
        engine = sa.create_engine(
            url, pool_pre_ping=True, isolation_level="READ COMMITTED", connect_args=options
        )
    except (ImportError, sa.exc.NoSuchModuleError) as error:
        raise InvalidInputError(
            f"the driver of {url.drivername!r} is not installed ({error}); "
            f"`pip install recallfs[{_EXTRAS[backend]}]` brings {_DRIVERS[backend]!r}.",
            kind="invalid-config",
        ) from error
    if url.drivername == "postgresql+psycopg":
        event.listen(engine, "do_connect", _psycopg_connector())
    return engine


@contextmanager
def one_at_a_time(connection: sa.Connection) -> Iterator[None]:
    """Keep all others from changing the schema of a server's database meanwhile."""
    if connection.dialect.name == "postgresql":
        # Held until the transaction ends.
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('recallfs schema'))"))
        yield
        return
    name = "CONCAT('recallfs ', MD5(DATABASE()))"
    if not connection.execute(sa.text(f"SELECT GET_LOCK({name}, {LOCK_S})")).scalar():
        raise sa.exc.OperationalError("", None, TimeoutError("lock wait timeout"))
    try:
        yield
        # Before the lock is given back: the next one must see the new version. Most statements
        # that change a schema have committed anyway.
        connection.exec_driver_sql("COMMIT")
    finally:
        connection.execute(sa.text(f"SELECT RELEASE_LOCK({name})"))


def _psycopg_connector() -> Callable[..., Any]:
    """Return what connects by psycopg, which itself waits forever for an answer."""
    import psycopg

    class Connection(psycopg.Connection[Any]):
        def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
            return super().wait(self._limited(gen), *arguments, **options)

        def _limited(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
            # psycopg comes by several times a second, also when nothing has arrived.
            end = time.monotonic() + ANSWER_S + 5  # first let the server say so itself
            try:
                state = next(gen)
                while True:
                    ready = yield state
                    if time.monotonic() > end:
                        self.close()
                        raise psycopg.OperationalError("the server does not answer")
                    state = gen.send(ready)
            except StopIteration as stop:
                return stop.value

    def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        return Connection.connect(*arguments, **options)

    return connect
