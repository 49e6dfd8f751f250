"""Releases raced by readers, a writer and another data manager: nobody's bytes are lost."""

from __future__ import annotations

import json

import pytest

from actors import race
from conftest import Lab, sha256
from processes import start

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
