"""What is kept of environments and code: labels, commits, changes; and how they are compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import Lab
from environment_git import commit_all
from processes import Finished
from recallfs.catalog import records
from recallfs.catalog.rebuild import rebuild
from recallfs.catalog.vaulted import vault_place
from recallfs.environment import export
from recallfs.environment.capture import capture_environment, environment_id
from recallfs.environment.compare import Difference, compare, flags
from recallfs.errors import RecomputeError

RECIPE = '''
import recallfs


@recallfs.recipe(name="words", version="1")
def words(inputs, output, *, text: str = "a"):
    """Write words."""
    output.write_text(text * 9000)
'''


@pytest.fixture
def code(lab: Lab) -> Path:
    """Return a Git work tree that holds the lab's recipes."""
    folder = lab.base / "code"
    folder.mkdir()
    (folder / "kept_recipes.py").write_text(RECIPE)
    commit_all(folder)
    text = lab.config.read_text()
    start, end = text.index("modules"), text.index("\n\n", text.index("modules"))
    lab.config.write_text(
        f'{text[:start]}modules = ["kept_recipes"]\npaths = ["{folder}"]\n{text[end:]}'
    )
    return folder


def _make(lab: Lab, path: str, text: str = "a") -> Finished:
    # In a process of its own: this one would know the recipes of the test before.
    words = ("-o", f"recall://lab/{path}", "-p", f"text={text}", "--json")
    return lab.cli("run", "words", *words, check=False)


def _environment(**fields: object) -> dict[str, object]:
    return {"python": "3.11.7", "name": "lfp", "packages": {"numpy": "1.0"}, **fields}


def test_labels_rise_and_outlive_the_catalog(lab: Lab) -> None:
    """Each new environment of a name gets the next number; a rebuild keeps them."""
    first, second = _environment(), _environment(packages={"numpy": "2.0"})
    third = _environment(name="sorting", packages={})
    for content in (first, second, first, third):
        records.save_environment(lab.store, environment_id(content), content)
    labels = {key: each["label"] for key, each in records.environments(lab.store).items()}
    assert labels[environment_id(first)].endswith("_lfp_00")
    assert labels[environment_id(second)].endswith("_lfp_01")
    assert sorted(label.partition("_")[2] for label in labels.values()) == [
        "lfp_00",
        "lfp_01",
        "sorting_00",
    ]
    (lab.root / ".recall" / "catalog.sqlite").unlink()
    store = lab.store
    rebuild(store)
    for identifier, label in labels.items():
        told = store.catalog.environment(identifier)
        assert told is not None
        assert told["label"] == label
        assert environment_id(told) == identifier


def test_the_commit_of_a_recipe_is_kept(lab: Lab, code: Path) -> None:
    """A clean tree leaves its commit on record, and `recall show` tells it."""
    _make(lab, "a.txt")
    kept = records.load(lab.store, lab.entry("a.txt").id).derivations[0].code
    assert kept is not None
    assert (kept.commit, kept.dirty, kept.diff) == (commit_all(code), False, "")
    assert f"{kept.commit}, unchanged" in lab.cli("show", "recall://lab/a.txt").stdout
    assert lab.cli_json("recipes")["recipes"][-1]["code"] == {"commit": kept.commit, "dirty": False}


def test_changes_of_a_recipe_are_kept(lab: Lab, code: Path) -> None:
    """What no commit holds is kept with the file, and goes to the vault when it is released."""
    (code / "kept_recipes.py").write_text(RECIPE.replace('"a"', '"b"'))
    _make(lab, "a.txt")
    kept = records.load(lab.store, lab.entry("a.txt").id).derivations[0].code
    assert kept is not None
    assert kept.dirty
    place = lab.store.code_path(kept.diff)
    assert b'+def words(inputs, output, *, text: str = "b"):' in place.read_bytes()
    shown = lab.cli("show", "recall://lab/a.txt").stdout
    assert str(place) in "".join(shown.split())  # a long path is folded
    lab.prove("a.txt")
    lab.release("a.txt")
    assert vault_place(lab.store, place).read_bytes() == place.read_bytes()
    shutil.rmtree(place.parent)
    findings = lab.cli_json("doctor", "--fix", check=False)["findings"]
    assert [each["id"] for each in findings if str(place) in each["place"]] == ["evidence-missing"]
    assert place.exists()


