"""The table of readers in the documentation is what the libraries do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from conftest import TESTS
from venvs import told_by_neighbours

PAGE = TESTS.parent / "docs" / "how-to" / "read-released-files.md"


def documented() -> dict[str, dict[str, str]]:
    """Return the table of the page."""
    rows = re.findall(
        r"^\| (?!reader|---)(.+?) \| (.+?) \| (.+?) \|$", PAGE.read_text("utf-8"), re.M
    )
    return {reader: {"plain path": path, "URL": url} for reader, path, url in rows}


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
