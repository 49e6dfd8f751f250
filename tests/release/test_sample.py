"""Trials of a sample: what could be proved, with nothing recorded; and tables of adopted files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Lab, sha256
from quick_recipes import content
from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.cli.app import main
from recallfs.digest.tally import Tolerance
from recallfs.release.estimate import estimate, groups
from recallfs.release.sample import (
    Candidate,
    Population,
    Sampled,
    draw,
    population_of_entries,
    try_sample,
)
from recallfs.resolve.selection import select


def table(lab: Lab, rows: list[str], name: str = "made.csv") -> Path:
    """Write a list of files, and the configuration of quick recipes."""
    lab.write_config("[recall]\nrecomputes = 2\n")
    text = lab.config.read_text().replace('"lab_recipes"', '"quick_recipes", "lab_recipes"')
    lab.config.write_text(text)
    place = lab.base / name
    place.write_text("recipe,output,parameter.number,parameter.mood,input.raw\n" + "\n".join(rows))
    return place


def state_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Return inode and digest of every file below a folder, SQLite's working files aside."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, sha256(path))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Run a command in this process and read what it prints."""
    capsys.readouterr()
    code = main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.services
def test_a_trial_needs_no_records_and_leaves_none(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of files that nobody catalogued: shares with intervals, reasons, bytes and hours."""
    (lab.base / "mood").write_text("random")
    (lab.root / "input.bin").write_bytes(b"raw")
    rows = []
    for number in range(4):
        (lab.root / f"f{number}.bin").write_bytes(content(number))
        mood = lab.base / ("mood" if number == 3 else "none")
        raw = "recall://lab/input.bin" if number == 0 else ""
        rows.append(f"moody,recall://lab/f{number}.bin,{number},{mood},{raw}")
    batch = table(lab, [*rows, "moody,recall://lab/gone.bin,9,none,"])
    scratch = lab.base / "fast"
    scratch.mkdir()
    _ = lab.store  # what opening a store writes is written
    before = state_of(lab.root)
    words = ("trial", "--batch", str(batch), "--scratch", str(scratch), "--jobs", "2")
    code, document = run_json(capsys, *words)
    assert code == 0
    assert state_of(lab.root) == before
    assert not list(scratch.iterdir())
    assert document["population"] == {"files": 4, "size_bytes": 4000, "left_out": {"not there": 1}}
    everything = document["groups"][0]
    assert (everything["by"], everything["outcomes"]["exact"]["files"]) == ("all", 3)
    assert 0.30 < everything["outcomes"]["exact"]["low"] < 0.31
    assert 0.95 < everything["outcomes"]["exact"]["high"] < 0.96
    assert [group["name"] for group in document["groups"] if group["by"] == "recipe"] == ["moody"]
    (reason,) = document["reasons"]
    assert reason["example"] == "recall://lab/f3.bin"
    assert reason["reason"] == "not-repeatable: other values each time in …"
    assert document["frees_bytes"]["exact"]["expected"] == 3000
    assert document["hours"] > 0
    assert main(["trial", "--batch", str(batch), "--sample", "1", "--seed", "5"]) == 0
    assert "Of 4.0 kB in 4 files, about " in capsys.readouterr().out


@pytest.mark.services
def test_a_trial_of_entries_records_no_proof(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """Levels are told apart, an input elsewhere is found, and the records stay as they are."""
    lab.derive("derived.h5")
    cpu = lab.base / "cpu"
    cpu.write_text("old")
    lab.derive("noisy.h5", recipe="noisy", cpu_file=str(cpu), noise=1e-3)
    cpu.write_text("newer")
    lab.derive("copy.bin", recipe="copycat", original=str(lab.root / "copy.bin"))
    found = select(lab.stores, ["recall://lab"])
    population = population_of_entries(found)
    assert population.left_out == {"no recipe on record": 1}
    before = state_of(lab.root)
    drawn = draw(population, 30, 1)
    caplog.clear()
    with caplog.at_level("INFO", "recallfs"):
        sampled = try_sample(lab.stores, drawn, tolerance=Tolerance(0.1, 0.0))
    assert {record.getMessage() for record in caplog.records} == {"recompute"}
    assert {item.url: item.outcome for item in sampled} == {
        "recall://lab/derived.h5": "exact",
        "recall://lab/noisy.h5": "tolerance",
        "recall://lab/copy.bin": "failed",  # the original was out of its sight
    }
    assert state_of(lab.root) == before
    everything = groups(sampled)[0].outcomes
    assert everything["exact"].share == everything["tolerance"].share == 1 / 3
    guess = estimate(population, sampled, 3600)
    assert guess["hours"] == pytest.approx(1)
    frees = guess["frees_bytes"]
    assert frees["exact"]["expected"] < frees["tolerance"]["expected"] < population.size_bytes


def tried(
    store: Store, run: str, name: str, size: int, seconds: float
) -> tuple[Candidate, Sampled]:
    """Return a file that nobody has, and what came of trying it."""
    item = Candidate(store, (name,), size, derivation_id=run)
    return item, Sampled(item.url, "r", "e", size, "exact", seconds, derivation_id=run)


def test_files_of_one_run_take_its_time_once(lab: Lab) -> None:
    """A folder of a hundred small files is one run, however few of them are drawn."""
    small = [tried(lab.store, "zarr", f"z/{n}", 1000, 4.0) for n in range(100)]
    large = [tried(lab.store, f"{n}", f"{n}.h5", 10**8, 10.0) for n in range(10)]
    population = Population(tuple(item for item, _ in small + large))
    for drawn, low, high in (
        (small[:1], 40, 50),  # eleven runs of 4 s are known, and no more
        (large[:1], 105, 115),
        (small[:3] + large[:2], 100, 110),
    ):
        sampled = [item for _, item in drawn]
        elapsed_s = sum(item.seconds for item in sampled)
        assert low < estimate(population, sampled, elapsed_s)["hours"] * 3600 < high
        at_once = estimate(population, sampled, elapsed_s / 2)["hours"]
        assert at_once == pytest.approx(estimate(population, sampled, elapsed_s)["hours"] / 2)


@pytest.mark.services
def test_what_fails_beside_others_is_tried_alone(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe that two runs at once disturb counts as exact; the table has shares of bytes."""
    lab.write_config("[recall]\nrecomputes = 2\n")
    lab.config.write_text(lab.config.read_text().replace('"lab_recipes"', '"quick_recipes"'))
    shared = lab.base / "shared"
    shared.mkdir()
    lines = []
    for number in range(2):
        (lab.root / f"f{number}.bin").write_bytes(content(number))
        line = {
            "recipe": "crowded",
            "outputs": {"": f"recall://lab/f{number}.bin"},
            "inputs": {},
            "parameters": {"number": number, "folder": str(shared)},
        }
        lines.append(json.dumps(line))
    batch = lab.base / "made.jsonl"
    batch.write_text("\n".join(lines))
    assert main(["trial", "--batch", str(batch), "--jobs", "2"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "2 = 100% (34% to 100%), 100% of bytes" in told
    assert "passes alone, fails in parallel: " in told


@pytest.mark.services
def test_a_folder_is_tried_by_one_run(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """All files of a folder count as one, and its recipe runs once for them."""
    count = lab.base / "count"
    lab.derive("rec", recipe="foldered", count_file=str(count))
    lines = len(count.read_text().splitlines())
    row = {
        "recipe": "foldered",
        "outputs": {"recording/": "recall://lab/rec"},
        "inputs": {"raw": "recall://lab/raw.h5"},
        "parameters": {"count_file": str(count)},
    }
    batch = lab.base / "made.jsonl"
    batch.write_text(json.dumps(row))
    code, document = run_json(capsys, "trial", "--batch", str(batch))
    assert (code, [item["outcome"] for item in document["files"]]) == (0, ["exact"])
    assert len(count.read_text().splitlines()) == lines + 1
    size = sum(path.stat().st_size for path in (lab.root / "rec").rglob("*") if path.is_file())
    assert document["population"]["size_bytes"] == size


def test_the_same_seed_draws_the_same_files(lab: Lab) -> None:
    """A sample is random, and can be drawn again."""
    population = population_of_entries([])
    assert draw(population, 3, 1) == []
    digests = [hashlib.sha256(bytes([n])).hexdigest() for n in range(50)]
    from recallfs.release.sample import Candidate, Population

    store = lab.store
    population = Population(tuple(Candidate(store, (name,), 1) for name in digests))
    one, again, other = (draw(population, 5, seed) for seed in (1, 1, 2))
    assert one == again != other
    assert len({item.paths for item in one}) == 5


def test_a_table_of_files_is_adopted(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines that cannot be bound are told, the others are; the same table goes on with the rest."""
    for number in range(2):
        (lab.root / f"f{number}.bin").write_bytes(content(number))
    rows = [f"moody,recall://lab/f{number}.bin,{number},none," for number in range(3)]
    batch = table(lab, rows)
    code, document = run_json(capsys, "adopt", "--batch", str(batch))
    assert code == 1
    assert [item["status"] for item in document["files"]] == ["bound", "bound", "failed"]
    assert document["files"][2]["error"]["message"].startswith("line 4: recall://lab/f2.bin")
    assert records.load(lab.store, lab.entry("f1.bin").id).derivation("") is not None
    (lab.root / "f2.bin").write_bytes(content(2))
    assert main(["adopt", "--batch", str(batch)]) == 0
    assert "3 lines: 1 bound, 2 bound already." in capsys.readouterr().out
    assert main(["adopt", "f.bin", "--batch", str(batch)]) == 10
    assert main(["adopt", "--recipe", "moody"]) == 2
    batch.write_text("recipe,output\nnobody,recall://lab/f1.bin\n")
    assert main(["adopt", "--batch", str(batch)]) == 10
