"""The environment of a worker: what is kept, dropped and set."""

from __future__ import annotations

from pathlib import Path

import pytest

from recallfs.recipes.job import Job
from recallfs.recipes.variables import worker_variables

JOB = Job(
    recipe="made",
    scratch=Path("/scratch"),
    outputs={},
    threads=3,
    started_at="2024-01-01T00:00:00.500000+00:00",
)
SEEDED = Job(recipe="made", scratch=Path("/scratch"), outputs={}, seed=0, started_at=JOB.started_at)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GITHUB_TOKEN", "x"),
        ("DANDI_API_KEY", "x"),
        ("lab_apikey", "x"),
        ("MY_SECRET_THING", "x"),
        ("DB_PASSWORD", "x"),
        ("MYSQL_PASSWD", "x"),
        ("AWS_PROFILE", "x"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "x"),
        ("SSH_AUTH_SOCK", "x"),
        ("DATABASE_URL", "postgresql://user:pass@host/db"),
        ("PYTHONSTARTUP", "/x.py"),
        ("PYTHONINSPECT", "1"),
    ],
)
def test_secrets_are_dropped(name: str, value: str) -> None:
    """What looks like a secret by its name or its value does not reach a recipe."""
    assert name not in worker_variables(JOB, {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/bin"),
        ("HOME", "/home/me"),
        ("HDF5_PLUGIN_PATH", "/plugins"),
        ("LD_LIBRARY_PATH", "/lib"),
        ("CONDA_PREFIX", "/conda"),
        ("DJ_HOST", "db.lab.org"),
        ("HTTP_PROXY", "http://proxy:3128"),
        ("LANG", "C.UTF-8"),
    ],
)
def test_the_rest_is_kept(name: str, value: str) -> None:
    """What recipes find their libraries and data by is passed on as it is."""
    assert worker_variables(JOB, {name: value})[name] == value


def test_relative_python_path_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker starts in another folder, where a relative entry would lead elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert worker_variables(JOB, {"PYTHONPATH": "lib::/abs"})["PYTHONPATH"] == (
        f"{tmp_path}/lib:/abs"
    )


def test_threads_are_set_in_every_run() -> None:
    """Thread counts hold for unseeded runs too; Blosc has one, since more are not repeatable."""
    variables = worker_variables(JOB, {"OMP_NUM_THREADS": "64", "PYTHONHASHSEED": "7"})
    assert variables["OMP_NUM_THREADS"] == variables["MKL_NUM_THREADS"] == "3"
    assert variables["BLOSC_NTHREADS"] == "1"
    assert variables["PYTHONHASHSEED"] == "7"
    assert "SOURCE_DATE_EPOCH" not in variables


def test_seeded_run_fixes_hashes_and_build_time() -> None:
    """A seeded run, also with seed 0, fixes the hash seed and the epoch of its start."""
    variables = worker_variables(SEEDED, {"PYTHONHASHSEED": "random"})
    assert variables["PYTHONHASHSEED"] == "0"
    assert variables["SOURCE_DATE_EPOCH"] == "1704067200"
    assert variables["TMPDIR"] == "/scratch/tmp"
