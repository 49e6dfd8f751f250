"""Loopback archives as the sources of a lab, and files that only they have."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Lab
from recallfs.catalog import changes
from recallfs.resolve.recall import recall
from recallfs.resolve.wish import Recalled
from recallfs.testing.dandi import DandiServer
from recallfs.testing.kachery import KacheryServer
from recallfs.values import State

CONTENT = bytes(range(256)) * 20_000


@contextlib.contextmanager
def kachery_of(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[KacheryServer]:
    """Serve a gateway that the lab, and a client in a process, use."""
    with KacheryServer() as server:
        for name, value in server.environment(lab.base / "kachery").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RECALLFS_SOURCES__KACHERY__ENABLED", "true")
        yield server


@contextlib.contextmanager
def dandi_of(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[DandiServer]:
    """Serve an archive that the lab uses."""
    with DandiServer() as server:
        monkeypatch.setenv("DANDI_INSTANCE", server.api_url)
        monkeypatch.setenv("RECALLFS_SOURCES__DANDI__ENABLED", "true")
        yield server


def gone(lab: Lab, path: str = "a.nwb", content: bytes = CONTENT) -> Path:
    """Catalog a file and drop its bytes; return where a copy of them is."""
    place = lab.add(path, content)
    kept = lab.base / f"kept-{hashlib.sha256(content).hexdigest()[:8]}"
    place.rename(kept)
    with changes.edit(lab.store, lab.entry(path).id, "copies") as draft:
        entry = replace(draft.record.entry, state=State.RELEASED, identity=None)
        draft.record = replace(draft.record, entry=entry)
    return kept


def get(lab: Lab, path: str = "a.nwb") -> Recalled:
    """Recall what is gone."""
    return recall(lab.stores, lab.store, path)


def link(client: Path, path: Path, sha1: str) -> None:
    """Say to the client of a folder, as `kachery_cloud.link_file` does, where a file is."""
    linked = client / "linked_files" / "sha1" / sha1[:2] / sha1[2:4] / sha1[4:6] / sha1
    linked.parent.mkdir(parents=True)
    size = path.stat().st_size
    linked.write_text(json.dumps({"path": str(path), "size": size, "mtime": 0, "sha1": sha1}))


def corrupted(path: Path, at: int = 1000) -> Path:
    """Return a copy of a file with one byte inverted."""
    content = bytearray(path.read_bytes())
    content[at] ^= 255
    other = path.with_name(f"{path.name}-corrupt")
    other.write_bytes(content)
    return other


def in_client(code: str, *arguments: object, check: bool = True) -> str:
    """Run code of a real client in a process of its own and return what it printed last."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DANDI_NO_ET": "1"},
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition("\n")[2]


def token_variable(server: DandiServer) -> str:
    """Return the variable that the token for a loopback archive is taken from."""
    host = server.api_url.partition("://")[2].partition("/")[0]
    return "".join(c if c.isalnum() else "_" for c in host) + "_API_KEY"