def test_dirty_code_is_refused_if_so_configured(lab: Lab, code: Path) -> None:
    """`refuse_dirty` refuses runs and proofs, and no recall."""
    _make(lab, "a.txt")
    lab.prove("a.txt")
    lab.release("a.txt")
    _make(lab, "b.txt", "b")
    (code / "kept_recipes.py").write_text(RECIPE + "\n# changed\n")
    text = lab.config.read_text()
    lab.config.write_text(text.replace("[recipes]", "[recipes]\nrefuse_dirty = true"))
    refused = json.loads(_make(lab, "c.txt", "c").stdout)
    assert refused["kind"] == "dirty-code"
    assert "recipes.refuse_dirty; commit" in refused["message"]
    assert not (lab.root / "c.txt").exists()
    with pytest.raises(RecomputeError) as caught:
        lab.prove("b.txt")
    assert caught.value.kind == "dirty-code"
    assert lab.cli("get", "recall://lab/a.txt").returncode == 0


def test_what_differs_is_told() -> None:
    """Packages come first; what only one has recorded of a run is none; `only` names packages."""
    one = _environment(cpu_features=["avx", "avx2"], threads={"OMP_NUM_THREADS": "1"})
    other = _environment(
        python="3.12.0",
        cpu_features=["avx", "fma"],
        hdf5="1.14.2",
        threads={"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
        packages={"numpy": "2.0", "my-lab": "1"},
        direct={"my-lab": {"editable": True, "commit": "c" * 40, "dirty": True, "changes": "d"}},
    )
    assert compare(one, other) == [
        Difference("python", "3.11.7", "3.12.0"),
        Difference("my-lab", None, "1 at cccccccccccc dirty d"),
        Difference("numpy", "1.0", "2.0"),
        Difference("cpu features", "avx2", "fma"),
        Difference("OMP_NUM_THREADS", "1", "2"),
    ]
    assert compare(one, other, ["NumPy"]) == [Difference("numpy", "1.0", "2.0")]
    assert compare(one, one) == []
    assert flags(other) == ["my-lab (editable, dirty)"]


def test_exports() -> None:
    """Pins for pip and for conda; what no index has is named in a comment, not installed."""
    direct = {
        "mine": {"url": "file:///code", "editable": True, "commit": "abc", "dirty": True},
        "fork": {"url": "https://host/fork.git", "editable": False, "commit": "def"},
    }
    told = _environment(
        packages={"numpy": "1.0", "mine": "2", "fork": "3"}, direct=direct, machine="x86_64"
    )
    assert export.requirements(told).splitlines() == [
        "# Python 3.11.7, x86_64",
        "fork @ git+https://host/fork.git@def",
        "# mine==2 was installed from file:///code, commit abc, changed since",
        "numpy==1.0",
    ]
    conda = export.conda({**told, "conda": {"numpy": "1.0=py311_0", "python": "3.11.7=h1"}})
    assert "  - numpy=1.0=py311_0" in conda
    assert "      - numpy" not in conda
    assert "      - fork @ git+https://host/fork.git@def" in conda


def test_the_id_does_not_rest_on_the_label_or_on_what_was_loaded() -> None:
    """Label, name, builds and pools are told, and do not identify."""
    told = json.loads(json.dumps(capture_environment()))
    assert told["cpu_features"] == sorted(told["cpu_features"])
    other = {**told, "label": "x", "name": "y", "builds": {}, "pools": []}
    assert environment_id(other) == environment_id(told)
    assert environment_id({**told, "cpu_features": []}) != environment_id(told)
