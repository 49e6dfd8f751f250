"""The examples that commands show in their help are run, in the order of their page."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import page_lab
import page_recipes
from pages import Runner, blocks_of, program_folder
from recallfs.catalog.store import create_store
from recallfs.cli.app import COMMANDS, main
from recallfs.resolve.commit import add_existing

pytestmark = pytest.mark.long

PAGE = "docs/reference/cli.md"

ELSEWHERE = {
    "recall mount": "tests/integrations/mount, and docs/how-to/mount.md",
    "recall unmount": "the same",
    "recall demo": "README.md",
    "recall bench": "tests/bench: it measures for minutes",
    "recall env restore": "tests/environment/test_restore.py: it builds from an index",
    "recall env remove": "tests/environment/test_restore.py",
}
"""Examples that need more than a lab, and what runs such a command."""


def _more(runner: Runner) -> None:
    """Make the files and stores that examples name, beside those of the pages."""
    base = runner.base
    for name in ("lab", "dandi"):
        (base / name).mkdir()
        create_store(base / name, name, vault=base / f"{name}-vault").catalog.close()
        runner.configure(f'[stores.{name}]\nroot = "{base / name}"\n')
    root = base / "data/analysis"
    for number, name in enumerate(("old.nwb", "raw/s1.nwb")):
        page_recipes.write_recording(root / name, 20 + number)
    store = create_store(root, "analysis", vault=base / "nas/vault")
    add_existing(store, ["old.nwb", "raw/s1.nwb"])
    store.catalog.close()
    for name in ("recording.nwb", "before.nwb", "after.nwb"):
        shutil.copy(root / "s1.nwb", name)
    Path("made.csv").write_text(
        "recipe,output,input.raw,parameter.freq_max\n"
        "lfp,recall://analysis/s1_lfp.nwb,recall://analysis/s1.nwb,300\n"
    )


BEFORE: dict[str, Callable[[], object]] = {
    "recall adopt": lambda: main(["get", "recall://analysis/s1_lfp.nwb"]),
    "recall warm": lambda: main(["add", "--from-dandi", "000001", "--to", "recall://dandi/000001"]),
    "recall drill": lambda: main(["forget", "recall://dandi", "recall://lab", "--yes"]),
    "recall undo": lambda: main(["release", "recall://analysis/sub-1", "--yes"]),
}
"""What has to be so when an example begins, and is not after those before it."""


@pytest.mark.namespaces
def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends as it should, and no command is without one."""
    monkeypatch.setenv("RECALLFS_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("PATH", str(program_folder(tmp_path)), prepend=":")
    needs = ["released", "sub-1/lfp.nwb", "s1_lfp.nwb", "dandi"]
    runner = Runner(tmp_path, monkeypatch.setenv)
    page_lab.prepare(runner, needs)
    monkeypatch.chdir(tmp_path / "work")
    _more(runner)
    run = set()
    with page_lab.servers(runner, needs, monkeypatch):
        for block in blocks_of(PAGE):
            run.add(block.text.split()[1])
            if any(block.text.startswith(f"{command} ") for command in ELSEWHERE):
                continue
            for command, act in BEFORE.items():
                if block.text.startswith(f"{command} "):
                    act()
            runner.run(block)
    assert run == set(COMMANDS)
