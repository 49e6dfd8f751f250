"""Declared inputs: what is read beside files is recorded, and a change is named before a run."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import json
import sqlite3
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Lab, sha256
from recallfs.catalog import records
from recallfs.catalog.rebuild import rebuild
from recallfs.cli.app import main
from recallfs.errors import IntegrityError, InvalidInputError, RecallError, RecipeFailedError
from recallfs.recipes.declared import check_declared, observe_declared, plain
from recallfs.recipes.model import Recipe, recipe
from recallfs.resolve.binding import adopt
from recallfs.resolve.recall import recall


def _recipe(value: Any) -> Recipe:
    return Recipe("any", "1", lambda: None, declares={"rows": lambda _: value})


def _changes(before: Any, now: Any) -> list[str]:
    one, other = (observe_declared(_recipe(value), {}) for value in (before, now))
    with pytest.raises(IntegrityError) as caught:
        check_declared("any", one, other)
    assert caught.value.kind == "input-changed"
    return list(caught.value.details["changes"])


WHOLE = {
    "row": {
        "at": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
        "gain": decimal.Decimal("0.10"),
        "id": uuid.UUID(int=7),
        "blob": b"abc",
        "none": None,
        "array": np.arange(200, dtype="int16").reshape(2, 100),
        "names": np.array(["a", "b"]),
        "scalar": np.float32(0.5),
        "nan": float("nan"),
    },
    "set": {3, 1, 2},
}


def test_the_same_is_the_same() -> None:
    """What a database gives again compares equal, in any order, type of list and byte order."""
    row = WHOLE["row"]
    assert isinstance(row, dict)
    again = {**row, "array": row["array"].astype(">i2"), "names": ["a", "b"]}
    other = {"set": {2, 3, 1}, "row": dict(reversed(again.items()))}
    one, two = (observe_declared(_recipe(value), {}) for value in (WHOLE, other))
    assert one == two
    check_declared("any", one, two)


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({"freq": 300}, {"freq": 600}, ["rows.freq was 300, is 600"]),
        ({"on": True}, {"on": 1}, ["rows.on was true, is 1"]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, ["rows.a.b[1] was 2, is 3"]),
        ([1], [1, 2], ["rows had 1 items, has 2"]),
        ({"a": 1}, {"b": 1}, ["rows.a is gone", "rows.b is new"]),
        ({"a": b"x" * 9}, {"a": b"y" * 9}, ["rows.a.blake3"]),
        ({"long": "x" * 9999}, {"long": "y" * 9999}, ["rows.long changed"]),
        (list(range(9999)), [*range(9998), 0], ["rows changed"]),
        ({"a": 1.0}, {"a": 1}, ["rows.a was 1.0, is 1"]),
    ],
)
def test_a_change_is_named(before: Any, now: Any, named: list[str]) -> None:
    """Where it is, and what it was and is, as far as that is short; else that it changed."""
    found = _changes(before, now)
    assert len(found) == len(named)
    for said, start in zip(found, named, strict=True):
        assert said.startswith(start)


def test_little_is_kept_of_much() -> None:
    """A table of a million numbers is recorded by its digest."""
    (found,) = observe_declared(_recipe({"table": list(range(10**6))}), {})
    assert len(json.dumps(found.value)) < 200


def test_what_has_no_digest_is_refused() -> None:
    """An object of a class of its own could look the same and be another; so could a pickle."""
    with pytest.raises(InvalidInputError, match="type object has no digest"):
        plain(object())
    with pytest.raises(RecipeFailedError, match=r"'any' declares as 'rows' .* has no digest"):
        observe_declared(_recipe([object()]), {})
    with pytest.raises(InvalidInputError, match="cannot declare 'a b'"):
        recipe(name="x", version="1", declares={"a b": lambda _: 1})


def _database(lab: Lab, factor: float) -> Path:
    place = lab.base / "settings.sqlite"
    with contextlib.closing(sqlite3.connect(place)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS settings (name PRIMARY KEY, factor REAL)")
        connection.execute("REPLACE INTO settings VALUES ('usual', ?)", (factor,))
    return place


def _parameters(lab: Lab) -> Mapping[str, Any]:
    return {"database": str(lab.base / "settings.sqlite"), "settings": "usual"}


def test_a_changed_row_is_named_and_nothing_runs(lab: Lab) -> None:
    """A released file whose row was changed is refused by name; set back, the row gives it back."""
    _database(lab, 2.0)
    before = sha256(lab.derive(recipe="configured", **_parameters(lab)))
    lab.prove()
    lab.release()
    _database(lab, 3.0)
    with pytest.raises(RecallError, match=r"settings\.factor was 2\.0, is 3\.0") as caught:
        recall(lab.stores, lab.store, "derived.h5")
    assert "input-changed" in json.dumps(caught.value.to_json())
    assert not list((lab.root / ".recall" / "staging").glob("*/run"))
    rebuild(lab.store)
    _database(lab, 2.0)
    recall(lab.stores, lab.store, "derived.h5")
    assert sha256(lab.root / "derived.h5") == before


def test_a_release_looks_again(lab: Lab) -> None:
    """A file whose row was changed since its proof stays: nothing could bring it back."""
    _database(lab, 2.0)
    place = lab.derive(recipe="configured", **_parameters(lab))
    lab.prove()
    _database(lab, 3.0)
    with pytest.raises(IntegrityError, match=r"settings\.factor was 2\.0, is 3\.0"):
        lab.release()
    assert place.exists()


def test_a_purge_looks_again(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """What waits in the trash stays, and is named, while its row is another than at its proof."""
    _database(lab, 2.0)
    lab.derive(recipe="configured", **_parameters(lab))
    lab.prove()
    lab.release(hold="0.001s")
    _database(lab, 3.0)
    assert main(["release", "--purge", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    (error,) = told["failed"]
    assert (told["freed_bytes"], error["kind"]) == (0, "input-changed")
    assert "recall://lab/derived.h5 stays in the trash: " in error["message"]
    assert "settings.factor was 2.0, is 3.0" in error["message"]
    (lab.base / "settings.sqlite").unlink()
    assert main(["release", "--purge"]) == 1
    assert "stays in the trash" in " ".join(capsys.readouterr().err.split())
    _database(lab, 2.0)
    assert main(["release", "--purge", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["freed_bytes"] > 0


def test_another_row_is_another_derivation(lab: Lab) -> None:
    """Files made under two settings have two keys; an adopted file is bound to what is there."""
    _database(lab, 2.0)
    lab.derive("one.h5", "configured", **_parameters(lab))
    _database(lab, 3.0)
    lab.derive("two.h5", "configured", **_parameters(lab))
    one, two = (records.load(lab.store, lab.entry(name).id) for name in ("one.h5", "two.h5"))
    assert one.derivations[0].key != two.derivations[0].key
    done = adopt(
        lab.stores,
        "configured",
        outputs={"": "recall://lab/one.h5"},
        inputs={"raw": "recall://lab/raw.h5"},
        parameters=_parameters(lab),
    )
    assert done.is_new
    assert done.key == two.derivations[0].key


def test_what_cannot_be_read_is_told(lab: Lab) -> None:
    """A database that is gone fails the run in one sentence, before anything is written."""
    with pytest.raises(RecipeFailedError, match="'configured' declares as 'settings' cannot be"):
        lab.derive(recipe="configured", **_parameters(lab))
    assert not (lab.root / "derived.h5").exists()
