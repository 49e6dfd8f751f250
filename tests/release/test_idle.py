"""Files that came back after a release and are not used go again, and nothing else does."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import time_machine

from conftest import Lab
from recallfs.cli.app import main
from recallfs.errors import KINDS
from recallfs.release.pins import set_pin
from recallfs.resolve.recall import recall
from recallfs.resolve.stores import rebuild_catalog

CAME_BACK = "recall://lab/derived.h5"


def idle(
    capfd: pytest.CaptureFixture[str], *words: str, days: float, code: int = 0
) -> dict[str, Any]:
    """Run ``recall release --idle`` some days from now."""
    capfd.readouterr()
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(days=days)):
        assert main(["release", *words, "--yes", "--json"]) == code
    told: dict[str, Any] = json.loads(capfd.readouterr().out)
    return told


def decided(told: dict[str, Any]) -> dict[str, str]:
    return {item["url"]: item["verdict"] for item in told["decisions"]}


@pytest.fixture
def came_back(lab: Lab) -> Path:
    """Bring one released file back; another was never released, a third is pinned."""
    for path, factor in (("derived.h5", 2.0), ("never.h5", 3.0), ("pinned.h5", 4.0)):
        lab.derive(path, factor=factor)
        lab.prove(path)
    for path in ("derived.h5", "pinned.h5"):
        lab.release(path)
        recall(lab.stores, lab.store, path)
    set_pin(lab.store, lab.entry("pinned.h5"), True)
    return lab.root / "derived.h5"


def test_what_came_back_and_is_idle_goes(
    lab: Lab, came_back: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only the one that was released once, is not pinned, and is unused for so long."""
    assert idle(capfd, "--idle=14d", days=13)["decisions"] == []
    shown = idle(capfd, "--idle=14d", "--dry-run", days=15)
    assert (decided(shown), came_back.exists()) == ({CAME_BACK: "release"}, True)
    lab.write_config('[release]\nidle = "14d"\nmax_skeleton = 1.0\n')
    done = idle(capfd, "--idle", days=15)
    assert [item["url"] for item in done["released"]] == [CAME_BACK]
    assert not came_back.exists()
    assert (lab.root / "never.h5").exists()
    assert (lab.root / "pinned.h5").exists()
    assert idle(capfd, "--idle", days=15)["decisions"] == []


def test_reading_keeps_it(lab: Lab, came_back: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The time of access, as far as the mount keeps it, counts as a use."""
    status = came_back.stat()
    read = datetime.now(timezone.utc) + timedelta(days=10)
    os.utime(came_back, ns=(int(read.timestamp() * 1e9), status.st_mtime_ns))
    told = idle(capfd, "--idle=14d", days=15)
    assert decided(told) == {CAME_BACK: "skip"}
    assert "was used 5 days ago" in told["decisions"][0]["reason"]
    assert decided(idle(capfd, "--idle=14d", "--dry-run", days=25)) == {CAME_BACK: "release"}


def test_evidence_must_still_count(
    lab: Lab, came_back: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With its proof expired it stays, and the command says so."""
    assert lab.entry("derived.h5").path == came_back.name
    told = idle(capfd, "--idle=14d", days=400, code=1)
    assert told["decisions"][0]["kind"] == "unproved"
    assert came_back.exists()


def test_selection_narrows_it(lab: Lab, came_back: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With a selection, only what is in both is looked at."""
    assert came_back.exists()
    assert idle(capfd, "recall://lab/never.h5", "--idle=14d", days=15)["decisions"] == []
    words = ("recall://lab/d*.h5", "--idle=14d", "--dry-run")
    assert decided(idle(capfd, *words, days=15)) == {CAME_BACK: "release"}
    rebuild_catalog(lab.stores, "lab")
    assert decided(idle(capfd, *words, days=15)) == {CAME_BACK: "release"}


@pytest.mark.parametrize("words", [("--idle",), ("--idle=0d",), ("--idle", "recall://lab")])
def test_span_must_be_one(
    lab: Lab, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Without a length of time anywhere, nothing is released, and the sentence says what to do."""
    lab.released()
    lab.cli("get", CAME_BACK)
    assert main(["release", *words, "--yes"]) == KINDS["invalid-input"].exit_code
    assert "--idle" in capfd.readouterr().err
    assert (lab.root / "derived.h5").exists()
