"""Recipes as values: what the decorator attaches, how they run, what a derivation is keyed by."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from recallfs.errors import InvalidInputError
from recallfs.recipes.model import Recipe, derivation_key, recipe, recipe_of

KEY: dict[str, Any] = {
    "recipe_name": "bandpass",
    "version": "1",
    "source_digest": "d" * 64,
    "parameters": {"a": 1.0, "b": [1, 2]},
    "inputs": {"raw": "e" * 64},
}


@recipe(name="plain", version="2", timeout_s=5, memory_bytes=10**9, seeded=False)
def plain(inputs: Mapping[str, Path], output: Path, *, text: str = "x") -> str:
    """Write a text."""
    output.write_text(text)
    return text


def double(inputs: Mapping[str, Path], output: Mapping[str, Path]) -> None:
    """Write two files."""
    for name, path in output.items():
        path.write_text(name)


def test_decorated_function_stays_itself(tmp_path: Path) -> None:
    """The decorator gives back the function, with a recipe attached."""
    assert plain({}, tmp_path / "a", text="y") == "y"
    made = recipe_of(plain)
    assert made == Recipe("plain", "2", plain, ("output",), False, 5, 10**9)
    assert made is not None
    assert list(made.parameters) == ["text"]
    assert recipe_of(double) is None


def test_form_of_output_follows_the_number_of_outputs(tmp_path: Path) -> None:
    """One output arrives as a path, several as a mapping; other names are refused."""
    Recipe("p", "1", plain).run({}, {"output": tmp_path / "one"}, {"text": "z"})
    assert (tmp_path / "one").read_text() == "z"
    both = {"a": tmp_path / "a", "b": tmp_path / "b"}
    Recipe("d", "1", double, ("a", "b")).run({}, both, {})
    assert [path.read_text() for path in both.values()] == ["a", "b"]
    with pytest.raises(InvalidInputError, match="writes a, b"):
        Recipe("d", "1", double, ("a", "b")).run({}, {"a": tmp_path / "a"}, {})


@pytest.mark.parametrize(
    "declared",
    [
        {"name": "with space"},
        {"name": ""},
        {"name": "../up"},
        {"version": ""},
        {"version": 1},
        {"outputs": ()},
        {"outputs": ("a", "a")},
        {"outputs": "output"},
        {"outputs": ("a/b",)},
        {"timeout_s": 0},
        {"memory_bytes": -1},
    ],
)
def test_bad_declarations_are_refused(declared: dict[str, Any]) -> None:
    """Names that could not be written down, empty outputs and limits of zero are errors."""
    with pytest.raises(InvalidInputError):
        recipe(**{"name": "good", "version": "1", **declared})


def test_nested_function_is_refused() -> None:
    """A worker could not import a function from inside another one."""
    with pytest.raises(InvalidInputError, match="top level"):

        @recipe(name="inner", version="1")
        def inner(inputs: Any, output: Any) -> None: ...


@pytest.mark.parametrize(
    "changed",
    [
        {"recipe_name": "other"},
        {"version": "2"},
        {"source_digest": "f" * 64},
        {"parameters": {"a": 1.5, "b": [1, 2]}},
        {"inputs": {"raw": "f" * 64}},
        {"inputs": {"cooked": "e" * 64}},
        {"other_inputs": {"table": "0"}},
    ],
)
def test_key_depends_on_everything_that_determines_a_result(changed: dict[str, Any]) -> None:
    """Each part of a derivation changes its key."""
    assert derivation_key(**{**KEY, **changed}) != derivation_key(**KEY)


def test_key_does_not_depend_on_order() -> None:
    """Equal derivations have one key, which later versions must give too."""
    turned = {**KEY, "parameters": {"b": [1, 2], "a": 1.0}, "other_inputs": {}}
    assert derivation_key(**turned) == derivation_key(**KEY)
    assert derivation_key(**KEY) == (
        "667498fac46680dbd859e3efdae0188005c9c0f84f9f321b70412e16767db88c"
    )


def test_import_is_cheap() -> None:
    """A module of recipes loads no array library before it asks for one."""
    script = (
        "import sys, recallfs.recipes.model, recallfs.recipes.registry, recallfs.recipes.worker\n"
        "heavy = {'numpy', 'h5py', 'sqlalchemy', 'blake3', 'time_machine', 'importlib.metadata'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"
