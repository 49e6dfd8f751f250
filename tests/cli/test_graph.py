"""What files were made from, and what recipes made and cost."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest

from conftest import Lab
from recallfs.catalog import lineage
from recallfs.resolve.derive import derive


def make(lab: Lab, output: str, *sources: str, recipe: str = "text", **parameters: Any) -> None:
    """Make a file from others."""
    derive(
        lab.stores,
        recipe,
        outputs={"": f"recall://lab/{output}"},
        inputs={f"i{n}": f"recall://lab/{name}" for n, name in enumerate(sources)},
        parameters=parameters,
    )


def make_pair(lab: Lab) -> None:
    """Make two files in one run."""
    outputs = {"left": "recall://lab/l", "right": "recall://lab/r"}
    derive(lab.stores, "pair", outputs=outputs, inputs={}, parameters={})


@pytest.fixture
def diamond(lab: Lab) -> Lab:
    """Give raw.h5 → a, b → joined → 'last "one"', and one file beside it."""
    lab.write_raw()
    make(lab, "a", "raw.h5", words="a")
    make(lab, "b", "raw.h5", words="b")
    make(lab, "joined", "a", "b", words="j")
    make(lab, 'last "one"\\n', "joined", words='"quoted" \\ back')
    make(lab, "beside", "raw.h5", words="beside")
    return lab


def test_the_whole_chain_is_shown_in_both_directions(diamond: Lab) -> None:
    """All above and below a file is in its graph, with its state; what is beside is not."""
    (diamond.root / "b").unlink()
    page = diamond.cli_json("graph", "recall://lab/joined")
    states = {item["url"].removeprefix("recall://lab/"): item["state"] for item in page["files"]}
    assert states == {
        "joined": "resident",
        "a": "resident",
        "b": "missing",
        "raw.h5": "resident",
        'last "one"\\n': "resident",
    }
    assert len(page["derivations"]) == 4
    below = diamond.cli_json("graph", "recall://lab/raw.h5")
    assert len(below["files"]) == 6


def test_the_tree_shows_a_file_once_in_full(diamond: Lab) -> None:
    """What is met again below is not unfolded again; names and parameters are there."""
    text = diamond.cli("graph", "recall://lab/raw.h5").stdout
    assert "made from nothing that is on record" in text
    assert text.count("joined") == 2
    assert text.count("(see above)") == 1
    assert text.count("last") == 1
    up = diamond.cli("graph", "recall://lab/joined").stdout
    assert "├─ i0: recall://lab/a  (resident" in up
    assert 'by text 1 (words="j")' in up


def test_dot_is_escaped(diamond: Lab) -> None:
    """Quotes and backslashes of names and parameters end no string; Graphviz reads it."""
    text = diamond.cli("graph", "recall://lab/joined", "--dot").stdout
    assert text.startswith("digraph recall {")
    strings = re.compile(r'"(?:[^"\\]|\\.)*"')
    assert text.count("->") == 9
    for line in text.splitlines():
        assert '"' not in strings.sub("", line)
    assert r"last \"one\"\\n" in text
    if shutil.which("dot"):
        words = ["dot", "-Tsvg"]
        done = subprocess.run(words, input=text.encode(), capture_output=True, check=True)
        assert b"last &quot;one&quot;" in done.stdout


def test_a_forgotten_input_is_told(lab: Lab) -> None:
    """The path of an input that is on record no more stands in the graph all the same."""
    lab.derive()
    lab.cli("forget", "recall://lab/raw.h5", "--yes", check=False)
    page = lab.cli_json("graph", "recall://lab/derived.h5")
    assert {item["url"] for item in page["files"]} == {
        "recall://lab/derived.h5",
        "recall://lab/raw.h5",
    }


def test_a_long_chain(lab: Lab) -> None:
    """A chain that is longer than Python's stack of calls is shown to its end."""
    from recallfs.cli.commands.graph import _tree

    lines = list(_tree("0", lambda key: [("", str(int(key) + 1))] if int(key) < 3000 else [], str))
    assert len(lines) == 3000


def test_work_by_recipe_and_parameter(lab: Lab) -> None:
    """Files, bytes and costs are told by recipe and by value; a run of two files costs once."""
    lab.released("gone.h5")
    lab.derive("three.h5", factor=3.0)
    lab.derive("other.h5", factor=3.0, rows=1000)
    make_pair(lab)
    (store,) = lab.cli_json("status", "--by", "recipe")["stores"]
    work = {item["recipe"]: item for item in store["work"]}
    assert {name: item["runs"] for name, item in work.items()} == {"double": 3, "pair": 1}
    states = work["double"]["states"]
    assert {state: item["files"] for state, item in states.items()} == {
        "resident": 2,
        "released": 1,
    }
    assert states["released"]["size_bytes"] == lab.entry("gone.h5").size_bytes
    assert work["pair"]["states"]["resident"] == {"files": 2, "size_bytes": 45000}
    cost = lab.cli_json("show", "recall://lab/l")["derivations"][0]
    assert work["pair"]["cpu_seconds"] == cost["cpu_seconds"] > 0
    assert work["pair"]["peak_memory_bytes"] == cost["peak_memory_bytes"]
    (store,) = lab.cli_json("status", "--by", "parameter:factor")["stores"]
    found = {(item["recipe"], item["value"]): item["runs"] for item in store["work"]}
    assert found == {("double", "2.0"): 1, ("double", "3.0"): 2}
    assert "CPU hours" in lab.cli("status", "--by", "parameter:factor").stdout
    for by in ("parameter", "parameter:", "size"):
        assert lab.cli("status", "--by", by, check=False).returncode == 10


def test_pages_of_work_add_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in small pages, a run whose files are on two of them is one run still."""
    for number in range(3):
        make(lab, f"t{number}", words=str(number))
    make_pair(lab)
    whole = lineage.work_by(lab.store.catalog)
    for rows in (1, 2, 3, 5):
        monkeypatch.setattr(lineage, "_PAGE_ROWS", rows)
        assert lineage.work_by(lab.store.catalog) == whole
    assert {recipe: work.runs for (recipe, _), work in whole.items()} == {"pair": 1, "text": 3}


def test_costs_survive_a_rebuild_and_adopted_files_have_none(lab: Lab) -> None:
    """The catalog made again from the sidecars tells the same costs; unknown ones are counted."""
    lab.derive()
    (lab.root / "adopted.h5").write_bytes(lab.derive("x.h5", factor=4.0).read_bytes() + b"x")
    words = ("recall://lab/adopted.h5", "-i", "raw=recall://lab/raw.h5", "-p", "factor=5")
    lab.cli("adopt", "--recipe", "double", *words)
    before = lineage.work_by(lab.store.catalog)
    assert [(work.runs, work.unknown_costs) for work in before.values()] == [(3, 1)]
    lab.cli("catalog", "rebuild")
    assert lineage.work_by(lab.store.catalog) == before


def test_recipes_tell_what_they_made(lab: Lab) -> None:
    """Uses are beside the parameters; a recipe that is registered no more is told, too."""
    lab.derive()
    page = lab.cli_json("recipes")
    uses = {item["name"]: item["work"] and item["work"]["runs"] for item in page["recipes"]}
    assert (uses["double"], uses["text"], page["unregistered"]) == (1, None, {})
    lab.config.write_text(lab.config.read_text().replace('["lab_recipes"]', '["quick_recipes"]'))
    page = lab.cli_json("recipes")
    assert page["unregistered"]["double"]["runs"] == 1
    assert "double (not registered)" in lab.cli("recipes").stdout
