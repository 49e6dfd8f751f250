"""Catalogs on servers: what is asked of them, and every way in which they can fail."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from catalog_actors import count_statements, hold_a_transaction, prepare_catalog
from database_servers import PASSWORD, MariaDB, PostgreSQL, Server
from processes import start
from recallfs.catalog import schema, servers
from recallfs.catalog.database import Catalog
from recallfs.catalog.engine import Database
from recallfs.errors import AccessError, CatalogError, InvalidInputError, RecallError
from recallfs.testing.records import STORE_ID, plain_record


@pytest.fixture
def catalog(server_url: str) -> Iterator[Catalog]:
    """Give an empty catalog on each of the two servers."""
    catalog = Catalog(server_url, STORE_ID)
    catalog.prepare()
    yield catalog
    catalog.close()


def fails(url: sa.URL) -> RecallError:
    """Open a catalog that cannot be opened, and return what was said."""
    catalog = Catalog(url.render_as_string(hide_password=False), STORE_ID)
    with pytest.raises(RecallError) as caught:
        catalog.prepare()
    catalog.close()
    said = f"{caught.value} {caught.value.details} {caught.value.__cause__}"
    assert PASSWORD not in said
    assert "wrong-password" not in said
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://ana@db/lab", "postgresql+psycopg"),
        ("postgresql+psycopg://ana@db/lab", "postgresql+psycopg"),
        ("mysql://ana@db/lab", "mysql+pymysql"),
        ("mariadb://ana@db/lab", "mysql+pymysql"),
        ("mariadb+pymysql://ana@db/lab", "mysql+pymysql"),
        ("mysql+pymysql://ana@db/lab", "mysql+pymysql"),
        ("sqlite:////tmp/x", "sqlite"),
    ],
)
def test_an_address_without_a_driver_gets_ours(url: str, driver: str) -> None:
    """Addresses as people write them lead to the drivers that the extras install."""
    assert servers.parse_url(url).drivername == driver


@pytest.mark.parametrize("url", ["not an address", "://x:secret@y", "oracle://ana:secret@db/lab"])
def test_an_address_of_nothing_we_know_is_refused(url: str) -> None:
    """What is no address of a database of ours is refused, and not repeated."""
    with pytest.raises(InvalidInputError) as caught:
        servers.parse_url(url)
    assert caught.value.kind == "invalid-config"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("postgresql://ana:secret@127.0.0.1/lab", "psycopg", "recallfs[postgresql]"),
        ("mariadb://ana:secret@127.0.0.1/lab", "pymysql", "recallfs[mariadb]"),
    ],
)
def test_a_missing_driver_is_told_as_such(url: str, module: str, extra: str) -> None:
    """Without the driver one sentence says which extra brings it."""
    code = f"""
import sys
sys.modules[{module!r}] = None
from recallfs.catalog.database import Catalog
from recallfs.errors import InvalidInputError
try:
    Catalog({url!r}, "5" * 32).prepare()
except InvalidInputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert extra in done.stdout
    assert "secret" not in done.stdout
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("scheme", ["postgresql", "mariadb"])
def test_a_server_that_is_not_there_is_unavailable(scheme: str) -> None:
    """A port where nobody listens, and a host that does not exist, are named; it can be retried."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = fails(sa.URL.create(scheme, "ana", PASSWORD, "127.0.0.1", port, "lab"))
    assert error.kind == "catalog-unavailable"
    assert f"127.0.0.1:{port}" in str(error)
    error = fails(sa.URL.create(scheme, "ana", PASSWORD, "no-such-host.invalid", 1, "lab"))
    assert error.kind == "catalog-unavailable"


@pytest.mark.parametrize(
    ("scheme", "limits"),
    [
        ("postgresql", {"connect_timeout": "2"}),
        ("mariadb", {"connect_timeout": "1", "read_timeout": "1"}),
    ],
)
def test_a_server_that_says_nothing_is_unavailable(scheme: str, limits: dict[str, str]) -> None:
    """A host that accepts a connection and then is silent does not hold us up for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = sa.URL.create(scheme, "ana", PASSWORD, "127.0.0.1", port, "lab", query=limits)
        begin = time.monotonic()
        error = fails(url)
    assert error.kind == "catalog-unavailable"
    assert time.monotonic() - begin < 20


def test_passwords_among_the_options_are_not_shown() -> None:
    """Some drivers take a password behind the question mark, too."""
    error = fails(sa.make_url("postgresql://ana@127.0.0.1:1/lab?password=wrong-password"))
    assert error.kind == "catalog-unavailable"


