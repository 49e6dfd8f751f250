"""Jobs as JSON, the only form in which they reach a worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recallfs.recipes.job import Job


def test_job_survives_json() -> None:
    """A job comes back equal, with its 128-bit seed and names that are not UTF-8."""
    job = Job(
        recipe="made",
        scratch=Path("/s"),
        outputs={"a": Path("/s/\udcff")},
        inputs={"raw": Path("/data/ä b.nwb")},
        parameters={"x": [1, None, {"y": 0.1}]},
        modules=("m",),
        paths=(Path("/code"),),
        seed=2**127 + 1,
        threads=4,
        timeout_s=1.5,
        memory_bytes=10,
        python="/py",
        hide=(Path("/h"),),
        expose=(Path("/h/e"),),
    )
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker starts in another folder, so it gets absolute paths."""
    monkeypatch.chdir(tmp_path)
    data = Job(recipe="made", scratch=Path("s"), outputs={"a": Path("s/../s/x")}).to_json()
    assert data["scratch"] == str(tmp_path / "s")
    assert data["outputs"] == {"a": str(tmp_path / "s" / "x")}
