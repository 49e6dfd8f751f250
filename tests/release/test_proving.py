"""Campaigns of proofs: resumed, limited, several at a time; and what is kept of failures."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from actors import run_main
from conftest import Lab
from processes import start
from quick_recipes import content
from recallfs.catalog import attempts, records
from recallfs.catalog.rebuild import rebuild
from recallfs.cli.app import main
from recallfs.config import load_config
from recallfs.errors import InvalidInputError
from recallfs.release.proving import Campaign, Terms, Tried, campaign
from recallfs.resolve.binding import adopt
from recallfs.resolve.commit import add_existing
from recallfs.resolve.selection import select


@pytest.fixture
def quick(lab: Lab) -> Lab:
    """Give a lab with quick recipes, three of which run at a time."""
    configure(lab)
    return lab


def configure(lab: Lab, extra: str = "") -> None:
    """Write the configuration anew."""
    lab.write_config("[recall]\nrecomputes = 3\n\n" + extra)
    lab.config.write_text(lab.config.read_text().replace('"lab_recipes"', '"quick_recipes"'))


def put(
    lab: Lab,
    number: int,
    recipe: str = "moody",
    *,
    size: int = 1000,
    mode: int = 0o644,
    **parameters: Any,
) -> str:
    """Put a file into the store as if it came from elsewhere, and adopt it; return its address."""
    url = f"recall://lab/f{number}.bin"
    (lab.root / f"f{number}.bin").write_bytes(content(number, size))
    (lab.root / f"f{number}.bin").chmod(mode)
    given = {"number": number, **parameters, **({"size": size} if size != 1000 else {})}
    adopt(lab.stores, recipe, outputs={"": url}, inputs={}, parameters=given)
    return url


def prove_all(lab: Lab, **terms: Any) -> Campaign:
    """Prove the whole store."""
    found = select(lab.stores, ["recall://lab"])
    return campaign(lab.stores, found, Terms(hiding="auto", **terms))


def fates(done: Campaign) -> dict[str, str]:
    """Return what became of each file, by its path."""
    return {item.entry.path: item.status for item in done.tried}


@pytest.mark.namespaces
def test_a_killed_campaign_goes_on_where_it_was(quick: Lab) -> None:
    """SIGKILL after the second of four: the next one runs the rest only, and cleans up."""
    log, scratch = quick.base / "log", quick.base / "fast"
    scratch.mkdir()
    for number in range(4):
        put(quick, number, "logged", log=str(log), seconds=0.2)
    words = ("prove", "recall://lab", "--hide", "auto", "--scratch", str(scratch))
    process = start(run_main, words)
    give_up = time.monotonic() + 60
    while not log.exists() or log.read_text().count("start") < 3:
        assert process.is_alive()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    process.kill()
    process.join()
    assert list(scratch.iterdir())
    proved = sum(
        bool(records.load(quick.store, quick.entry(f"f{n}.bin").id).proofs) for n in range(4)
    )
    assert proved == 2
    time.sleep(0.3)  # its worker ends with it
    before = log.read_text().count("start")
    done = prove_all(quick, scratch=scratch)
    assert sorted(fates(done).values()) == ["proved", "proved", "there", "there"]
    assert log.read_text().count("start") == before + 2
    assert not list(scratch.iterdir())
    assert set(fates(prove_all(quick)).values()) == {"there"}


@pytest.mark.parametrize("jobs", [1, 3])
def test_enough_is_enough_however_many_run(quick: Lab, jobs: int) -> None:
    """The largest come first, what fails does not count, and the rest is left."""
    mood = quick.base / "mood"
    mood.write_text("wrong")
    for number, size in enumerate((1000, 2000, 3000, 4000)):
        put(quick, number, size=size, mood=str(mood if number == 3 else quick.base / "none"))
    done = prove_all(quick, jobs=jobs, largest_first=True, until_bytes=4500)
    assert fates(done) == {"f3.bin": "failed", "f2.bin": "proved", "f1.bin": "proved"}
    assert [entry.path for _, entry in done.left] == ["f0.bin"]
    done = prove_all(quick, jobs=jobs, until_bytes=4500)
    assert fates(done) == {"f2.bin": "there", "f1.bin": "there"}
    assert len(done.left) == 2


def test_what_fails_in_parallel_and_passes_alone_is_told_as_such(quick: Lab) -> None:
    """A recipe that two runs at once disturb is proved, alone, and the reason is told."""
    folder = quick.base / "shared"
    folder.mkdir()
    for number in range(2):
        put(quick, number, "crowded", folder=str(folder))
    done = prove_all(quick, jobs=2)
    assert fates(done) == {"f0.bin": "proved", "f1.bin": "proved"}
    told = [item.reason for item in done.tried if item.reason]
    assert told
    assert all(
        one.startswith("passes alone, fails in parallel: ") and "the temporary file" in one
        for one in told
    )
    assert list(attempts.failed(quick.store)) == []


def test_a_failure_is_kept_and_shown_until_a_proof(
    quick: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """When, why, the exception and the log's end: through a rebuild, until a proof is made."""
    mood = quick.base / "mood"
    url = put(quick, 1, mood=str(mood), mode=0o600)
    mood.write_text("no signal on channel 7")
    assert main(["prove", url, "--hide", "auto"]) == 60
    kept = quick.store.failure_path(quick.entry("f1.bin").id)
    assert kept.stat().st_mode & 0o077 == 0  # who cannot read the file cannot read its log
    rebuild(quick.store)
    capsys.readouterr()
    assert main(["show", url, "--json"]) == 0
    failure = json.loads(capsys.readouterr().out)["failure"]
    assert (failure["kind"], failure["recipe"]) == ("recipe-failed", "moody")
    assert failure["exception"] == "RuntimeError: no signal on channel 7"
    assert "the probe was unplugged" in failure["log"]
    assert failure["environment_id"]
    assert failure["source_digest"]
    assert not failure["expected"]
    assert main(["show", url]) == 0
    shown = capsys.readouterr().out
    assert "last failure" in shown
    assert "\n\nend of the recipe's log\n  " in shown
    assert "the probe was unplugged" in shown
    assert "\ufffd" not in shown
    assert main(["status"]) == 0
    assert "could not be proved" in capsys.readouterr().out
    mood.unlink()
    assert main(["prove", url, "--hide", "auto"]) == 0
    assert attempts.load(quick.store, quick.entry("f1.bin").id) is None