@pytest.mark.services
def test_a_wrong_password_is_refused(server: Server) -> None:
    """A wrong password, an unknown user and a right missing in the database are refusals."""
    with server.database() as name, server.database() as foreign:
        for url in (
            server.url(name, password="wrong-password"),  # noqa: S106 - it is wrong
            server.url(name, user="somebody"),
            server.url(foreign, user=name),
        ):
            error = fails(url)
            assert isinstance(error, AccessError)
            assert f"127.0.0.1:{server.port}" in str(error)


@pytest.mark.services
def test_a_missing_database_is_told_as_such(server: Server) -> None:
    """A database that nobody made is to be made, or another to be named."""
    error = fails(server.url("no_such_database", user=server.admin))
    assert error.kind == "invalid-config"
    assert "no_such_database" in str(error)


@pytest.mark.services
def test_reading_rights_are_not_enough_to_write(server: Server) -> None:
    """Who may only read asks everything; each change is refused and changes nothing."""
    with server.database() as name, server.database() as reader:
        owner = Catalog(server.url(name).render_as_string(hide_password=False), STORE_ID)
        owner.prepare()
        owner.put([plain_record("a")])
        if isinstance(server, PostgreSQL):
            grants = [
                f"GRANT USAGE ON SCHEMA public TO {reader}",
                f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
            ]
            server.run(*grants, database=name)
        else:
            server.run(f"GRANT SELECT ON {name}.* TO '{reader}'@'127.0.0.1'")
        url = server.url(name, user=reader).render_as_string(hide_password=False)
        catalog = Catalog(url, STORE_ID)
        catalog.prepare()
        assert catalog.entry_at("a") is not None
        with pytest.raises(AccessError):
            catalog.put([plain_record("b")])
        with pytest.raises(AccessError):
            catalog.take_lease("k", "h", instead_of=None)
        assert owner.entry_at("b") is None
        if isinstance(server, PostgreSQL):
            server.run(f"DROP OWNED BY {reader}", database=name)
        catalog.close()
        owner.close()


@pytest.mark.services
def test_a_restart_between_questions_is_not_noticed(server: Server, catalog: Catalog) -> None:
    """Connections that died in the pool are made anew, for questions and for changes."""
    catalog.put([plain_record("a")])
    server.kill()
    server.start()
    assert catalog.entry_at("a") is not None
    server.kill()
    server.start()
    catalog.put([plain_record("b")])
    assert len(list(catalog.entries_below(""))) == 2


@pytest.mark.services
def test_a_stopped_server_is_unavailable_until_it_is_back(server: Server, catalog: Catalog) -> None:
    """While the server is away each operation says so; afterwards they work."""
    catalog.put([plain_record("a")])
    server.kill()
    try:
        with pytest.raises(CatalogError) as caught:
            catalog.entry_at("a")
        with pytest.raises(CatalogError) as caught_too:
            catalog.put([plain_record("b")])
        for error in (caught.value, caught_too.value):
            assert error.kind == "catalog-unavailable"
            assert PASSWORD not in str(error)
    finally:
        server.start()
    catalog.put([plain_record("b")])
    assert len(list(catalog.entries_below(""))) == 2


@pytest.mark.services
def test_a_server_that_dies_in_a_change_keeps_nothing_of_it(
    server: Server, catalog: Catalog
) -> None:
    """What was written when the server crashed is gone; the change is made whole, or not at all."""
    catalog.put([plain_record("a")])
    database = catalog._database

    def change(connection: sa.Connection) -> None:
        connection.execute(sa.delete(schema.paths))
        server.kill()
        connection.execute(sa.delete(schema.entries))

    try:
        with pytest.raises(CatalogError) as caught:
            database.transact(change, store_id=STORE_ID)
        assert caught.value.kind == "catalog-unavailable"
    finally:
        server.start()
    assert catalog.entry_at("a") is not None
    crashes = [server]

    def change_again(connection: sa.Connection) -> None:
        connection.execute(sa.delete(schema.paths))
        if crashes:
            crashes.pop().kill()
            server.start()
        connection.execute(sa.delete(schema.incarnations))

    database.transact(change_again, store_id=STORE_ID)
    assert catalog.entry_at("a") is None


@pytest.mark.services
def test_a_process_that_dies_in_a_change_holds_nobody_up(
    server_url: str, catalog: Catalog, tmp_path: Path
) -> None:
    """The change of a killed process is taken back at once, and its lock with it."""
    catalog.put([plain_record("a")])
    ready = tmp_path / "ready"
    process = start(hold_a_transaction, server_url, str(ready))
    while not ready.exists():
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    begin = time.monotonic()
    catalog.put([plain_record("b")])
    assert time.monotonic() - begin < 10
    assert [entry.path for entry in catalog.entries_below("")] == ["a", "b"]


