"""Policies of the configuration: which files they take, and how many."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from conftest import Lab
from recallfs.cli.app import main
from recallfs.config import Floor, load_config
from recallfs.errors import InvalidInputError
from recallfs.release.policies import only_needed
from recallfs.release.policy import Decision, until_free
from recallfs.values import State


def decision(name: str, frees: int, unused_s: float, verdict: str = "release") -> Decision:
    """Make a decision about a file."""
    return Decision(name, verdict, "", "why", "proof:1", frees, 1.0, unused_s)


@pytest.mark.parametrize(
    ("missing", "taken"),
    [(-1, []), (0, []), (1, ["old"]), (100, ["old"]), (101, ["old", "middle"]), (999, "all")],
)
def test_least_recently_used_first(missing: int, taken: list[str] | str) -> None:
    """Only as many are taken as are needed, those first that were unused for longest."""
    files = [decision("new", 50, 1), decision("old", 100, 9), decision("middle", 1, 5),
             decision("kept", 10**9, 99, "refuse")]  # fmt: skip
    chosen = [item.url for item in until_free(files, missing) if item.verdict == "release"]
    assert sorted(chosen) == sorted(["new", "old", "middle"] if taken == "all" else taken)


def with_policy(lab: Lab, text: str) -> None:
    """Give the lab three proved files, in two folders, and a policy."""
    for number, path in enumerate(("a/one.h5", "a/two.h5", "b/three.h5")):
        lab.derive(path, factor=3.0 + number)
        lab.prove(path)
    lab.write_config(f'[release]\nmax_skeleton = 1.0\n\n[[release.policy]]\nname = "p"\n{text}')


def test_policy_takes_what_it_names(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """Pattern and store decide which files, and its own hold how long; the trail says so."""
    with_policy(lab, 'stores = ["lab"]\npattern = "a/*.h5"\nhold = "0s"\nlevel = "exact"\n')
    assert main(["release", "--policy", "p", "--yes"]) == 0
    states = {path: lab.entry(path).state for path in ("a/one.h5", "a/two.h5", "b/three.h5")}
    assert states == {
        "a/one.h5": State.RELEASED,
        "a/two.h5": State.RELEASED,
        "b/three.h5": State.RESIDENT,
    }
    event = lab.store.catalog.events(lab.entry("a/one.h5").id)
    assert next(e for e in event if e["action"] == "release")["details"]["policy"] == "p"
    assert "Freed now" in capfd.readouterr().out
    assert main(["release", "--policy", "p", "--min-size", "1GB"]) == 2
    assert main(["release", "--policy", "q", "--yes"]) != 0
    assert "no release policy is named 'q'; did you mean 'p'" not in capfd.readouterr().out


def test_policy_frees_no_more_than_it_has_to(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """With much to be kept free all go, with little none; what is in the trash counts."""
    with_policy(lab, 'keep_free = "1kB"\n')
    assert main(["release", "--policy", "p", "--yes"]) == 0
    assert lab.entry("a/one.h5").state is State.RESIDENT
    assert "enough is free without it" in capfd.readouterr().out
    names = ("a/one.h5", "a/two.h5", "b/three.h5")
    for age, path in enumerate(names):  # the first was used last
        status = (lab.root / path).stat()
        os.utime(lab.root / path, ns=(time.time_ns() - age * 10**15, status.st_mtime_ns))
    wanted = shutil.disk_usage(lab.root).free + 10**12
    lab.config.write_text(lab.config.read_text().replace('"1kB"', str(wanted)))
    assert main(["release", "--policy", "p", "--yes", "--hold", "9d"]) == 0
    assert {lab.entry(path).state for path in names} == {State.RELEASED}
    # All that it could take is in the trash, and is not taken twice.
    waiting = sum(lab.entry(path).size_bytes for path in names)
    assert lab.store.catalog.trashed()
    fit = only_needed([(lab.store, lab.entry("a/one.h5"), decision("x", 1, 1.0))], Floor(1))
    assert fit[0][2].verdict == "skip"
    floor = Floor(shutil.disk_usage(lab.root).free + waiting + 10**12)
    fit = only_needed([(lab.store, lab.entry("a/one.h5"), decision("x", 1, 1.0))], floor)
    assert fit[0][2].verdict == "release"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "a"\nolder = "3d"', "did you mean 'older_than'"),
        ('older_than = "3d"', "release.policy[0].name must be given"),
        ('name = "a"\nstores = ["lap"]', "'lap' is none; did you mean 'lab'"),
        ('name = "a"\nlevel = "close"', "one of exact, content, tolerance"),
        ('name = "a"\nkeep_free = "x%"', "release.policy[0].keep_free"),
        ('name = "a"\n[[release.policy]]\nname = "a"', "a name of their own"),
    ],
)
def test_bad_policy(tmp_path: Path, text: str, said: str) -> None:
    """What is not clear is refused by key, with the nearest one."""
    path = tmp_path / "config.toml"
    path.write_text(f'[stores.lab]\nroot = "/lab"\n[[release.policy]]\n{text}\n')
    with pytest.raises(InvalidInputError) as refused:
        load_config(path, {})
    assert said in str(refused.value)
    assert refused.value.kind == "invalid-config"
