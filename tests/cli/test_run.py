"""Sweeps, batches and what is kept of what they cost, through the command line."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import Lab
from processes import _main, start

RAW = ("-i", "raw=recall://lab/raw.h5")


def write_batch(lab: Lab, *lines: dict[str, Any]) -> str:
    """Write runs as JSON Lines."""
    path = lab.base / "runs.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return str(path)


def run_line(output: str, source: str = "raw.h5", **parameters: Any) -> dict[str, Any]:
    """Spell a run of `double`."""
    return {
        "recipe": "double",
        "outputs": f"recall://lab/{output}",
        "inputs": {"raw": f"recall://lab/{source}"},
        "parameters": parameters,
    }


def statuses(page: Any) -> list[str]:
    """Return what became of each run."""
    return [run["status"] for run in page["runs"]]


def test_a_sweep_makes_the_product_and_passes_over_what_is_there(lab: Lab) -> None:
    """Two runs at a time make each combination; a wider sweep runs only what is new."""
    lab.write_raw()
    words = ("run", "double", "-o", "recall://lab/x{factor}.h5", *RAW, "--jobs", "2", "-p")
    assert statuses(lab.cli_json(*words, "factor=2,3")) == ["made", "made"]
    page = lab.cli_json(*words, "factor=2,3,4")
    assert (statuses(page), page["there"], page["made"]) == (["there", "there", "made"], 2, 1)
    assert sorted(path.name for path in lab.root.glob("x*.h5")) == ["x2.h5", "x3.h5", "x4.h5"]
    assert page["runs"][2]["cpu_seconds"] > 0
    text = lab.cli(*words, "factor=4,5").stdout
    assert "2 runs: 1 made, 1 there already" in text
    assert "Not written" not in text
    text = lab.cli(
        "run", "double", "-o", "recall://lab/y{factor}.h5", *RAW, "-p", "factor=4,5"
    ).stdout
    named = "Not written: recall://lab/y4.h5: what it would hold is recall://lab/x4.h5"
    assert named in text
    assert not (lab.root / "y4.h5").exists()


def test_outputs_of_a_sweep_must_differ(lab: Lab) -> None:
    """A sweep whose runs would write one file is refused before anything is run."""
    lab.write_raw()
    words = ("run", "double", "-o", "recall://lab/x.h5", *RAW, "-p", "factor=2,3")
    done = lab.cli(*words, check=False)
    assert done.returncode == 10
    assert "is made by factor=2 too" in done.stderr
    assert not (lab.root / "x.h5").exists()


def test_all_lines_are_checked_before_the_first_run(lab: Lab) -> None:
    """One bad line keeps all from running, and every bad one is named."""
    lab.write_raw()
    (lab.root / "taken.h5").write_bytes(b"somebody's")
    batch = write_batch(
        lab,
        run_line("good.h5"),
        run_line("taken.h5", factor=3),
        run_line("b.h5", source="nowhere.h5"),
        run_line("later.h5", source="last.h5"),
        run_line("last.h5", factor=4),
    )
    done = lab.cli("run", "--batch", batch, check=False)
    assert done.returncode == 10
    for said in ("line 2:", "is a file already", "line 3:", "nowhere.h5", "line 4:", "last.h5"):
        assert said in done.stderr
    assert "line 1:" not in done.stderr
    assert "\ufffd" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("  line ")]
    assert [line[:9] for line in told] == ["  line 2:", "  line 3:", "  line 4:"]
    assert not (lab.root / "good.h5").exists()


def test_line_breaks_in_names_make_no_lines(lab: Lab) -> None:
    """What a bad name holds is not told as if it were said by us."""
    lab.write_raw()
    batch = write_batch(lab, run_line("b.h5", source="no\nerror: all is lost"))
    done = lab.cli("run", "--batch", batch, check=False)
    assert done.returncode == 10
    assert "no\ufffderror: all is lost" in done.stderr
    assert sum(line.startswith("error:") for line in done.stderr.splitlines()) == 1


def test_a_failure_holds_back_what_needs_it_and_nothing_else(lab: Lab) -> None:
    """The chain behind a failed run is not run; the rest is, and the exit code tells."""
    lab.write_raw()
    batch = write_batch(
        lab,
        run_line("a.h5"),
        run_line("bad.h5", rows=-1),
        run_line("b.h5", source="a.h5"),
        run_line("c.h5", source="bad.h5"),
        run_line("d.h5", source="c.h5"),
    )
    page = lab.cli_json("run", "--batch", batch, "--jobs", "2", check=False)
    assert statuses(page) == ["made", "failed", "made", "failed", "failed"]
    assert "line 2, which makes one of its inputs" in page["runs"][3]["error"]["message"]
    done = lab.cli("run", "--batch", batch, check=False)
    assert done.returncode == 1
    assert "5 runs: 2 there already, 3 failed" in done.stdout


def counted(lab: Lab, number: int, wait: Path) -> dict[str, Any]:
    """Spell a run that counts its executions, the third of which waits for a file."""
    return {
        "recipe": "waiting",
        "outputs": f"recall://lab/{number}.h5",
        "inputs": {"raw": "recall://lab/raw.h5"},
        "parameters": {
            "count_file": str(lab.base / f"count-{number}"),
            "wait_for": str(wait) if number == 2 else str(lab.root),
        },
    }


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_batch_goes_on_after_a_kill_or_an_interrupt(lab: Lab, number: signal.Signals) -> None:
    """What was done is passed over, what was being done is done again, and all ends well."""
    lab.write_raw()
    gate, third = lab.base / "gate", lab.base / "count-2"
    words = ("run", "--batch", write_batch(lab, *(counted(lab, i, gate) for i in range(4))))
    process = start(_main, words, "", environment=dict(os.environ), output=lab.base / "output")
    end = time.monotonic() + 60
    while not third.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == (130 if number is signal.SIGINT else -number)
    assert not (lab.root / "2.h5").exists()
    gate.touch()
    assert statuses(lab.cli_json(*words)) == ["there", "there", "made", "made"]
    times = [len((lab.base / f"count-{i}").read_text().split()) for i in range(4)]
    assert times == [1, 1, 2, 1]


def test_what_a_run_cost_is_kept(lab: Lab) -> None:
    """Processor time and memory are in the evidence and shown."""
    lab.derive()
    (derivation,) = lab.cli_json("show", "recall://lab/derived.h5")["derivations"]
    assert derivation["cpu_seconds"] > 0
    assert derivation["peak_memory_bytes"] > 10_000_000
    assert "s of CPU" in lab.cli("show", "recall://lab/derived.h5").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Missing argument"),
        (("double",), "Missing option"),
        (("double", "-o", "recall://lab/x{factor}", "-p", "factor=1,,2"), "empty value"),
        (("double", "-o", "recall://lab/x{fact}", "-p", "factor=1,2"), "no parameter of this"),
        (("--batch", "runs.csv", "-p", "a=1"), "leave out -o, -i and -p"),
        (("--batch", "nowhere.csv"), "No such file"),
        (("double", "-o", "recall://lab/x", "--jobs", "0"), "--jobs"),
    ],
)
def test_bad_command_lines(lab: Lab, words: tuple[str, ...], said: str) -> None:
    """Each is refused in a sentence that says what to do."""
    done = lab.cli("run", *words, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
