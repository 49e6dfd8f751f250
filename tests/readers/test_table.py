"""The table of readers in the documentation is what the libraries do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from conftest import TESTS
from recallfs.readers.patches import READERS, Reader
from venvs import told_by_neighbours

PAGE = TESTS.parent / "docs" / "how-to" / "read-released-files.md"


def documented() -> dict[str, dict[str, str]]:
    """Return the table of the page."""
    rows = re.findall(
        r"^\| (?!reader|---)(.+?) \| (.+?) \| (.+?) \|$", PAGE.read_text("utf-8"), re.M
    )
    return {reader: {"plain path": path, "URL": url} for reader, path, url in rows}


def public_name(reader: Reader) -> str:
    """Return the name by which a library's users call what is wrapped."""
    name = reader.name.removesuffix(".__init__")
    return re.sub(r"^Nwb(\w+)Extractor$", lambda kind: f"read_nwb_{kind[1].lower()}", name)


@pytest.mark.parametrize("reader", READERS, ids=public_name)
def test_each_reader_has_a_row(reader: Reader) -> None:
    """What is wrapped is in the table, and so in the run of the real libraries below."""
    library = reader.module.partition(".")[0]
    rows = [re.split(r"[ .,]+", row) for row in documented()]
    assert any(row[0] == library and public_name(reader) in row for row in rows)


@pytest.mark.services
@pytest.mark.parametrize("order", ["before", "after"])
def test_table_of_readers(tmp_path: Path, order: str) -> None:
    """Each cell works, whether `install` came before the libraries or after, or has a reason."""
    found = json.loads(told_by_neighbours("readers", order, folder=tmp_path))
    table = documented()
    assert list(found) == list(table)
    for reader, cells in found.items():
        for form, cell in cells.items():
            said = table[reader][form]
            assert (cell == "works") is (said == "works"), f"{reader}, {form}: {cell}"
            assert said == "works" or said.startswith("no: ")
