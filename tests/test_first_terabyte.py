"""The first terabyte, told in files that a lab made without recallfs: from survey to undo.

Every step is a command in a process of its own. The lab's own program makes the files; nothing of
recallfs is imported by it.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Lab, sha256

pytestmark = pytest.mark.long

PIPELINE = '''
"""A lab's own program: filters and bins recordings. It knows nothing of recallfs."""
import uuid
import h5py
import numpy as np

def derive(source, target, factor):
    with h5py.File(source) as raw, h5py.File(target, "w") as out:
        out.attrs["object_id"] = str(uuid.uuid4())
        data = raw["data"][:] * factor
        out.create_dataset("lfp/data", data=data, chunks=(250, 32), compression=4)
        out.create_dataset("lfp/power", data=(data**2).sum(axis=1))
'''

MAKE = (
    PIPELINE
    + """
def main(folder, sessions, factors):
    for session in range(int(sessions)):
        with h5py.File(f"{folder}/s{session}.h5", "w") as raw:
            raw["data"] = np.random.default_rng(session).normal(size=(1000 + session, 32))
        for factor in range(1, int(factors) + 1):
            derive(f"{folder}/s{session}.h5", f"{folder}/s{session}_x{factor}.h5", factor)

import sys
main(*sys.argv[1:])
"""
)

RECIPE = (
    PIPELINE
    + """
import os
import recallfs

@recallfs.recipe(name="lfp", version="1", seeded=False)
def lfp(inputs, output, *, factor: int, log: str):
    with open(log, "a") as lines:
        lines.write(f"{os.getpid()}\\n")
    derive(inputs["raw"], output, factor)
"""
)

BEFORE, AFTER = "(data**2).sum(axis=1)", "(data**2).sum(axis=1) * (1 + 1e-12 * (factor == 3))"


def proved(lab: Lab) -> int:
    """Count the files that have a proof."""
    sidecars = (lab.root / ".recall" / "entries").rglob("*.rsc1")
    return sum(bool(json.loads(path.read_bytes())["body"]["proofs"]) for path in sidecars)


def runs(lab: Lab) -> int:
    """Count how often the recipe was run."""
    log = lab.base / "runs.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def prove_and_be_killed(lab: Lab, after: int) -> int:
    """Begin to prove all, be killed half-way, and return how many were proved by then."""
    command = [sys.executable, "-m", "recallfs", "prove", "recall://lab", "--jobs", "2"]
    process = subprocess.Popen(
        [*command, "--hide", "auto"], stdout=subprocess.DEVNULL, start_new_session=True
    )
    give_up = time.monotonic() + 120
    while runs(lab) < after and time.monotonic() < give_up:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return proved(lab)


@pytest.mark.namespaces
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("sessions", "factors"), [(2, 3), pytest.param(10, 5, marks=pytest.mark.services)]
)
def test_the_first_terabyte(lab: Lab, sessions: int, factors: int) -> None:
    """Surveyed, tried, adopted, proved, released by plan, drilled, revoked, put back: all exact."""
    root, recipes = lab.root, lab.base / "recipes"
    files = factors * sessions
    kept = max(1, sessions // 4)  # some of the sessions are held for longer
    sizes = (str(sessions), str(factors))
    subprocess.run([sys.executable, "-c", MAKE, str(root), *sizes], check=True)
    originals = {path.name: sha256(path) for path in root.glob("*_x*.h5")}
    assert len(originals) == files
    recipes.mkdir()
    (recipes / "lab_lfp.py").write_text(RECIPE)
    lab.config.write_text(
        f'[stores.lab]\nroot = "{root}"\n[recipes]\nmodules = ["lab_lfp"]\npaths = ["{recipes}"]\n'
    )

    # What is there? Nothing is touched by asking.
    survey = lab.cli_json("survey", str(root))
    assert survey["files"] >= files + sessions
    table = lab.base / "made.csv"
    with table.open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["recipe", "output", "input.raw", "parameter.factor", "parameter.log"])
        for name in sorted(originals):
            session, factor = name.removesuffix(".h5").split("_x")
            raw, made = f"recall://lab/{session}.h5", f"recall://lab/{name}"
            write.writerow(["lfp", made, raw, factor, str(lab.base / "runs.log")])

    # Would it work? A sample says so, and records nothing.
    lab.cli("add", *(str(root / f"s{session}.h5") for session in range(sessions)))
    trial = lab.cli_json("trial", "--batch", str(table), "--sample", "3", "--seed", "1")
    assert trial["groups"][0]["outcomes"]["exact"]["files"] == 3
    assert proved(lab) == 0

    adopted = lab.cli_json("adopt", "--batch", str(table))
    assert (adopted["bound"], adopted["failed"]) == (files, 0)

    # Proved, and killed half-way: the same command goes on where it was.
    (lab.base / "runs.log").unlink()
    first = prove_and_be_killed(lab, after=files // 2)
    assert 0 < first < files
    before = runs(lab)
    rest = lab.cli_json("prove", "recall://lab", "--jobs", "2", "--hide", "auto")
    assert len(rest["proved"]) == files - first
    assert runs(lab) - before == files - first
    assert proved(lab) == files

    # Most are planned, approved and go for good, after a hold; the rest is held for two weeks.
    plan, later = lab.base / "plan.json", lab.base / "later.json"
    limit = ("--max-skeleton", "1.0")  # these files are small: metadata is a large part of them
    urls = [
        f"recall://lab/s{session}_x{factor}.h5"
        for session in range(sessions)
        for factor in range(1, factors + 1)
    ]
    many, few = urls[: -factors * kept], urls[-factors * kept :]
    lab.cli("release", *many, "--plan-out", str(plan), "--hold", "1s", *limit)
    lab.cli("release", *few, "--plan-out", str(later), "--hold", "14d", *limit)
    assert len(list(root.glob("*_x*.h5"))) == files
    done = lab.cli_json("release", "--apply", str(plan), "--yes")
    assert len(done["released"]) == len(many)
    assert not done["failed"]
    done = lab.cli_json("release", "--apply", str(later), "--yes")
    assert (len(done["released"]), done["freed_bytes"]) == (len(few), 0)
    time.sleep(1.1)
    lab.cli("release", "--purge")
    held = [path for path in (root / ".recall" / "trash").rglob("*") if path.is_file()]
    assert len(held) == len(few)
    assert not list(root.glob("*_x*.h5"))

    # Do they come back? A drill says so, and keeps nothing.
    drill = lab.cli_json("drill", "--sample", "2", "--seed", "2", *many)
    assert [one["error"] for one in drill["files"]] == [None] * 2
    assert {one["source"] for one in drill["files"]} == {"recompute"}
    assert not list(root.glob("*_x*.h5"))

    # Somebody changes the recipe: the drill names the object, and what it disproved counts no more.
    module = recipes / "lab_lfp.py"
    module.write_text(RECIPE.replace(BEFORE, AFTER))
    spoilt = [url for url in many if "_x3" in url]
    failed = lab.cli_json("drill", "--sample", str(len(spoilt)), *spoilt, check=False)
    assert lab.cli("drill", "--sample", "1", *spoilt, check=False).returncode == 1
    assert len(failed["files"]) == len(spoilt)
    for one in failed["files"]:
        (named,) = one["error"]["details"]["answers"]["recompute"]["details"]["objects"]
        assert (named["path"], named["reason"]) == ("/lfp/power", "values")
        assert one["revoked"]
    get = lab.cli("get", spoilt[0], check=False)
    assert (get.returncode, (root / Path(spoilt[0]).name).exists()) == (50, False)
    assert "/lfp/power" in get.stderr

    # The change is taken back. Proofs made before today's are revoked all the same, and told.
    module.write_text(RECIPE)
    words = ("recall://lab", "--recipe", "lfp", "--why", "the filter was wrong")
    told = lab.cli_json("revoke", *words)["revoked"]
    assert len(told) == files - len(spoilt)
    assert not any(one["is_proved"] for one in told)
    lab.cli("get", *many)
    lab.cli("undo", *few)
    assert {path.name: sha256(path) for path in root.glob("*_x*.h5")} == originals
