"""Every code block of the documentation runs, and prints what is shown."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit

import page_lab
import recallfs
from pages import REPOSITORY, Block, Runner, blocks_of, needs_of, pages, program_folder, unrun
from venvs import told_by_neighbours

pytestmark = pytest.mark.long

GENERATED = ("docs/reference/cli.md", "docs/reference/json.md")
"""Made from the program: run by test_examples.py, and checked in tests/cli/test_schemas.py."""

REASONS = {"installs packages": 5, "an illustration": 3}
"""Why blocks may stay unrun, and how many for each reason."""

DATABASES = {"PostgreSQL", "MariaDB"}
"""Servers of which a page has one at a time."""

ELSEWHERE = {"docs/how-to/recover.md": "tests/test_how_to.py"}
"""Pages whose blocks each need a disaster of their own, and the test that makes them."""

PAGES = [page for page in pages() if page not in (*GENERATED, *ELSEWHERE)]


def _with(note: str) -> dict[str, set[str]]:
    """Return the pages that have blocks with a note, and what those need."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        for block in blocks_of(page):
            if block.note == note:
                found.setdefault(page, set()).add(block.need)
    return found


def _services() -> Iterator[Any]:
    """Yield pages with the services that they are run with."""
    for page, needs in _with("services").items():
        databases = needs & DATABASES
        for database in sorted(databases) or [""]:
            services = needs - databases | {database} - {""}
            yield pytest.param(page, services, id="-".join((page, *sorted(services))))


def _pages() -> Iterator[Any]:
    """Yield pages, marked where originals are hidden while recipes run again."""
    for page in _with(""):
        commands = "\n".join(block.text for block in blocks_of(page))
        hides = re.search(r"recall (prove|trial|try-environments)", commands)
        yield pytest.param(page, marks=[pytest.mark.namespaces] if hides else [])


@pytest.mark.parametrize("page", list(_pages()))
def test_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page each block does what it shows."""
    _run(page, tmp_path, monkeypatch, set())


@pytest.mark.services
@pytest.mark.parametrize(("page", "services"), list(_services()))
def test_blocks_with_services_run(
    page: str,
    services: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """With the services that they need, the other blocks of the page run as well."""
    _run(page, tmp_path, monkeypatch, services, request)


@pytest.mark.services
@pytest.mark.parametrize("page", _with("neighbours"))
def test_blocks_with_neighbours_run(page: str, tmp_path: Path) -> None:
    """Where SpikeInterface, NeuroConv and IPython are, blocks that need them do what they show."""
    assert told_by_neighbours("page", page, folder=tmp_path) == f"{page} was run"


def _run(
    page: str,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    services: set[str],
    request: pytest.FixtureRequest | None = None,
) -> None:
    monkeypatch.setenv("RECALLFS_CONFIG", str(base / "config.toml"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # of a pytest that a page runs
    runner = Runner(base, monkeypatch.setenv)
    page_lab.prepare(runner, needs_of(page))
    monkeypatch.setenv("PATH", str(program_folder(base)), prepend=":")
    monkeypatch.chdir(base / "work")
    monkeypatch.setenv("HOME", str(base / "work"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(page_lab.servers(runner, needs_of(page), monkeypatch))
        for database in services & DATABASES:
            assert request is not None
            server = request.getfixturevalue(database.lower())
            stack.enter_context(page_lab.database(runner, server))
        stack.callback(page_lab.unmount_all, base)  # what the page mounts last, for its reader
        stack.callback(recallfs.uninstall)
        for block in blocks_of(page):
            if not block.note or block.need in services:
                runner.run(block)
    if page_lab.DEFAULT_SOURCES in needs_of(page):
        kept = base / "caches/recallfs"
        assert not kept.exists(), f"{page}: what public services answered stays"


def test_blocks_that_are_not_run_are_few() -> None:
    """Each says why, by a reason of the list."""
    found = {reason: len(blocks) for reason, blocks in unrun(PAGES).items()}
    assert {why: number for why, number in found.items() if number > REASONS.get(why, 0)} == {}


def test_extras_are_there() -> None:
    """What pages tell to install can be: the block itself is not run."""
    extras = tomlkit.parse((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    known = set(extras["project"]["optional-dependencies"])
    for page in PAGES:
        text = (REPOSITORY / page).read_text("utf-8")
        for named in re.findall(r"(?:recallfs|'\.)\[([\w,]+)\]", text):
            assert set(named.split(",")) <= known, page


def test_a_wrong_block_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner itself: output that differs, a command that fails, and code that raises."""
    monkeypatch.setenv("RECALLFS_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.chdir(tmp_path)
    runner = Runner(tmp_path, monkeypatch.setenv)
    runner.run(Block("p", 1, "python", "", "print(6 * 7)"))
    runner.run(Block("p", 2, "text", "output", "4..."))
    for language, title, text in (
        ("text", "output", "43"),
        ("sh", "", "recall show recall://nowhere/a"),
        ("console", "", "$ echo 1\n2"),
        ("python", "", ">>> 1 + 1\n3"),
    ):
        with pytest.raises(AssertionError):
            runner.run(Block("p", 3, language, title, text))
    with pytest.raises(ZeroDivisionError):
        runner.run(Block("p", 4, "python", "", "1 / 0"))
