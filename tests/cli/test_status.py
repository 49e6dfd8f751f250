"""The page that says what a store holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

import pytest

from conftest import Lab
from recallfs.catalog import records, statistics
from recallfs.cli.output import bar
from recallfs.config import ReleaseSettings
from recallfs.release.pins import set_pin
from recallfs.resolve.commit import add_existing

DAY_S = 86_400


@pytest.fixture
def stocked(lab: Lab) -> Lab:
    """Give a store with files in most states, of several ages."""
    lab.write_raw()
    for number, name in enumerate(("purged.h5", "trashed.h5", "proved.h5", "pinned.h5", "new.h5")):
        lab.derive(name, factor=float(number + 3))
        if name != "new.h5":
            lab.prove(name)
    lab.release("purged.h5")
    lab.release("trashed.h5", hold="7d")
    set_pin(lab.store, lab.entry("pinned.h5"), True, "poster")
    for name, days in (("month.bin", 20), ("ancient.bin", 1000)):
        (lab.root / name).write_bytes(name.encode() * 1000)
        os.utime(lab.root / name, (0, time.time() - days * DAY_S))
    add_existing(lab.store, ["month.bin", "ancient.bin"])
    return lab


def test_page_adds_up(stocked: Lab) -> None:
    """States, recipes and ages each add up to all files; what can go is told apart."""
    (page,) = stocked.cli_json("status")["stores"]
    assert {state: item["files"] for state, item in page["states"].items()} == {
        "resident": 6,
        "released": 2,
    }
    recipes = page["recipes"]
    assert {state: item["files"] for state, item in recipes["double"].items()} == {
        "resident": 3,
        "released": 2,
    }
    assert recipes[""]["resident"]["files"] == 3
    total = sum(item["size_bytes"] for item in page["states"].values())
    assert total == sum(i["size_bytes"] for states in recipes.values() for i in states.values())
    ages = {age: item["files"] for age, item in page["last_used"].items()}
    assert ages == {"week": 4, "month": 1, "quarter": 0, "year": 0, "older": 1}
    sizes = {name: stocked.entry(name).size_bytes for name in ("proved.h5", "trashed.h5", "new.h5")}
    assert page["releasable"] == {"files": 1, "size_bytes": sizes["proved.h5"]}
    assert page["derived_and_unproved"] == {"files": 1, "size_bytes": sizes["new.h5"]}
    assert (page["in_trash"]["files"], page["in_trash"]["due"]["files"]) == (1, 0)
    assert page["in_trash"]["size_bytes"] == sizes["trashed.h5"]
    control = stocked.root / ".recall"
    for part, folder in (("sidecars", "entries"), ("skeletons", "skeletons")):
        files = [path for path in (control / folder).rglob("*") if path.is_file()]
        assert page["kept"][f"{part}_bytes"] == sum(path.stat().st_size for path in files)
    assert not page["kept"]["is_estimate"]


def test_what_keeps_too_much_cannot_be_released(lab: Lab) -> None:
    """A file whose skeleton is above the limit is not counted, as `recall release` refuses it."""
    lab.write_raw()
    lab.derive("mid.h5")
    lab.prove("mid.h5")
    entry = lab.entry("mid.h5")
    part = records.load(lab.store, entry.id).kept_bytes / entry.size_bytes
    for limit, files, verdict in ((part / 2, 0, "refuse"), (part * 2, 1, "release")):
        lab.write_config(f"[release]\nmax_skeleton = {limit:.6f}\n")
        (page,) = lab.cli_json("status")["stores"]
        assert page["releasable"] == {"files": files, "size_bytes": files * entry.size_bytes}
        planned = lab.cli_json("release", "recall://lab/mid.h5", "--dry-run", check=False)
        assert [decision["verdict"] for decision in planned["decisions"]] == [verdict]


def test_recalls_and_failures_of_late(stocked: Lab) -> None:
    """What recalls cost in the last week is told, and what failed."""
    stocked.cli("get", "recall://lab/purged.h5", "recall://lab/trashed.h5")
    (stocked.root / "month.bin").write_bytes(b"changed")
    stocked.cli("prove", "recall://lab/month.bin", check=False)
    (page,) = stocked.cli_json("status")["stores"]
    assert {item["source"]: item["files"] for item in page["recalls_lately"]} == {
        "recompute": 1,
        "trash": 1,
    }
    (failure,) = page["failures_lately"]
    assert (failure["what"], failure["url"]) == ("prove-failed", "recall://lab/month.bin")
    shown = stocked.cli("status").stdout
    assert "recalled in 7 days from" in shown
    assert "prove-failed" in shown
    later = datetime.now(timezone.utc) + timedelta(days=1)
    assert not stocked.store.catalog.recall_totals(later.isoformat())


def test_recalled_file_counts_as_used(stocked: Lab) -> None:
    """A file that was written long ago and recalled today was used today."""
    os.utime(stocked.root / "proved.h5", (0, time.time() - 400 * DAY_S))
    now = datetime.now(timezone.utc)
    catalog = stocked.store.catalog
    idle = {path for path, _ in statistics.largest_idle(
        catalog, now + timedelta(days=60), idle=timedelta(days=30), limit=9)}  # fmt: skip
    assert idle == {"proved.h5", "pinned.h5", "new.h5"}
    stocked.cli("get", "recall://lab/purged.h5")
    later = now + timedelta(days=29)
    assert not statistics.largest_idle(catalog, later, idle=timedelta(days=30), limit=9)


def test_one_broken_store_does_not_hide_the_others(lab: Lab) -> None:
    """It is told as broken, the others are shown, and the exit code is 1."""
    (lab.base / "damaged/.recall").mkdir(parents=True)
    (lab.base / "damaged/.recall/store.toml").write_text("format = [")
    lab.write_config(
        f'[stores.away]\nroot = "{lab.base / "nowhere"}"\n'
        f'[stores.damaged]\nroot = "{lab.base / "damaged"}"\n'
    )
    done = lab.cli("status", check=False)
    assert done.returncode == 1
    assert done.stdout.count("cannot be shown") == 2
    assert f"lab  {lab.root}" in done.stdout
    pages = json.loads(lab.cli("status", "--json", check=False).stdout)["stores"]
    assert {page["name"]: "error" in page for page in pages} == {
        "away": True,
        "damaged": True,
        "lab": False,
    }
    assert lab.cli("status", "lab").returncode == 0


def test_large_stores_are_measured_by_a_part(lab: Lab) -> None:
    """Above a few thousand sidecars the sum is judged from some, and said to be an estimate."""
    from recallfs.cli.overview import gather

    for shard in range(256):
        folder = lab.root / ".recall/entries" / f"{shard:02x}"
        folder.mkdir()
        for number in range(20):
            (folder / f"{number}.rsc1").write_bytes(b"x" * 100)
    kept = gather(lab.store, ReleaseSettings())["kept"]
    assert kept["is_estimate"]
    assert kept["sidecars_bytes"] == 256 * 20 * 100


def test_bars() -> None:
    """A bar is as long as its part, at least a sliver, and never longer than the whole."""
    assert bar(1, 1, width=4) == "████"
    assert bar(1, 2, width=4) == "██"
    assert bar(1, 10_000, width=4) == "▏"
    assert (bar(0, 1), bar(0, 0)) == ("", "")


def test_page_fits_a_terminal_without_utf8(stocked: Lab) -> None:
    """Where the terminal cannot show bars, they are drawn in plain signs."""
    done = subprocess.run(
        [sys.executable, "-m", "recallfs", "status"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "####" in done.stdout
