"""The source digest: what changes it, and what does not."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recallfs.errors import InvalidInputError
from recallfs.recipes.model import recipe_of
from recallfs.recipes.source import source_digest

SOURCE = '''
import math
from recallfs.recipes.model import recipe

FACTOR = {"a": 1.5, "b": [1, 2]}
NAMES = {"x", "y"}
COMPUTED = math.sqrt(FACTOR["a"])
UNUSED = 7

class Helper:
    offset = 1
    def shift(self, value):
        return value + self.offset

def scaled(value):
    return Helper().shift(value) * FACTOR["a"] * COMPUTED

def unrelated():
    return 42

@recipe(name="made", version="1", timeout_s=5)
def made(inputs, output, *, gain: float = 1.0):
    """Doc."""
    output.write_text(str(scaled(gain)) + str(sorted(NAMES)))
'''
_numbers = itertools.count()


@pytest.fixture
def digest_of(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that digests the recipe 'made' of a module's source."""

    def digest(source: str) -> str:
        name = f"source_under_test_{next(_numbers)}"
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
            made = recipe_of(module.made)
            assert made is not None
            return made.source_digest
        finally:
            del sys.modules[name]

    return digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("str(scaled(gain))", "repr(scaled(gain))"),
        ("gain: float = 1.0", "gain: float = 2.0"),
        ("Helper().shift(value) *", "Helper().shift(value) +"),
        ("offset = 1", "offset = 2"),
        ('"b": [1, 2]', '"b": [1, 3]'),
        ('NAMES = {"x", "y"}', 'NAMES = {"x", "z"}'),
        ("math.sqrt(FACTOR", "math.cos(FACTOR"),
    ],
)
def test_changes_that_matter_change_it(digest_of: Callable[[str], str], old: str, new: str) -> None:
    """The function, what it calls (transitively) and constants it uses are covered."""
    assert old in SOURCE
    assert digest_of(SOURCE.replace(old, new)) != digest_of(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return 42", "return 43"),
        ("UNUSED = 7", "UNUSED = 8"),
        ("timeout_s=5", "timeout_s=50"),
        ("def unrelated", "\n\n\ndef unrelated"),
        ('FACTOR = {"a": 1.5, "b": [1, 2]}', 'FACTOR = {"a": 1.50, "b": [1,\n  2]}'),
        ('NAMES = {"x", "y"}', 'NAMES = {"y", "x"}'),
        ("\n", "\r\n"),
    ],
)
def test_changes_that_do_not_matter_do_not(
    digest_of: Callable[[str], str], old: str, new: str
) -> None:
    """Unrelated code, limits, layout of constants and line ends leave it as it is."""
    assert old in SOURCE
    assert digest_of(SOURCE.replace(old, new)) == digest_of(SOURCE)


def test_other_decorators_count(digest_of: Callable[[str], str]) -> None:
    """A decorator that changes what the function does is part of its source."""
    wrapped = SOURCE.replace("\ndef made", "\n@twice\ndef made").replace(
        "class Helper", "def twice(function):\n    return function\n\nclass Helper"
    )
    changed = wrapped.replace("    return function\n", "    return (function)\n")
    assert len({digest_of(SOURCE), digest_of(wrapped), digest_of(changed)}) == 3


def test_same_in_another_process(tmp_path: Path, digest_of: Callable[[str], str]) -> None:
    """Hash order of a fresh process does not reach the digest."""
    (tmp_path / "elsewhere.py").write_text(SOURCE)
    script = "import elsewhere; print(elsewhere.made.__recallfs_recipe__.source_digest)"
    for seed in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert printed.stdout.strip() == digest_of(SOURCE)


def test_golden_value(digest_of: Callable[[str], str]) -> None:
    """The digest is on record in derivations, so it must not change with versions of Python."""
    assert digest_of(SOURCE) == ("13933f3b7542b36dd70645f696956fae933c4326293aaa629c7ed5846a252044")


def test_without_source_it_is_refused() -> None:
    """A function whose source cannot be read has no digest, and says what to do."""
    namespace: dict[str, Callable[..., None]] = {}
    exec("def ghost(inputs, output): pass", namespace)  # noqa: S102 - a function without a file
    with pytest.raises(InvalidInputError, match="cannot be read"):
        source_digest(namespace["ghost"])
