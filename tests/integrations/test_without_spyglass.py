"""Where Spyglass is not installed, its integration costs nothing and says what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from recallfs.errors import InvalidInputError
from recallfs.integrations import spyglass
from recallfs.integrations.spyglass.database import load_table
from recallfs.recipes.registry import find_recipe


def test_names_load_when_they_are_used() -> None:
    """All that the package offers is there, and nothing else."""
    for name in spyglass.__all__:
        assert getattr(spyglass, name) is not None
    assert not hasattr(spyglass, "no_such_name")


def test_listing_its_recipes_loads_little() -> None:
    """The recipes are found without Spyglass, DataJoint, h5py or a database."""
    assert find_recipe("spyglass.recording-v1").declares
    code = (
        "import sys, recallfs.integrations.spyglass.recipes;"
        "print([name for name in ('datajoint', 'spyglass', 'h5py', 'pynwb', 'sqlalchemy')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_install_says_what_is_missing() -> None:
    """One sentence, and nothing is patched."""
    with pytest.raises(InvalidInputError, match="Spyglass cannot be imported here"):
        spyglass.install()
    assert not spyglass.is_installed()


@pytest.mark.parametrize("name", ["Mean", "lab_tables_that_are_not:Mean", "json:JSONDecoder"])
def test_tables_that_are_none(name: str) -> None:
    """A name that leads to no table is refused in one sentence."""
    with pytest.raises(InvalidInputError):
        load_table(name)
