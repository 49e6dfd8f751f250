"""Every code block of the documentation runs, and prints what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

import page_lab
import recallfs
from pages import SHELL, Runner, blocks_of, needs_of, pages, program_folder
from recallfs.cli.app import main
from recallfs.mounts import read_mounts

pytestmark = pytest.mark.long

GENERATED = ("docs/reference/cli.md", "docs/reference/json.md")
"""Made from the program: run by test_examples.py, and checked in tests/cli/test_schemas.py."""

REASONS = {
    "needs root": 5,
    "installs packages": 6,
    "needs Spyglass and its database": 9,
    "needs SpikeInterface": 4,
    "needs NeuroConv": 1,
    "needs a database server": 2,
    "a line of a crontab": 5,
    "a file for systemd": 1,
    "a notebook": 1,
    "an illustration": 4,
}
"""Why blocks may stay unrun, and how many for each reason."""

ELSEWHERE = {"docs/how-to/recover.md": "tests/test_how_to.py"}
"""Pages whose blocks each need a disaster of their own, and the test that makes them."""

RUN = [page for page in pages() if page not in (*GENERATED, *ELSEWHERE)]


@pytest.mark.parametrize("page", RUN)
def test_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page each block does what it shows."""
    _run(page, tmp_path, monkeypatch, services=False)


@pytest.mark.services
@pytest.mark.parametrize("page", [page for page in RUN if any(b.services for b in blocks_of(page))])
def test_blocks_with_services_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the services that they need, the other blocks of the page run as well."""
    _run(page, tmp_path, monkeypatch, services=True)


def _run(page: str, base: Path, monkeypatch: pytest.MonkeyPatch, *, services: bool) -> None:
    blocks = [
        block for block in blocks_of(page) if not block.not_run and (services or not block.services)
    ]
    monkeypatch.setenv("RECALLFS_CONFIG", str(base / "config.toml"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # of a pytest that a page runs
    runner = Runner(base, monkeypatch.setenv)
    page_lab.prepare(runner, needs_of(page))
    monkeypatch.setenv("PATH", str(program_folder(base)), prepend=":")
    monkeypatch.chdir(base / "work")
    monkeypatch.setenv("HOME", str(base / "work"))
    with page_lab.servers(runner, needs_of(page), monkeypatch):
        try:
            for block in blocks:
                runner.run(block)
        finally:
            recallfs.uninstall()
            for mount in read_mounts():  # what the page mounts last, for its reader to use
                if Path(mount.info.mount_point).is_relative_to(base):
                    main(["unmount", "--lazy", mount.info.mount_point])


def test_each_block_is_run_or_says_why_not() -> None:
    """Languages are known, and blocks that are not run are few, each with a reason of the list."""
    found = dict.fromkeys(REASONS, 0)
    for page in RUN:
        for block in blocks_of(page):
            is_run = block.language in (*SHELL, "python", "toml") or bool(block.title)
            assert is_run or block.not_run, f"{block.place}: what is this block?"
            if block.not_run:
                assert block.not_run in REASONS, f"{block.place}: {block.not_run}"
                found[block.not_run] += 1
    assert {reason: n for reason, n in found.items() if n > REASONS[reason]} == {}


def test_a_wrong_block_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner itself: output that differs, a command that fails, and code that raises."""
    from pages import Block

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
