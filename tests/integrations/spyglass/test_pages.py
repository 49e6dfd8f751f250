"""The pages for Spyglass' users are run from their first block to their last."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import page_lab
from conftest import sha256
from pages import Runner, blocks_of, program_folder
from recallfs.integrations import spyglass

pytestmark = [pytest.mark.spyglass, pytest.mark.timeout(1200)]


@pytest.fixture
def runner(bare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """Give what runs pages, where ``/data/spyglass`` is the folder that Spyglass works in."""
    monkeypatch.setenv("RECALLFS_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("PATH", str(program_folder(tmp_path)), prepend=":")
    runner = Runner(tmp_path, monkeypatch.setenv)
    page_lab.prepare(runner, [])
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(tmp_path / "work")
    runner.words[f"{tmp_path}/data/spyglass"] = str(bare.base)
    runner.words[f"{tmp_path}/srv/lab/recipes"] = str(tmp_path / "work")
    runner.words['"recording_id": "..."'] = f'"recording_id": "{bare.key["recording_id"]}"'
    yield runner
    spyglass.uninstall()


def test_spyglass(bare: Any, runner: Runner) -> None:
    """Surveyed, adopted, proved, released, read as ever; then so is a table of the lab's own."""
    place = bare.place()
    before, registered = sha256(place), bare.external()
    try:
        for block in blocks_of("docs/how-to/spyglass.md"):
            runner.run(block)
            if "spyglass.release(recordings)" in block.text:
                assert not place.exists()
                bare.close()
            if "fetch_nwb()" in block.text and not block.title:
                assert "was released" in runner.output
                assert sha256(place) == before
        assert set(registered) <= set(bare.external())
    finally:
        lab_tables = sys.modules.pop("lab_tables", None)
        if lab_tables is not None:
            from spyglass.common import AnalysisNwbfile

            files = lab_tables.Mean.fetch("analysis_file_name")
            lab_tables.schema.drop(force=True)
            (AnalysisNwbfile & [{"analysis_file_name": name} for name in files]).delete_quick()


def test_the_first_terabyte(bare: Any, runner: Runner) -> None:
    """From a full disk to a released file that a drill and the trash bring back."""
    place = bare.place()
    for block in blocks_of("docs/how-to/first-terabyte.md"):
        runner.run(block)
    assert not place.exists()
