"""Catalogs of earlier versions: each is opened, upgraded and answers what it answered then."""

from __future__ import annotations

import json
import lzma
import signal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from catalog.golden import answers, names
from catalog_actors import count_statements, prepare_catalog
from processes import start
from recallfs.catalog import schema
from recallfs.catalog.engine import Database

REVISIONS = [f"{number:04}" for number in range(1, int(schema.REVISION) + 1)]


def unpack(revision: str, folder: Path) -> str:
    """Unpack a catalog of an earlier version, and return its address."""
    path = folder / "catalog.sqlite"
    path.write_bytes(lzma.decompress(names(revision)[0].read_bytes()))
    return f"sqlite:///{path}"


def agree(found: Any, said: Any) -> bool:
    """Tell whether all that was said then is said now; a value may have got new fields since."""
    if isinstance(said, dict):
        return isinstance(found, dict) and all(
            key in found and agree(found[key], value) for key, value in said.items()
        )
    if isinstance(said, list):
        return len(found) == len(said) and all(map(agree, found, said))
    return bool(found == said)


def dump(url: str) -> list[str]:
    """Return everything that is in a database."""
    database = Database(url)
    with database.engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names()
        found = [
            f"{table} {tuple(row)}"
            for table in tables
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}")  # noqa: S608 - a name
        ]
    database.close()
    return sorted(found)


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_earlier_catalog_answers_as_it_did(tmp_path: Path, revision: str) -> None:
    """Every question to a catalog of each version is answered as the code of then answered it."""
    said = json.loads(names(revision)[1].read_text(encoding="utf-8"))
    assert agree(answers(unpack(revision, tmp_path)), said)


def _kind(column: Any) -> str:
    """Spell a column's type; SQLite has two names for its one type of floating-point numbers."""
    return str(column["type"]).replace("FLOAT", "DOUBLE")


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_upgrade_makes_the_schema_of_a_new_catalog(tmp_path: Path, revision: str) -> None:
    """Tables, columns, keys and indexes of an upgraded catalog are those of one made today."""

    def shape(url: str) -> dict[str, object]:
        database = Database(url)
        database.check_version()
        with database.engine.connect() as connection:
            look = sa.inspect(connection)
            found: dict[str, object] = {
                table: (
                    sorted((c["name"], _kind(c), c["nullable"]) for c in columns),
                    sorted((i["name"] or "", i["column_names"]) for i in look.get_indexes(table)),
                    look.get_pk_constraint(table)["constrained_columns"],
                )
                for table in look.get_table_names()
                for columns in [look.get_columns(table)]
            }
        database.close()
        return found

    assert shape(unpack(revision, tmp_path)) == shape(f"sqlite:///{tmp_path / 'new'}")


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_killed_upgrade_changed_nothing_or_all(tmp_path: Path, revision: str) -> None:
    """Killed at any statement of an upgrade, the catalog is as before and can be upgraded."""
    said = json.loads(names(revision)[1].read_text(encoding="utf-8"))
    url = unpack(revision, tmp_path)
    before = dump(url)
    statements = count_statements(unpack(revision, tmp_path))
    assert statements > 3
    for number in range(1, statements + 1, max(1, statements // 12)):
        url = unpack(revision, tmp_path)
        process = start(prepare_catalog, url, number)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert dump(url) == before
    assert agree(answers(url), said)


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_two_upgrades_at_once_are_one(tmp_path: Path, revision: str) -> None:
    """Processes that find an older catalog at the same time all open it, upgraded once."""
    said = json.loads(names(revision)[1].read_text(encoding="utf-8"))
    url = unpack(revision, tmp_path)
    processes = [start(prepare_catalog, url, 0) for _ in range(4)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert agree(answers(url), said)
