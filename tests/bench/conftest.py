"""A checkout with a suite of two small benchmarks, and what a real run of it gave."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from recallfs.bench.results import Results
from recallfs.bench.suite import run_suite

SUITE = """
import time

CASE = {"name": "EcephysSmallTestCase20ms", "https_url": "http://a/a.nwb", "size_bytes": 10**6}
SLICED = {**CASE, "object_name": "e", "slice_range": (slice(0, 30), slice(0, 4))}


class Each:
    rounds, repeat, number, warmup_time = 1, 4, 1, 0.0
    param_names = ("case",)
    params = ([CASE],)


class HDF5PyNWBRecallColdFileReadBenchmark(Each):
    params = ([CASE, {**CASE, "name": "EcephysLarge", "size_bytes": 10**7}],)

    def time_read_hdf5_pynwb_recall_cold(self, case):
        time.sleep(0.001)

    def track_network_read_hdf5_pynwb_recall_cold(self, case):
        return {"samples": {"number_of_http_requests": [1], "amount_downloaded_in_bytes": [7000]},
                "number": None}


class HDF5PyNWBOtherFileReadBenchmark(Each):
    def time_read_hdf5_pynwb_other(self, case):
        time.sleep(0.1)


class AbsentContinuousSliceBenchmark(Each):
    params = ([SLICED],)

    def setup(self, case):
        raise NotImplementedError("no such peer")

    def time_slice(self, case):
        pass


class PlainContinuousSliceBenchmark(Each):
    params = ([SLICED],)

    def time_slice(self, case):
        pass


class BrokenDownloadBenchmark(Each):
    def time_download_broken(self, case):
        raise ValueError("broken")
"""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a checkout with a suite, in git."""
    base = tmp_path_factory.mktemp("checkout")
    suite = base / "benchmarks" / "suite"
    suite.mkdir(parents=True)
    (suite / "__init__.py").write_text("")
    (suite / "time_remote_file_reading.py").write_text(SUITE)
    real = Path(__file__).parents[2] / "benchmarks" / "asv.conf.json"
    (base / "benchmarks" / "asv.conf.json").write_text(real.read_text())
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(base)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "suite"]):
        subprocess.run([*git, *words], check=True)
    return base


@pytest.fixture(scope="session")
def measured(checkout: Path) -> Results:
    """Run the suite, once for all tests."""
    return run_suite(checkout / "benchmarks", selection="quick", quiet=True)


@pytest.fixture
def results(measured: Results, tmp_path: Path) -> Path:
    """Give the file of that run."""
    return measured.save(tmp_path / "results")
