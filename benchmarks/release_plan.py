#!/usr/bin/env python3
"""How long a release plan of many proved files takes to be drawn up; nothing is released.

Each file has a proof; ten are made from each raw one. The files are there, and empty: they are
looked at, never read. The peer is one `os.lstat` of each, which a plan cannot do without.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from recallfs.catalog import records
from recallfs.catalog.sidecar import Incarnation, Record
from recallfs.catalog.store import Store, create_store
from recallfs.config import Config, RecipeSettings, StoreSettings
from recallfs.environment.capture import capture_environment, environment_id
from recallfs.release.assessment import assess_all, collecting_nothing
from recallfs.release.plan import draw_up, write_plan
from recallfs.release.policy import Wanted
from recallfs.resolve.selection import select_listed
from recallfs.resolve.stores import Stores
from recallfs.values import (
    Derivation,
    Entry,
    Identity,
    InputRef,
    Level,
    Metadata,
    OutputRef,
    Proof,
    after,
    now_utc,
)
from recallfs.values import parse_span as span

CLOCK = time.perf_counter
SIZE = 5_000_000_000
"""What each file is said to have: it is the catalog that is measured."""

FILES_OF_A_RAW = 10
RECIPE = '''
import recallfs

@recallfs.recipe(name="lfp", version="1")
def lfp(inputs, output):
    """Do nothing."""
'''


def make(store: Store, files: int, environment: str) -> None:
    """Make raw files, derived files and the records of both."""
    raws = [
        add_file(store, f"raw/ses-{number:06}.bin", number)
        for number in range(files // FILES_OF_A_RAW)
    ]
    batch = list(raws)
    for number in range(files):
        record = add_file(store, f"derived/{number // 100:05}/file-{number:06}.nwb", number + 10**7)
        batch.append(proved(record, raws[number // FILES_OF_A_RAW % len(raws)], environment))
    for start in range(0, len(batch), 5000):
        store.catalog.put(batch[start : start + 5000])


def add_file(store: Store, path: str, number: int) -> Record:
    """Make an empty file and its record."""
    place = store.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    status = place.lstat()
    digest = f"{number:064x}"
    entry = Entry(
        id=digest[32:],
        path=path,
        size_bytes=SIZE,
        sha256=digest,
        sha1=digest[:40],
        metadata=Metadata.from_stat(status),
        created_at=now_utc(),
        identity=Identity.from_stat(status),
    )
    first = Incarnation(digest, SIZE, Level.EXACT, entry.created_at)
    return Record(store.id, entry, b"", (first,))


def proved(record: Record, raw: Record, environment: str) -> Record:
    """Add a derivation and a proof of it."""
    entry, now = record.entry, now_utc()
    derivation = Derivation(
        id=f"d{entry.id[1:]}",
        key=entry.sha256,
        recipe="lfp",
        version="1",
        source_digest="e" * 64,
        parameters={},
        inputs=(InputRef("raw", raw.entry.id, raw.entry.path, raw.entry.sha256),),
        outputs=(OutputRef("", entry.id),),
        seed=None,
        started_at=now,
        threads=4,
        environment_id=environment,
        seconds=12.5,
    )
    proof = Proof(
        id=f"e{entry.id[1:]}",
        entry_id=entry.id,
        derivation_id=derivation.id,
        environment_id=environment,
        level=Level.EXACT,
        method="graft",
        sha256=entry.sha256,
        made_by="somebody@somewhere",
        made_at=now,
        valid_until=after(now, span("1y")),
        seconds=13.0,
    )
    return replace(record, derivations=(derivation,), proofs=(proof,))


def measure(files: int, folder: Path, *, profile: bool) -> dict[str, Any]:
    """Make a store, draw up a plan and take the time of each step."""
    root = folder / "lab"
    (folder / "lab_recipes_of_plan.py").write_text(RECIPE)
    config = Config(
        path=folder / "none.toml",
        stores={"lab": StoreSettings(root)},
        recipes=RecipeSettings(modules=("lab_recipes_of_plan",), paths=(folder,)),
    )
    (folder / "config.toml").write_text(
        f'[stores.lab]\nroot = "{root}"\n'
        f'[recipes]\nmodules = ["lab_recipes_of_plan"]\npaths = ["{folder}"]\n'
    )
    store = create_store(root, "lab", vault=folder / "vault")
    told = capture_environment()
    environment = environment_id(told)
    records.save_environment(store, environment, told)
    make(store, files, environment)
    stores = Stores(config)
    stores.by_name("lab")
    gc.collect()
    run = None
    if profile:
        import cProfile

        run = cProfile.Profile()
        run.enable()
    times = {}
    start = CLOCK()
    with collecting_nothing():
        found = select_listed(stores, ["recall://lab/derived"])
    times["select_s"] = CLOCK() - start
    wanted = Wanted(older_than=None)
    start = CLOCK()
    assessment = assess_all(stores, found, wanted)
    fit = [item for item in assessment.files if item[2].verdict == "release"]
    times["assess_s"] = CLOCK() - start
    assert len(fit) == files, assessment.files[0]
    start = CLOCK()
    plan = draw_up(stores, fit, wanted, known=assessment.evidence)
    times["draw_up_s"] = CLOCK() - start
    start = CLOCK()
    write_plan(plan, folder / "plan.json")
    times["write_s"] = CLOCK() - start
    if run is not None:
        import pstats

        run.disable()
        pstats.Stats(run).sort_stats("tottime").print_stats(30)
    times["command_s"] = command(folder)
    start = CLOCK()
    for _, entry in found:
        os.lstat(f"{root}/{entry.path}")
    times["peer_lstat_s"] = CLOCK() - start
    return {"files": files, "frees_bytes": plan.frees_bytes, **times}


def command(folder: Path) -> float:
    """Return the seconds that `recall release --plan-out` takes, with its own start."""
    words = ["release", "recall://lab/derived", "--plan-out", str(folder / "again.json")]
    start = CLOCK()
    subprocess.run(
        [sys.executable, "-m", "recallfs", *words],
        env={**os.environ, "RECALLFS_CONFIG": str(folder / "config.toml")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return CLOCK() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.files, Path(folder), profile=arguments.profile)
    if arguments.json:
        print(json.dumps(result))
        return
    steps = ("select_s", "assess_s", "draw_up_s", "write_s")
    planned = sum(result[name] for name in steps)
    print(f"plan of {result['files']:,} files, from the catalog to the file: {planned:.2f} s")
    for name in (*steps, "command_s", "peer_lstat_s"):
        print(f"  {name.removesuffix('_s'):12} {result[name]:.2f} s")


if __name__ == "__main__":
    main()