def test_objects_that_differ_are_kept_with_figures(lab: Lab) -> None:
    """Of a file that differs in one value, the failure names object, place and size."""
    lab.derive("drift.h5", recipe="drifting", drift_file=str(lab.base / "drift"))
    assert main(["prove", "recall://lab/drift.h5", "--hide", "auto", "--max-residual", "0"]) == 50
    failure = attempts.load(lab.store, lab.entry("drift.h5").id)
    assert failure is not None
    (difference,) = failure.objects
    assert (difference["path"], difference["values"]["count"]) == ("/deep/data", 1)


def test_expected_failures_are_passed_over(quick: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """What failed as the configuration expects is not run again, unless that is asked for."""
    mood = quick.base / "mood"
    url = put(quick, 1, mood=str(mood))
    put(quick, 2, mood=str(quick.base / "none"))
    mood.write_text("licence server is away")
    match = "^recipe-failed: .*licence server"
    configure(quick, f'[[expected_failures]]\nmatch = "{match}"\nreason = "no licence"\n')
    assert main(["prove", "recall://lab", "--hide", "auto"]) == 1
    mood.unlink()
    done = prove_all(quick)
    assert fates(done) == {"f1.bin": "expected", "f2.bin": "there"}
    assert [item.reason for item in done.tried if item.status == "expected"] == ["no licence"]
    capsys.readouterr()
    assert main(["prove", "recall://lab", "--hide", "auto", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"expected failure", "proved already"} == {one["status"] for one in document["skipped"]}
    assert main(["prove", url, "--hide", "auto", "--retry-xfail"]) == 0
    assert fates(prove_all(quick)) == {"f1.bin": "there", "f2.bin": "there"}


def test_what_is_expected_is_what_the_configuration_says_now(
    quick: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure from before its pattern was configured counts, one whose pattern is gone not."""
    mood = quick.base / "mood"
    put(quick, 1, mood=str(mood))
    mood.write_text("licence server is away")
    assert fates(prove_all(quick)) == {"f1.bin": "failed"}
    kept = quick.store.failure_path(quick.entry("f1.bin").id).read_bytes()
    for match, reason in (
        ("^recipe-failed: ", "by its kind"),
        ("probe was unplugged", "by its log"),
    ):
        configure(quick, f'[[expected_failures]]\nmatch = "{match}"\nreason = "{reason}"\n')
        (item,) = prove_all(quick).tried
        assert (item.status, item.reason) == ("expected", reason)
        assert main(["show", "recall://lab/f1.bin"]) == 0
        assert reason in capsys.readouterr().out
    assert quick.store.failure_path(quick.entry("f1.bin").id).read_bytes() == kept, "not run"
    configure(quick, '[[expected_failures]]\nmatch = "another"\nreason = "x"\n')
    assert fates(prove_all(quick)) == {"f1.bin": "failed"}


@pytest.mark.parametrize(
    "table",
    [
        'match = "("\nreason = "x"',
        'match = "x"',
        f'match = "{"a" * 501}"\nreason = "x"',
        'match = 3\nreason = "x"',
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused(tmp_path: Path, table: str) -> None:
    """One that does not compile, or has no reason, is named with its place."""
    config = tmp_path / "config.toml"
    config.write_text(f"[[expected_failures]]\n{table}\n")
    with pytest.raises(InvalidInputError, match=r"expected_failures\[0\]") as caught:
        load_config(config)
    assert caught.value.kind == "invalid-config"


def test_a_recipe_that_is_never_the_same_is_unreproducible(quick: Lab) -> None:
    """Of bytes that vary from run to run that is said; of wrong ones that do not, it is not."""
    mood = quick.base / "mood"
    put(quick, 1, mood=str(mood))
    mood.write_text("random")
    (item,) = prove_all(quick).tried
    assert item.error is not None
    assert item.error.kind == "not-repeatable"
    assert "unreproducible: 1 of 1 objects vary between runs (f1.bin)" in str(item.error)
    mood.write_text("wrong")
    (item,) = prove_all(quick).tried
    assert item.error is not None
    assert item.error.kind == "digest-mismatch"
    assert Path(item.error.details["kept"]).read_bytes() == b"wrong" * 10


def test_of_an_hdf5_file_the_objects_that_vary_are_counted(lab: Lab) -> None:
    """Noise far above any residual, other each time, in one of two datasets."""
    cpu = lab.base / "cpu"
    cpu.write_text("another each time")
    lab.derive("noisy.h5", recipe="noisy", cpu_file=str(cpu), noise=50.0)
    (item,) = [one for one in prove_all(lab).tried if one.entry.path == "noisy.h5"]
    assert item.error is not None
    assert item.error.kind == "not-repeatable"
    assert "unreproducible: 1 of 2 objects vary between runs (/lfp/data)" in str(item.error)
    assert item.error.details["varying"] == ["/lfp/data"]


@pytest.mark.namespaces
def test_an_original_that_changes_meanwhile_gets_no_proof(quick: Lab) -> None:
    """It is a conflict; what the recipe wrote was on the scratch disk, and is gone."""
    gate, scratch = quick.base / "gate", quick.base / "fast"
    scratch.mkdir()
    put(quick, 1, "gated", gate=str(gate))
    found: list[Campaign] = []
    thread = threading.Thread(target=lambda: found.append(prove_all(quick, scratch=scratch)))
    thread.start()
    started = Path(f"{gate}.started")
    give_up = time.monotonic() + 30
    while not (started.exists() and started.read_text()):
        assert thread.is_alive()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    (folder,) = scratch.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert Path(started.read_text()).is_relative_to(folder)
    with (quick.root / "f1.bin").open("r+b") as file:
        file.write(b"X")
    gate.touch()
    thread.join()
    (item,) = found[0].tried
    assert item.error is not None
    assert (item.error.kind, item.error.exit_code) == ("dirty", 71)
    assert "changed" in str(item.error)
    assert not records.load(quick.store, item.entry.id).proofs
    assert not list(scratch.iterdir())


def test_a_full_scratch_disk_stops_the_campaign(
    quick: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """One error, no failure on record, nothing half-written; the rest is left for later."""
    mood, scratch = quick.base / "mood", quick.base / "fast"
    scratch.mkdir()
    for number in range(3):
        put(quick, number, mood=str(mood if number == 1 else quick.base / "none"))
    mood.write_text("full")
    words = ["prove", "recall://lab", "--hide", "auto", "--scratch", str(scratch)]
    assert main(words) == 33
    assert capsys.readouterr().err.count("error:") == 1
    done = prove_all(quick, scratch=scratch)
    assert done.stopped is not None
    assert done.stopped.kind == "no-space"
    assert fates(done) == {"f0.bin": "there"}
    assert len(done.left) == 2
    assert list(attempts.failed(quick.store)) == []
    assert not list(scratch.iterdir())
    mood.unlink()
    assert sorted(fates(prove_all(quick)).values()) == ["proved", "proved", "there"]


def test_a_scratch_folder_that_cannot_be_used_is_refused(quick: Lab) -> None:
    """One that is not there, and one in a store."""
    put(quick, 1, mood="none")
    for scratch, kind in ((quick.base / "no", "invalid-path"), (quick.root, "invalid-path")):
        with pytest.raises(InvalidInputError) as caught:
            prove_all(quick, scratch=scratch)
        assert caught.value.kind == kind


def test_a_disk_that_fails_for_one_file_stops_no_campaign(quick: Lab) -> None:
    """What the system refuses is told of that file, as an outage, and is no failure of it."""
    scratch = quick.base / "fast"
    scratch.mkdir()
    for number in range(2):
        put(quick, number, mood="none")
    terms = Terms(hiding="auto", scratch=scratch)
    found = select(quick.stores, ["recall://lab"])

    def unplug(_: Tried) -> None:
        if scratch.exists():
            scratch.rmdir()

    done = campaign(quick.stores, found, terms, told=unplug)
    assert fates(done) == {"f0.bin": "proved", "f1.bin": "failed"}
    (error,) = [item.error for item in done.tried if item.error is not None]
    assert error.kind == "source-unavailable"
    assert str(scratch) in str(error)
    assert list(attempts.failed(quick.store)) == []


def test_an_environment_can_be_chosen(quick: Lab) -> None:
    """By its label; one that is not on record is refused, and proofs in it count as such."""
    put(quick, 1, mood="none")
    (label,) = (one["label"] for one in records.environments(quick.store).values())
    assert fates(prove_all(quick, environment=label)) == {"f1.bin": "proved"}
    assert fates(prove_all(quick, environment=label)) == {"f1.bin": "there"}
    with pytest.raises(InvalidInputError, match="no environment on record is called 'ada_x_99'"):
        prove_all(quick, environment="ada_x_99")


def test_a_proof_of_other_code_is_none_of_the_present_recipe(quick: Lab) -> None:
    """A file that was proved by code which this process does not have is proved anew."""
    modules = quick.base / "modules"
    modules.mkdir()
    source = "import recallfs\n\n@recallfs.recipe(name='own', version='1')\n"
    source += "def own(inputs, output, *, number):\n    output.write_text('a' * number)\n"
    (modules / "own_recipe.py").write_text(source)
    text = quick.config.read_text().replace('["quick_recipes"]', '["own_recipe"]')
    quick.config.write_text(text.replace("paths = [", f'paths = ["{modules}", '))
    (quick.root / "f.bin").write_text("a" * 500)
    parameters = {"number": 500}
    adopt(quick.stores, "own", outputs={"": "recall://lab/f.bin"}, inputs={}, parameters=parameters)
    (modules / "own_recipe.py").write_text(source.replace("'a' * number", "number * 'a'"))
    assert fates(prove_all(quick)) == {"f.bin": "proved"}
    (modules / "own_recipe.py").write_text(source)
    assert fates(prove_all(quick)) == {"f.bin": "proved"}
    assert fates(prove_all(quick)) == {"f.bin": "there"}
    assert fates(prove_all(quick, again=True)) == {"f.bin": "proved"}
    record = records.load(quick.store, quick.entry("f.bin").id)
    first, second, third = (proof.source_digest for proof in record.proofs)
    assert first != second == third


def test_files_without_recipe_are_passed_over(quick: Lab) -> None:
    """They are counted, and are no failure; a single one is refused."""
    put(quick, 1, mood="none")
    (quick.root / "raw.bin").write_bytes(b"raw")
    add_existing(quick.store, ["raw.bin"])
    assert fates(prove_all(quick)) == {"f1.bin": "proved", "raw.bin": "unbound"}
    assert main(["prove", "recall://lab/raw.bin"]) == 76
    assert list(attempts.failed(quick.store)) == []
