"""Releases raced by readers, a writer and another data manager: nobody's bytes are lost."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from actors import race
from conftest import Lab, sha256
from processes import start
from recallfs.cli.app import main

pytestmark = pytest.mark.long

SECONDS = 2.0


def test_releases_are_raced(lab: Lab) -> None:
    """Reads give right bytes or a clear error; what was written is kept; the rest comes back."""
    original = {}
    for number in range(5):
        name = f"file-{number}.txt"
        original[name] = sha256(lab.derive(name, "text", words=f"words {number}"))
        lab.prove(name)
    names, written = list(original), list(original)[:3]
    actors = {
        "reader": ("read", names),
        "other reader": ("read", names),
        "writer": ("write", written),
        "manager": ("release", names),
        "other manager": ("apply", names),
    }
    lab.store.catalog.close()
    said = {who: lab.base / f"{who}.json" for who in actors}
    running = [
        start(race, what, files, SECONDS, number, str(said[who]))
        for number, (who, (what, files)) in enumerate(actors.items())
    ]
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0] * len(running)
    told = {who: [tuple(item) for item in json.loads(p.read_text())] for who, p in said.items()}
    for who in ("reader", "other reader"):
        reads = [(name, digest) for name, how, digest in told[who] if how == "done"]
        assert all(digest == original[name] for name, digest in reads if name not in written)
        assert reads
    releases = [item for who in ("manager", "other manager") for item in told[who]]
    assert ("done", "released") in {item[1:] for item in releases}
    everything = b"".join(
        path.read_bytes()
        for path in lab.root.rglob("*")
        if path.is_file() and "catalog.sqlite" not in path.name
    )
    for _, how, text in told["writer"]:
        assert how != "done" or text.encode() in everything, f"{text!r} is lost"
    for name in set(names) - set(written):
        lab.cli("get", f"recall://lab/{name}")
        assert sha256(lab.root / name) == original[name]


def test_who_comes_second_is_told_that_it_is_released(lab: Lab) -> None:
    """Of two that release the same files at once each file is one's, and the other says why."""
    names = [f"file-{number}.txt" for number in range(6)]
    for name in names:
        lab.derive(name, "text", words=f"words of {name}")
        lab.prove(name)
    lab.store.catalog.close()
    words = ("release", "recall://lab/file-*.txt", "--hold", "1d", "--yes")
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: lab.cli(*words, check=False), range(2)))
    said = "".join(each.stdout + each.stderr for each in done)
    assert not [line for line in said.splitlines() if " is gone" in line or " is missing" in line]
    assert not list(lab.root.glob("file-*.txt"))
    assert main(["undo", "recall://lab"]) == 0
    assert sorted(path.name for path in lab.root.glob("file-*.txt")) == names
