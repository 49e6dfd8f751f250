"""The reference is whole: commands, options, error kinds, public objects."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pages import REPOSITORY
from recallfs.cli.app import program
from recallfs.errors import KINDS


def _leaves(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for each in command.list_commands(context):
        below = command.get_command(context, each)
        assert below is not None
        yield from _leaves(below, f"{name} {each}")


COMMANDS = dict(_leaves(program, "recall"))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_of_each_command_is_documented(name: str) -> None:
    """The page has a section for the command, and a row with a meaning for each option."""
    page = (REPOSITORY / "docs/reference/cli.md").read_text("utf-8")
    section = page.partition(f"# {name}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    assert section.strip()
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, f"{name} {option.opts[0]} has no help"
            name_in_page = (
                rf"^\| `(?:[^|]*[ /,])?{re.escape(option.opts[-1])}(?:[ ,`/][^|]*)?\|(.*)\|$"
            )
            found = re.findall(name_in_page, section.replace("\\|", "/"), re.M)
            assert len(found) == 1, (name, option.opts)
            assert found[0].strip()


def test_each_error_kind_is_documented() -> None:
    """The page of errors has each kind, with its exit code and meaning."""
    page = (REPOSITORY / "docs/reference/errors.md").read_text("utf-8")
    for name, kind in KINDS.items():
        assert f"| `{name}` | {kind.exit_code} | {kind.meaning} |" in page


def test_each_public_object_is_documented() -> None:
    """The checker that `make lint` runs finds all of them documented."""
    script = REPOSITORY / "scripts" / "check-docstrings"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "documented: 100%" in done.stdout


def test_each_page_is_reached_from_the_first() -> None:
    """Links lead from the site's first page, or the README, to every page."""
    docs = REPOSITORY / "docs"
    reached, new = set[Path](), {docs / "index.md", REPOSITORY / "README.md"}
    while new:
        reached |= new
        linked = {
            (page.parent / link).resolve()
            for page in new
            for link in re.findall(r"\]\(([^)#:\s]+\.md)", page.read_text("utf-8"))
        }
        new = {page for page in linked if page.exists()} - reached
    assert [page for page in docs.rglob("*.md") if page not in reached] == []


def test_the_architecture_names_each_layer() -> None:
    """Its table has the layers that imports are checked by, from top to bottom."""
    settings = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    listed = settings.partition("\nlayers = [")[2].partition("]")[0]
    layers = [name for line in re.findall(r'"(.*?)"', listed) for name in line.split(" | ")]
    page = (REPOSITORY / "docs/explanation/architecture.md").read_text("utf-8")
    table = page.partition("| layer |")[2].partition("\n\n")[0]
    told = [name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in row.split(", ")]
    assert sorted(name.strip("`") for name in told) == sorted(set(layers) - {"__main__"})
