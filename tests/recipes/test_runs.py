"""Sweeps and files that list runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import recallfs
from recallfs.errors import InvalidInputError
from recallfs.recipes.model import Recipe, recipe_of
from recallfs.recipes.runs import Run, read_batch, sweep, values_of


@recallfs.recipe(name="band", version="1")
def band(
    inputs: Mapping[str, Path],
    output: Path,
    *,
    low: float = 1.0,
    channels: list[int] | None = None,
    label: str = "",
) -> None:
    """Do nothing."""


def find(name: str) -> Recipe:
    """Give the one recipe there is."""
    recipe = recipe_of(band)
    if recipe is None or name != "band":
        raise InvalidInputError(f"no recipe {name!r}.", kind="unknown-recipe")
    return recipe


def swept(url: str, *arguments: str) -> list[Run]:
    """Sweep the recipe over some arguments."""
    return sweep(find("band"), {"": url}, {}, arguments)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("300", ["300"]),
        ("300,600", ["300", "600"]),
        ("[1,2]", ["[1,2]"]),
        ("[1,2],[3,4]", ["[1,2]", "[3,4]"]),
        ('"a,b"', ['"a,b"']),
        ('"a,b",c', ['"a,b"', "c"]),
        ('{"a":[1,2]},null', ['{"a":[1,2]}', "null"]),
        ('left "upper" probe', ['left "upper" probe']),
        ("[not json", ["[not json"]),
        ("", [""]),
    ],
)
def test_values_are_split_outside_json(text: str, values: list[str]) -> None:
    """Commas separate values, except those inside a JSON value."""
    assert values_of(text) == values


@pytest.mark.parametrize("text", ["300,", ",300", "1,,2", "[1,2", '"a,b', "[1],[2]x,3"])
def test_unclear_values_are_refused(text: str) -> None:
    """Nothing between commas and broken JSON beside one are refused, not guessed at."""
    with pytest.raises(InvalidInputError) as caught:
        values_of(text)
    assert caught.value.kind == "invalid-parameters"


def test_a_sweep_is_the_product() -> None:
    """Each combination is one run, its values in its output and its label."""
    runs = swept("recall://s/{label}/{low}.h5", "low=300,600", 'label="a,b",c', "channels=[1,2]")
    assert [run.label for run in runs] == [
        "low=300, label=a,b",
        "low=300, label=c",
        "low=600, label=a,b",
        "low=600, label=c",
    ]
    assert runs[0].outputs == {"": "recall://s/a,b/300.h5"}
    assert runs[3].parameters == {"low": 600.0, "label": "c", "channels": [1, 2]}


def test_one_combination_is_left_as_it_is() -> None:
    """Braces in the output of a single run are part of its name, as they were before sweeps."""
    (run,) = swept("recall://s/{x}.h5", "low=3")
    assert (run.outputs, run.label) == ({"": "recall://s/{x}.h5"}, "")


def test_braces_and_attributes_are_no_format() -> None:
    """Doubled braces are braces; nothing but the name of a parameter stands between them."""
    assert swept("recall://s/{{{low}}}", "low=1,2")[0].outputs == {"": "recall://s/{1}"}
    for name in ("{other}", "{low.__class__}", "{0}", "{}"):
        with pytest.raises(InvalidInputError, match="is no parameter of this sweep"):
            swept(f"recall://s/{name}", "low=1,2")


def test_values_do_not_make_folders() -> None:
    """A value with a slash cannot lead elsewhere."""
    with pytest.raises(InvalidInputError, match="cannot be part"):
        swept("recall://s/{label}", "label=../up,b")


CSV = """\
recipe,output,input.raw,parameter.low,parameter.label,parameter.channels
band,recall://s/1.h5,recall://s/raw.h5,300,"a,b","[1,2]"

,recall://s/2.h5,recall://s/raw.h5,,,
"""
JSONL = """\
{"recipe": "band", "outputs": "recall://s/1.h5", "inputs": {"raw": "recall://s/raw.h5"}, \
"parameters": {"low": 300, "label": "a,b", "channels": [1, 2]}}

{"outputs": {"output": "recall://s/2.h5"}, "inputs": {"raw": "recall://s/raw.h5"}}
"""


def test_both_files_say_the_same(tmp_path: Path) -> None:
    """A table and a list of objects give the same runs, but for the numbers of their lines."""
    (tmp_path / "runs.csv").write_text(f"\ufeff{CSV}", encoding="utf-8")
    (tmp_path / "runs.jsonl").write_text(JSONL)
    one = read_batch(tmp_path / "runs.csv", "band", find)
    other = read_batch(tmp_path / "runs.jsonl", "band", find)
    assert [run.parameters for run in one] == [run.parameters for run in other]
    assert one[0].parameters == {"low": 300.0, "label": "a,b", "channels": [1, 2]}
    assert [run.inputs for run in one] == [run.inputs for run in other]
    for runs in (one, other):
        found = [list(run.outputs.values()) for run in runs]
        assert found == [["recall://s/1.h5"], ["recall://s/2.h5"]]
    assert [run.label for run in one] == ["line 2", "line 4"]
    assert [run.label for run in other] == ["line 1", "line 3"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "lists no run"),
        ("a.csv", "output,parameter.low\n", "lists no run"),
        ("a.csv", "output,freq\nx,1\n", "'freq' cannot be used"),
        ("a.csv", "output,output\nx,1\n", "each once"),
        ("a.csv", "recipe,output\nband\n", "line 2: it has 1 cells"),
        ("a.csv", 'recipe,output\nband,"x\n', "unexpected end"),
        ("a.csv", "recipe,parameter.low\nband,1\nband,x\nband,y\n", "(?s)line 3.*line 4"),
        ("a.csv", "recipe,output\nother,x\n", "line 2: no recipe 'other'"),
        ("a.csv", "output\nx\n", "names no recipe"),
        ("a.jsonl", "[1]\n", "must be an object"),
        ("a.jsonl", "{\n", "it is not JSON"),
        ("a.jsonl", '{"output": "x"}\n', "keys of recipe, outputs"),
        ("a.jsonl", '{"recipe": "band", "inputs": ["x"]}\n', "inputs must be an object"),
        ("a.jsonl", '{"recipe": "band", "inputs": {"raw": 1}}\n', "must be addresses"),
        ("a.jsonl", '{"recipe": 3}\n', "names no recipe"),
        ("a.jsonl", '{"recipe": "band", "parameters": {"low": "x"}}\n', "must be float"),
        ("a.txt", "", "a .csv or a .jsonl file"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    """What is wrong is told with its line, and all lines that are wrong at once."""
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        read_batch(tmp_path / name, None, find)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    """Neither ends in a traceback."""
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("a.csv", "b.csv"):
        with pytest.raises(InvalidInputError):
            read_batch(tmp_path / name, None, find)
