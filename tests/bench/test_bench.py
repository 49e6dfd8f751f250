"""``recall bench``: a real run by asv, and what is made of its figures."""

from __future__ import annotations

import ast
import dataclasses
import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import recallfs
from recallfs.bench.machine import describe_machine, digest_of
from recallfs.bench.results import Results, newest_whole
from recallfs.bench.suite import changes_since, digest_configuration
from recallfs.bench.table import parse_name
from recallfs.cli.app import main
from recallfs.cli.demo.recording import write_recording
from recallfs.cli.schemas import document, strict
from recallfs.testing.dandi import DandiServer

REPOSITORY = Path(__file__).parents[2]
OURS = "time_remote_file_reading.HDF5PyNWBRecallColdFileReadBenchmark"


def bench(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run the command in this process."""
    code = main(["bench", *map(str, words)])
    out, err = capfd.readouterr()
    return code, out, err


def told(capfd: pytest.CaptureFixture[str], command: str, *words: object) -> Any:
    """Run a command for its JSON, and hold that against its schema."""
    code, out, err = bench(capfd, command, *words, "--json")
    assert code == 0, err
    found = json.loads(out)
    jsonschema.validate(found, strict(document(f"bench {command}")))
    return found


# -- running ------------------------------------------------------------------------------------


def test_a_run_keeps_every_sample(measured: Results, checkout: Path) -> None:
    """What was timed has all its samples, trackers have theirs by name, and failures are named."""
    samples = measured.results[f"{OURS}.time_read_hdf5_pynwb_recall_cold"]
    assert [len(each) for each in samples.values()] == [4, 4]
    assert all(0.001 <= value < 1 for each in samples.values() for value in each)
    tracked = measured.results[f"{OURS}.track_network_read_hdf5_pynwb_recall_cold"]
    assert next(iter(tracked.values())) == {
        "number_of_http_requests": [1],
        "amount_downloaded_in_bytes": [7000],
    }
    assert measured.failed == [
        "time_remote_file_reading.BrokenDownloadBenchmark.time_download_broken"
    ]
    assert not any("Absent" in name for name in measured.results)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert measured.commit_hash == head.stdout.strip()
    assert not (checkout / "benchmarks" / ".asv").exists()


def test_a_run_by_command_says_what_changed(
    checkout: Path,
    measured: Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """From a folder of the checkout one benchmark is run and kept; a change since is told of."""
    measured.configuration = {**measured.configuration, "suite/gone.py": "0" * 64}
    measured.save(tmp_path)
    monkeypatch.chdir(checkout / "benchmarks" / "suite")
    found = told(capfd, "run", "--bench", "Plain", "--results", tmp_path)
    assert found["benchmarks"] == 1
    assert found["changes"] == ["what is measured has changed: suite/gone.py"]
    kept = Results.load(Path(found["results"]))
    assert list(kept.results) == [
        "time_remote_file_reading.PlainContinuousSliceBenchmark.time_slice"
    ]


def test_what_is_published_is_a_run_of_all(measured: Results, tmp_path: Path) -> None:
    """A later run of some benchmarks, or of a real file, does not take its place."""
    assert newest_whole(tmp_path) is None
    measured.save(tmp_path)
    later = ("2099-01-01-00-00-00", "2099-01-02-00-00-00")
    dataclasses.replace(measured, timestamp=later[0], pattern="x").save(tmp_path)
    dataclasses.replace(measured, timestamp=later[1], online="https://a/").save(tmp_path)
    assert newest_whole(tmp_path) == measured


def test_what_is_no_pattern_is_said(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A pattern that cannot be read is told in a sentence, before anything is started."""
    code, out, err = bench(capfd, "run", "--bench", "[", "--results", tmp_path / "results")
    assert (code, out) == (10, "")
    *before, last = err.splitlines()
    assert last.startswith("error: '[' is not a regular expression: ")
    assert all(line.startswith("warning: ") for line in before)  # of peers that are not here


def test_nothing_to_run(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A pattern that finds nothing is an error, and nothing is written."""
    monkeypatch.chdir(checkout)
    code, _, err = bench(capfd, "run", "--bench", "nosuchthing")
    assert code == 10
    assert "asv measured nothing for 'nosuchthing'" in err
    assert not (checkout / "benchmarks" / "results").exists()


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="asv wants a git repository")
def test_a_real_dandiset_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An asset of an archive is read over whatever network there is, by its URL at the API."""
    write_recording(tmp_path / "a.nwb", 1)
    monkeypatch.chdir(REPOSITORY)
    with DandiServer() as dandi:
        dandiset = dandi.add_dandiset()
        asset = dandi.add_asset(dandiset, "sub-1/a.nwb", tmp_path / "a.nwb")
        url = f"{dandi.api_url}/dandisets/{dandiset}/versions/draft/assets/{asset}/"
        pattern = "time_remote_file_reading.*RecallCold"
        found = told(
            capfd, "run", "--online", url, "--bench", pattern, "--results", tmp_path / "results"
        )
        assert any(request.method == "GET" for request in dandi.bucket.log)
    kept = Results.load(Path(found["results"]))
    assert kept.online == url
    assert found["failed"] == []
    assert found["benchmarks"] == 1


@pytest.mark.parametrize("url", ["x", "https://api.dandiarchive.org/api/dandisets/000123/"])
def test_online_wants_an_asset(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What is no asset's URL is refused before anything runs."""
    code, _, err = bench(capfd, "run", "--online", url)
    assert code == 10
    assert f"error: {url} is not a URL such as https://api.dandiarchive.org/" in err


def test_ended_from_outside(checkout: Path, tmp_path: Path) -> None:
    """No process is left where the command is ended half-way, and nothing is kept."""
    results = tmp_path / "results"
    with subprocess.Popen(
        [sys.executable, "-m", "recallfs", "bench", "run", "--results", str(results)],
        cwd=checkout,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Benchmarking" in line:
                break
        process.terminate()
        assert process.wait(30) == 130
        deadline = time.monotonic() + 5
        while left := with_variable(f"TMPDIR={tmp_path}"):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    assert not [place for place in tmp_path.iterdir() if place.name.startswith("recallfs-bench")]
    assert not results.exists()


def with_variable(text: str) -> list[Path]:
    """Return the processes, by their folders, that have it in their environment."""
    folders = Path("/proc").glob("[0-9]*")
    return [folder for folder in folders if text.encode() in variables(folder / "environ")]


def variables(place: Path) -> bytes:
    """Return the environment of a process; nothing of one that is gone, or of somebody else's."""
    try:
        return place.read_bytes()
    except OSError:
        return b""


def test_changes_between_runs(measured: Results, results: Path) -> None:
    """Another computer, other packages and another suite are each named; the same run has none."""
    same, other = Results.load(results), Results.load(results)
    assert changes_since(same, Results.load(results)) == []
    other.machine_id = "1" * 40
    other.environment_id = "2" * 40
    other.environment["packages"]["h5py"] = "0.1"
    other.configuration["asv.conf.json"] = "3" * 64
    said = " ".join(changes_since(same, other))
    for word in ("asv.conf.json", "another one", "h5py"):
        assert word in said


def test_configuration_is_every_file(checkout: Path) -> None:
    """Both asv's configuration and the benchmarks count as what is measured."""
    names = set(digest_configuration(checkout / "benchmarks"))
    assert names == {"asv.conf.json", "suite/__init__.py", "suite/time_remote_file_reading.py"}


# -- machine ------------------------------------------------------------------------------------


def test_machine_is_anonymous(capfd: pytest.CaptureFixture[str]) -> None:
    """The description is the same each time, and names neither host, user nor home."""
    found = told(capfd, "machine")
    assert found["name"] == describe_machine()["name"]
    assert re.fullmatch(r"([A-Z][a-z]+){2}", found["name"])
    text = json.dumps({key: value for key, value in found.items() if key != "cpuinfo"})
    secrets = {socket.gethostname(), str(Path.home())} | ({getpass.getuser()} - {"root"})
    assert not [secret for secret in secrets if len(secret) > 2 and secret in text]
    assert found["psutil"]["total_virtual_memory"] > 10**8
    assert found["builds"]["hdf5"]


# -- report -------------------------------------------------------------------------------------


def test_report(results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The table holds peers against recallfs; the page holds its pictures and needs no more."""
    found = told(capfd, "report", results, "--to", tmp_path / "report")
    rows = {(row["method"], row["case"]): row for row in found["rows"]}
    case = "EcephysSmallTestCase20ms"
    assert rows["recall_cold", case]["ratio"] == 1
    assert rows["other", case]["ratio"] > 1.5
    assert rows["recall_cold", case]["tracked"]["number_of_http_requests"] == 1
    made = {path.name for path in (tmp_path / "report").iterdir()}
    assert made == {"opening.png", "requests.png", "sizes.png", "report.html"}
    for picture in (tmp_path / "report").glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r"(src|href)=['\"](?!data:)", page)
    code, out, _ = bench(capfd, "report", results)
    assert code == 0
    assert "against recall" in out
    assert "other" in out


@pytest.mark.parametrize(
    ("name", "group", "method", "is_time"),
    [
        ("time_download.HDF5CurlDownloadBenchmark.time_download_curl", "download", "curl", True),
        (
            "network_tracking_remote_slicing.RecallColdContinuousSliceBenchmark."
            "track_network_activity_during_slice",
            "remote slicing",
            "recall_cold",
            False,
        ),
        ("storm.StormBenchmark.track_recall_readers", "storm", "recall_readers", False),
    ],
)
def test_names(name: str, group: str, method: str, is_time: bool) -> None:
    """Group and method are told from the names that nwb_benchmarks gives, and from ours."""
    parsed = parse_name(name)
    assert (parsed.group, parsed.method, parsed.is_time) == (group, method, is_time)


# -- export -------------------------------------------------------------------------------------


def parse_as_the_database_does(place: Path) -> list[dict[str, Any]]:
    """Read results as ``Results.safe_load_from_json`` of nwb_benchmarks does, one row a value."""
    data = json.loads(place.read_text())
    assert tuple(map(int, data["database_version"].split("."))) >= (3, 0, 0)
    rows = []
    for benchmark, cases in data["results"].items():
        for case, figures in cases.items():
            parsed = ast.literal_eval(re.sub(r"slice\([^)]+\)", r'"\g<0>"', case))
            named = figures if isinstance(figures, dict) else {"time": figures}
            for variable, values in named.items():
                for value in values if isinstance(values, list) else [float(values)]:
                    rows.append({"benchmark": benchmark, "case": parsed, variable: float(value)})
    return rows


def test_export_is_what_nwb_benchmarks_takes(
    measured: Results, results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its database reads the figures, and finds machine and environment under the ids in them."""
    told(capfd, "export", results, "--to", tmp_path / "out")
    (place,) = (tmp_path / "out" / "results").iterdir()
    data = json.loads(place.read_text())
    assert set(data) == {
        "database_version", "timestamp", "commit_hash", "environment_id", "machine_id", "results"
    }  # fmt: skip
    assert place.name == (
        f"timestamp-{data['timestamp']}_environment-{data['environment_id']}"
        f"_machine-{data['machine_id']}_results.json"
    )
    rows = parse_as_the_database_does(place)
    # What its `BenchmarkDatabase` groups by: the kind of data, the kind of benchmark, the slice.
    for row in rows:
        assert re.match(r"^(Ophys|Ecephys|Icephys)", row["case"]["name"])
        kind, klass, operation = row["benchmark"].split(".")
        assert kind.startswith(("time_", "network_tracking_"))
        assert re.search("(ContinuousSliceBenchmark|FileReadBenchmark|DownloadBenchmark)$", klass)
        assert operation.startswith(("time_", "track_network_"))
    sliced = next(row["case"] for row in rows if "slice_range" in row["case"])
    assert re.match(r"slice\(0, (\d+),", sliced["slice_range"][0])
    assert len([row for row in rows if "time" in row]) == 16
    machine = json.loads(
        (tmp_path / "out" / "machines" / f"machine-{data['machine_id']}.json").read_text()
    )
    assert {"name", "version", "os", "sys", "platform", "psutil", "cuda", "asv"} <= set(machine)
    assert machine["version"] >= "1.4.0"
    assert digest_of(machine) == data["machine_id"]
    environment = json.loads(
        (
            tmp_path / "out" / "environments" / f"environment-{data['environment_id']}.json"
        ).read_text()
    )
    ((preamble, packages),) = environment.items()
    assert preamble == sys.version
    assert {"name", "version", "build"} == set(packages[0])
    assert "h5py" in {package["name"] for package in packages}


# -- compare ------------------------------------------------------------------------------------


def test_compare(measured: Results, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Twice the time is slower, half is faster, the same is the same; few samples say nothing."""
    places = {}
    for name, samples in (
        ("once", [1.0, 1.1, 0.9, 1.0]), ("twice", [2.0, 2.2, 1.8, 2.0]), ("few", [1.0, 1.1])
    ):  # fmt: skip
        run = dataclasses.replace(measured, timestamp=name)
        run.results = {
            benchmark: {case: samples for case, found in cases.items() if isinstance(found, list)}
            for benchmark, cases in measured.results.items()
        }
        places[name] = run.save(tmp_path)

    def verdicts(before: str, after: str) -> set[str]:
        found = told(capfd, "compare", places[before], places[after])
        assert len(found["changes"]) == 4
        for change in found["changes"]:
            assert change["low"] <= change["ratio"] <= change["high"]
        return {change["verdict"] for change in found["changes"]}

    assert verdicts("once", "twice") == {"slower"}
    assert verdicts("twice", "once") == {"faster"}
    assert verdicts("once", "once") == {"same"}
    assert verdicts("few", "twice") == {"too few samples"}
    code, out, _ = bench(capfd, "compare", places["once"], places["twice"])
    assert code == 0
    assert "2.00x" in out


def test_nothing_in_common(
    measured: Results, results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Runs that timed different things are not compared."""
    empty = dataclasses.replace(measured, timestamp="empty", results={}).save(tmp_path)
    code, _, err = bench(capfd, "compare", results, empty)
    assert code == 10
    assert "nothing in common" in err


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "`recall bench run` makes some"),
        ("{", "cannot be read as JSON"),
        ("[1]", "holds no results"),
        ('{"a": 1}', "holds no results"),
        ('{"format": "recallfs-bench", "version": 99}', "of version 99"),
        ('{"format": "recallfs-bench", "version": 1}', "is damaged"),
    ],
)
def test_bad_results(
    content: str | None, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What are no results is refused with a sentence that says what is wrong."""
    place = tmp_path / "results.json"
    if content is not None:
        place.write_text(content)
    code, out, err = bench(capfd, "report", place)
    assert (code, out) == (10, "")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("module", "words"),
    [("asv", ["run"]), ("psutil", ["machine"]), ("matplotlib", ["report", "RESULTS", "--to", "x"])],
)
def test_without_the_extra(
    module: str,
    words: list[str],
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Where a package of the extra is not installed, the error says how it comes."""
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = bench(capfd, *[str(results) if word == "RESULTS" else word for word in words])
    assert code == 10
    assert f"{module} is not installed" in err
    assert "pip install 'recallfs[bench]'" in err


def test_outside_a_checkout(tmp_path: Path) -> None:
    """The installed package alone has no benchmarks, and says so."""
    shutil.copytree(
        Path(recallfs.__file__).parent,
        tmp_path / "site" / "recallfs",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    done = subprocess.run(
        [sys.executable, "-m", "recallfs", "bench", "run"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (10, "")
    assert "go to a checkout of recallfs" in done.stderr
