"""A recall runs where the file was proved, whoever asks for it; what cannot start bears nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

from conftest import TESTS, Lab, sha256
from recallfs.catalog import records
from recallfs.environment.capture import environment_id
from recallfs.environment.compare import compare
from venvs import make_venv, recall

OTHER = f"{np.__version__.split('.')[0]}.0.99"


def _make(python: Path, path: str) -> None:
    words = ("-o", f"recall://lab/{path}", "-i", "raw=recall://lab/raw.h5")
    done = recall(python, "run", "versioned", *words)
    assert done.returncode == 0, done.stderr


def _prove(python: Path, path: str) -> None:
    done = recall(python, "prove", f"recall://lab/{path}", "--hide", "auto")
    assert done.returncode == 0, done.stderr + done.stdout


def _write_directly(python: Path, raw: Path, output: Path) -> str:
    """Call the recipe past recallfs; return the version of NumPy that it had."""
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); import lab_recipes, numpy; "
        "from pathlib import Path; print(numpy.__version__); "
        f"lab_recipes.versioned({{'raw': Path({str(raw)!r})}}, Path({str(output)!r}))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_recall_runs_where_the_file_was_proved(lab: Lab) -> None:
    """Proved in X, asked for in Y with another NumPy: the original comes, not what Y would make."""
    x = make_venv(lab.base / "X")
    y = make_venv(lab.base / "Y", numpy=OTHER)
    lab.write_raw()
    _make(x, "x.h5")
    _prove(x, "x.h5")
    before = sha256(lab.root / "x.h5")
    words = ("recall://lab/x.h5", "--yes", "--hold", "0s", "--max-skeleton", "1.0")
    assert recall(x, "release", *words).returncode == 0
    assert not (lab.root / "x.h5").exists()
    done = recall(y, "get", "recall://lab/x.h5", "--json")
    assert json.loads(done.stdout)["files"][0]["source"] == "recompute"
    assert sha256(lab.root / "x.h5") == before

    # The same recipe on the same input, made by Y itself, is another file.
    shutil.copyfile(lab.root / "raw.h5", lab.base / "raw.h5")
    assert _write_directly(y, lab.base / "raw.h5", lab.base / "own.h5") == OTHER
    with h5py.File(lab.base / "own.h5") as made, h5py.File(lab.root / "x.h5") as original:
        assert not np.array_equal(made["data"][:], original["data"][:])
    told = lab.cli_json("env", "list")["environments"]
    assert [each["label"].partition("_")[2] for each in told] == ["X_00"]


def test_release_refuses_what_cannot_start(lab: Lab) -> None:
    """An interpreter that is there, but whose packages are gone, bears no release; it is named."""
    x = make_venv(lab.base / "X")
    lab.write_raw()
    _make(x, "x.h5")
    _prove(x, "x.h5")
    next((lab.base / "X").glob("lib/python*/site-packages/rest.pth")).unlink()
    done = lab.cli(
        "release", "recall://lab/x.h5", "--yes", "--max-skeleton", "1.0", "--json", check=False
    )
    assert done.returncode == 1
    decision = json.loads(done.stdout)["decisions"][0]
    assert (decision["verdict"], decision["kind"]) == ("refuse", "environment-mismatch")
    label = next(iter(records.environments(lab.store).values()))["label"]
    assert label in decision["reason"]
    assert "No module named" in decision["reason"]
    assert (lab.root / "x.h5").exists()
    shown = lab.cli_json("env", "show", label)
    assert "No module named" in shown["problem"]
    assert shown["interpreter"] == str(lab.base / "X" / "bin" / "python")
    assert sys.executable != shown["interpreter"]


def test_what_was_proved_elsewhere_is_not_run_here(lab: Lab) -> None:
    """With the interpreter of the proof gone a recall is refused, and says how to have it again."""
    x = make_venv(lab.base / "X")
    lab.write_raw()
    _make(x, "x.h5")
    _prove(x, "x.h5")
    lab.release("x.h5")
    (lab.base / "X").rename(lab.base / "moved")
    done = lab.cli("get", "recall://lab/x.h5", check=False)
    assert done.returncode == 65
    assert "recall env restore" in done.stderr
    assert "takes the original, which is not here" in done.stderr
    (fault,) = (
        each
        for each in lab.cli_json("doctor", check=False)["findings"]
        if each["id"] == "interpreter-gone"
    )
    (label,) = (each["label"] for each in records.environments(lab.store).values())
    assert label in fault["problem"]
    assert not (lab.root / "x.h5").exists()
    (lab.base / "moved").rename(lab.base / "X")
    assert lab.cli_json("get", "recall://lab/x.h5")["files"][0]["source"] == "recompute"


def test_an_environment_that_was_moved_is_found_by_its_new_path(lab: Lab) -> None:
    """A proof in it by path records where it is now, so that released files come back."""
    x = make_venv(lab.base / "X")
    lab.write_raw()
    _make(x, "x.h5")
    (lab.root / "y.txt").write_text("hello" * 5000)
    lab.cli("adopt", "recall://lab/y.txt", "--recipe", "text")
    _prove(x, "x.h5")
    lab.release("x.h5")
    (lab.base / "X").rename(lab.base / "moved")
    assert lab.cli("get", "recall://lab/x.h5", check=False).returncode == 65
    words = ("--env", str(lab.base / "moved"), "--hide", "auto")
    lab.cli("prove", "recall://lab/y.txt", *words)
    kept = records.environments(lab.store).values()
    (moved,) = (each for each in kept if "_X_" in each["label"])
    assert moved["executable"] == str(lab.base / "moved" / "bin" / "python")
    assert lab.cli_json("get", "recall://lab/x.h5")["files"][0]["source"] == "recompute"
    assert lab.cli("verify", "--deep").returncode == 0


def test_environments_are_tried_until_one_matches(lab: Lab) -> None:
    """A file of unknown making is proved where it comes out; what differs elsewhere is told."""
    y = make_venv(lab.base / "Y", numpy=OTHER)
    lab.write_raw()
    _make(y, "y.h5")
    shutil.copyfile(lab.root / "y.h5", lab.root / "z.h5")
    words = ("--recipe", "versioned", "-i", "raw=recall://lab/raw.h5")
    lab.cli("adopt", "recall://lab/z.h5", *words)
    done = lab.cli("prove", "recall://lab/z.h5", "--hide", "auto", check=False)
    assert "was recomputed, but differs" in done.stderr
    told = lab.cli_json("try-environments", "recall://lab/z.h5", "--hide", "auto")
    own, matched = told["tried"]
    assert own["error"]["kind"] in {"digest-mismatch", "residual-too-large"}
    assert matched["label"].partition("_")[2] == "Y_00"
    assert {"what": "numpy", "one": np.__version__, "other": OTHER} in own["differences"]
    assert matched["differences"] == []
    proof = records.load(lab.store, lab.entry("z.h5").id).proofs[-1]
    assert (proof.id, proof.environment_id) == (matched["proof"], matched["environment"])
    # Packages that were changed in place: one interpreter, tried once.
    site = next((lab.base / "Y").glob("lib/python*/site-packages"))
    for about in (site / "numpy").glob("*version.py"):
        about.write_text(about.read_text().replace(OTHER, f"{OTHER}0"))
    (site / f"numpy-{OTHER}.dist-info").rename(site / f"numpy-{OTHER}0.dist-info")
    lab.write_raw("other.h5", seed=1)
    words = ("-o", "recall://lab/w.h5", "-i", "raw=recall://lab/other.h5")
    assert recall(y, "run", "double", *words).returncode == 0
    user = matched["label"].partition("_")[0]
    names = ("--env", f"{user}_Y_01", "--env", f"{user}_Y_00")
    told = lab.cli_json(
        "try-environments", "recall://lab/z.h5", "--hide", "auto", *names, check=False
    )
    assert [each["proof"] for each in told["tried"]] == [None, None]
    assert "changed in place" in told["tried"][1]["error"]["message"]


def test_a_proof_may_run_in_a_named_environment_on_another_disk(lab: Lab) -> None:
    """With --env and --scratch on another disk: proved there and brought back, nothing stays."""
    y = make_venv(lab.base / "Y", numpy=OTHER)
    lab.write_raw()
    _make(y, "y.h5")
    before = sha256(lab.root / "y.h5")
    (label,) = (one["label"] for one in records.environments(lab.store).values())
    here = lab.root.stat().st_dev
    # The tests themselves may work in any of them. Others go through the folder of tests meanwhile.
    places = (Path("/dev") / "shm", Path("/var") / "tmp", TESTS.parent)
    elsewhere = next(place for place in places if place.stat().st_dev != here)
    with tempfile.TemporaryDirectory(dir=elsewhere) as scratch:
        words = ("--env", label, "--scratch", scratch, "--hide", "auto")
        told = lab.cli_json("prove", "recall://lab/y.h5", *words)
        assert [one["url"] for one in told["proved"]] == ["recall://lab/y.h5"], told
        assert not list(Path(scratch).iterdir())
    proof = records.load(lab.store, lab.entry("y.h5").id).proofs[-1]
    assert records.environment(lab.store, proof.environment_id)["executable"] == str(y)
    lab.release("y.h5")
    assert lab.cli_json("get", "recall://lab/y.h5")["files"][0]["source"] == "recompute"
    assert sha256(lab.root / "y.h5") == before


def test_an_unchanged_environment_has_one_label(lab: Lab) -> None:
    """Adoption, seeded and unseeded runs, proofs, and other thread counts tell of one."""
    y = make_venv(lab.base / "Y", numpy=OTHER)
    lab.write_raw()
    (lab.root / "a.txt").write_text("hello" * 4000)
    assert recall(y, "adopt", "recall://lab/a.txt", "--recipe", "text").returncode == 0
    (adopted,) = records.environments(lab.store).values()
    assert (adopted["numpy"], adopted["hdf5"]) == (OTHER, h5py.version.hdf5_version)
    assert adopted["threads"]["BLOSC_NTHREADS"] == "1"
    assert recall(y, "run", "text", "-o", "recall://lab/b.txt", "-p", "words=b").returncode == 0
    _make(y, "y.h5")
    _prove(y, "y.h5")
    lab.config.write_text(lab.config.read_text().replace("[recipes]", "[recipes]\nthreads = 3"))
    words = ("-o", "recall://lab/c.txt", "-p", "words=other")
    assert recall(y.with_name("python3"), "run", "text", *words).returncode == 0
    (kept,) = records.environments(lab.store).values()
    assert kept == adopted
    told = lab.cli_json("env", "list")["environments"]
    assert [each["files"] for each in told] == [4]


def test_records_from_before_are_compared_sensibly(lab: Lab) -> None:
    """Two records of one environment, with and without what was loaded, are tried as one."""
    y = make_venv(lab.base / "Y", numpy=OTHER)
    lab.write_raw()
    _make(y, "y.h5")
    (told,) = records.environments(lab.store).values()
    del told["label"]
    before = {**told, "numpy": None, "hdf5": None, "threads": {}, "variables": {"TZ": "UTC"}}
    assert compare(before, told) == []
    records.save_environment(lab.store, environment_id(before), before)
    shutil.copyfile(lab.root / "raw.h5", lab.root / "z.h5")  # nothing gives that
    words = ("--recipe", "versioned", "-i", "raw=recall://lab/raw.h5")
    assert recall(y, "adopt", "recall://lab/z.h5", *words).returncode == 0
    assert len(records.environments(lab.store)) == 2
    tried = lab.cli_json("try-environments", "recall://lab/z.h5", "--hide", "auto", check=False)[
        "tried"
    ]
    assert [each["error"]["kind"] for each in tried] == ["residual-too-large"]
    assert f"It ran in the environment {tried[0]['label']}." in tried[0]["error"]["message"]


def test_an_environment_may_be_named_by_its_path(lab: Lab) -> None:
    """A folder or an interpreter that nothing ran in is put on record, and the proof runs there."""
    y = make_venv(lab.base / "Y", numpy=OTHER)
    lab.write_raw()
    _write_directly(y, lab.root / "raw.h5", lab.root / "z.h5")
    words = ("--recipe", "versioned", "-i", "raw=recall://lab/raw.h5")
    lab.cli("adopt", "recall://lab/z.h5", *words)
    failed = lab.cli("prove", "recall://lab/z.h5", "--hide", "auto", check=False)
    (own,) = (each["label"] for each in records.environments(lab.store).values())
    assert f"It ran in the environment {own}." in failed.stderr
    (lab.base / "bare" / "bin").mkdir(parents=True)
    (lab.base / "bare" / "bin" / "python").symlink_to(sys.executable)
    for place, said in (
        (lab.base / "nowhere", "no environment on record is called"),
        (lab.base / "bare", "recallfs has to be installed beside it"),
    ):
        there = ("--hide", "auto", "--env", str(place))
        assert said in lab.cli("prove", "recall://lab/z.h5", *there, check=False).stderr
    assert len(records.environments(lab.store)) == 1
    told = lab.cli_json(
        "try-environments", "recall://lab/z.h5", "--hide", "auto",
        "--env", own, "--env", str(lab.base / "Y"),
    )  # fmt: skip
    assert [bool(each["proof"]) for each in told["tried"]] == [False, True]
    assert told["tried"][0]["differences"][0] == {
        "what": "numpy", "one": np.__version__, "other": OTHER,
    }  # fmt: skip
    again = ("--again", "--env", str(y), "--hide", "auto")
    lab.cli("prove", "recall://lab/z.h5", *again)
    ran = [one.environment_id for one in records.load(lab.store, lab.entry("z.h5").id).proofs]
    assert ran == [told["tried"][1]["environment"]] * 2
