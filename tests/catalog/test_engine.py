"""The database behind the catalog: its versions, and what its failures are called."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from catalog_actors import create_stores
from processes import start
from recallfs.catalog import migrations, schema
from recallfs.catalog.database import Catalog
from recallfs.catalog.engine import Database
from recallfs.catalog.store import open_store
from recallfs.errors import CatalogError, LockedError, SchemaVersionError, SourceError
from recallfs.testing.records import plain_record


def url(tmp_path: Path) -> str:
    """Return the address of a database in a test's folder."""
    return f"sqlite:///{tmp_path / 'catalog.sqlite'}"


def differences(database: Database) -> list[object]:
    """Compare the tables that are there with those that the code expects."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_name": lambda name, kind, _parents: (
                    (kind, name) != ("table", "schema_version")
                ),
            },
        )
        return list(compare_metadata(context, schema.metadata))


def test_migrations_make_the_schema(tmp_path: Path) -> None:
    """What the migrations make is exactly what the tables in the code say."""
    database = Database(url(tmp_path))
    database.check_version()
    assert differences(database) == []
    with database.engine.begin() as connection:
        connection.execute(sa.text("DROP INDEX paths_summary"))
    assert differences(database) != []
    database.close()


def test_the_code_and_the_migrations_have_one_version() -> None:
    """The newest migration is the one that the code asks for, and there is one line of them."""
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_heads() == [schema.REVISION]


@pytest.mark.parametrize("before", ["none", "empty file", "empty version"])
def test_an_older_database_is_upgraded(tmp_path: Path, before: str) -> None:
    """No file, an empty one and one that knows of no migration are brought up to date."""
    path = tmp_path / "catalog.sqlite"
    if before == "empty file":
        path.touch()
    elif before == "empty version":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE schema_version (version_num VARCHAR(32) NOT NULL)")
        connection.close()
    database = Database(url(tmp_path))
    database.check_version()
    assert differences(database) == []
    database.close()


def test_checking_again_changes_nothing(tmp_path: Path) -> None:
    """A catalog that is up to date is not written to."""
    database = Database(url(tmp_path))
    database.check_version()
    with database.engine.connect() as connection:
        before = connection.exec_driver_sql("PRAGMA data_version").scalar()
        Database(url(tmp_path)).check_version()
        assert connection.exec_driver_sql("PRAGMA data_version").scalar() == before
    database.close()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    """A catalog of a later recallfs is left exactly as it is."""
    database = Database(url(tmp_path))
    database.check_version()
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE schema_version SET version_num = '9999'"))
    for _ in range(2):
        with pytest.raises(SchemaVersionError, match="update recallfs") as caught:
            database.check_version()
        assert caught.value.kind == "schema-version"
    assert differences(database) == []
    database.close()


def test_two_processes_make_one_store(tmp_path: Path) -> None:
    """Processes that make the same store at once all succeed, and it works."""
    root, vault = str(tmp_path / "root"), str(tmp_path / "vault")
    processes = [start(create_stores, root, vault) for _ in range(3)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    store = open_store(tmp_path / "root")
    assert differences(store.catalog._database) == []
    store.catalog.close()


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be read" * 100])
def test_a_damaged_file_is_told_as_such(tmp_path: Path, content: bytes) -> None:
    """Garbage is an error that names the file and the way out; it is not written over."""
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(content)
    database = Database(url(tmp_path))
    with pytest.raises(CatalogError, match="rebuild") as caught:
        database.check_version()
    assert caught.value.kind == "catalog-damaged"
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content
    database.close()


def test_a_missing_folder_is_told_as_such(tmp_path: Path) -> None:
    """A database that cannot be opened is an error of ours."""
    database = Database(url(tmp_path / "gone"))
    with pytest.raises(CatalogError, match="unable to open"):
        database.check_version()


def test_passwords_are_not_shown() -> None:
    """An address in an error message has no password in it."""
    database = Database("postgresql://ana:secret@db/recall")
    assert "secret" not in database._shown_url()
    assert "ana" in database._shown_url()


def test_a_busy_catalog_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another process keeps writing, the error says that it is busy."""
    monkeypatch.setattr("recallfs.catalog.engine._BUSY_TIMEOUT_MS", 50)
    database = Database(url(tmp_path))
    database.check_version()
    other = sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(LockedError) as caught:
            database.transact(lambda _connection: None)
        assert caught.value.kind == "catalog-locked"
        with database.engine.connect() as connection:
            assert connection.execute(sa.select(sa.func.count(schema.entries.c.id))).scalar() == 0
    finally:
        other.close()
        database.close()


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    """A database that cannot grow is 'no space', not 'damaged', and keeps what it had."""
    database = Database(url(tmp_path))
    database.check_version()
    row = {"id": "e", "content": "x"}
    with database.engine.begin() as connection:
        connection.execute(sa.insert(schema.environments), row)
    with database.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    # What SQLite answers when a page limit is reached is what it answers when the disk is full.

    def write_too_much(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        large = {"id": "f", "content": "y" * 1_000_000}
        connection.execute(sa.insert(schema.environments), large)

    with pytest.raises(SourceError, match="no space left for the catalog") as caught:
        database.transact(write_too_much)
    assert caught.value.kind == "no-space"
    with database.engine.connect() as connection:
        assert connection.execute(sa.select(schema.environments.c.id)).scalars().all() == ["e"]
    database.close()


def test_an_error_inside_takes_the_write_back(tmp_path: Path) -> None:
    """A transaction whose block raises leaves nothing, and the error is the block's own."""
    database = Database(url(tmp_path))
    database.check_version()

    def fail_late(connection: sa.Connection) -> None:
        connection.execute(sa.insert(schema.environments), {"id": "e", "content": "x"})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        database.transact(fail_late)
    with database.engine.connect() as connection:
        assert connection.execute(sa.select(schema.environments)).all() == []
    database.close()


def test_a_folder_costs_what_is_in_it(tmp_path: Path) -> None:
    """Listing a small folder takes as little work in a large store as in a small one."""
    catalog = Catalog(url(tmp_path), "5" * 32)
    catalog.prepare()
    work = [0]

    def count_work(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_progress_handler(lambda: work.__setitem__(0, work[0] + 1), 100)

    catalog.close()
    sa.event.listen(catalog._database.engine, "connect", count_work)

    def cost() -> tuple[int, int, int]:
        spent = []
        for ask in (
            lambda: catalog.children("small"),
            lambda: catalog.children(""),
            lambda: list(catalog.entries_below("small")),
        ):
            work[0] = 0
            ask()
            spent.append(work[0])
        return spent[0], spent[1], spent[2]

    catalog.put([plain_record(f"small/{number}") for number in range(10)])
    before = cost()
    catalog.put([plain_record(f"large/{number}") for number in range(5000)])
    assert all(new < 3 * old + 20 for new, old in zip(cost(), before, strict=True))
    assert len(list(catalog.entries_below("small"))) == 10
    catalog.close()