@pytest.mark.services
def test_a_server_that_stands_still_is_given_up(
    server: Server, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server process that stops in the middle of things is waited for only so long."""
    monkeypatch.setattr(servers, "ANSWER_S", 1)
    limit = "?read_timeout=1&connect_timeout=2" if isinstance(server, MariaDB) else ""
    limit = limit or "?connect_timeout=2"
    catalog = Catalog(server_url + limit, STORE_ID)
    catalog.prepare()
    catalog.put([plain_record("a")])
    assert server.pid is not None
    stopped = [server.pid, *_children(server.pid)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with pytest.raises(CatalogError) as caught:
            catalog.entry_at("a")
        assert caught.value.kind == "catalog-unavailable"
        assert time.monotonic() - begin < 40
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert catalog.entry_at("a") is not None
    catalog.close()


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.services
def test_a_server_that_is_lax_cuts_nothing(mariadb: Server, mariadb_url: str) -> None:
    """MariaDB that was told to shorten what is too long refuses it all the same."""
    mariadb.run("SET GLOBAL sql_mode = ''")
    try:
        catalog = Catalog(mariadb_url, STORE_ID)
        catalog.prepare()
        with pytest.raises(InvalidInputError, match="cannot hold"):
            catalog.take_lease("k", "h" * 5000, instead_of=None)
        assert catalog.lease("k") is None
        catalog.close()
    finally:
        mariadb.run("SET GLOBAL sql_mode = DEFAULT")


@pytest.mark.services
def test_a_newer_catalog_is_refused(server_url: str, catalog: Catalog) -> None:
    """A catalog of a later recallfs is left exactly as it is."""
    newer = sa.text("UPDATE schema_version SET version_num = '9999'")
    catalog._database.transact(lambda connection: connection.execute(newer))
    again = Catalog(server_url, STORE_ID)
    with pytest.raises(CatalogError, match="update recallfs") as caught:
        again.prepare()
    assert caught.value.kind == "schema-version"
    again.close()


@pytest.mark.services
def test_an_interrupted_making_of_the_tables_is_finished(server: Server) -> None:
    """Killed at any statement while the tables are made, the next one to open finishes them."""
    with server.database() as name:
        url = server.url(name).render_as_string(hide_password=False)
        statements = count_statements(url)
        expected = _shape(url)
    assert statements > 30
    for number in (1, 2, 3, *range(5, statements, statements // 4), statements - 1, statements):
        with server.database() as name:
            url = server.url(name).render_as_string(hide_password=False)
            process = start(prepare_catalog, url, number)
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
            catalog = Catalog(url, STORE_ID)
            catalog.prepare()
            catalog.put([plain_record("a")])
            assert _shape(url) == expected
            catalog.close()


def _shape(url: str) -> dict[str, object]:
    database = Database(url)
    with database.engine.connect() as connection:
        look = sa.inspect(connection)
        found: dict[str, object] = {
            table: (
                sorted((c["name"], str(c["type"])) for c in look.get_columns(table)),
                sorted(str(index["name"]) for index in look.get_indexes(table)),
            )
            for table in look.get_table_names()
        }
    database.close()
    return found


@pytest.mark.services
def test_a_password_may_stand_in_a_file(
    server: Server, server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the password in the drivers' own files, the address needs none."""
    url = sa.make_url(server_url).set(password=None)
    if isinstance(server, PostgreSQL):
        place = tmp_path / "pgpass"
        password = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
        place.write_text(f"127.0.0.1:{server.port}:*:*:{password}\n")
        place.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(place))
    else:
        place = tmp_path / "my.cnf"
        place.write_text(f'[client]\npassword = "{PASSWORD}"\n')
        url = url.update_query_dict({"read_default_file": str(place)})
    catalog = Catalog(url.render_as_string(hide_password=False), STORE_ID)
    catalog.prepare()
    assert catalog.is_empty()
    catalog.close()


@pytest.mark.services
def test_encryption_that_is_asked_for_is_insisted_on(server: Server, server_url: str) -> None:
    """A server that cannot encrypt is refused when the address asks for it."""
    options = {
        PostgreSQL: {"sslmode": "require"},
        MariaDB: {"ssl_check_hostname": "true"},
    }[type(server)]
    error = fails(sa.make_url(server_url).update_query_dict(options))
    assert error.kind == "catalog-unavailable"
    assert "SSL" in str(error)
