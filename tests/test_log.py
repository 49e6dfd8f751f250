"""Events for programs that watch, and the audit trail that outlives the catalog."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Lab
from mirrored import released_file
from processes import start
from recallfs import log
from recallfs.catalog import audit
from recallfs.errors import NotRecallableError
from recallfs.resolve.recall import recall
from recallfs.resolve.tree import forget


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Give the logger back as it was."""
    level = logging.getLogger("recallfs").level
    yield
    log.configure(None)
    logging.getLogger("recallfs").setLevel(level)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_nothing_is_printed_unasked(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a level neither events nor failures reach standard error."""
    released_file(lab, "a.bin")
    recall(lab.stores, lab.store, "a.bin")
    log.event("failure", is_failure=True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.namespaces
def test_events_of_a_life(lab: Lab) -> None:
    """What a file goes through is told, one JSON document a line, with its fields."""
    place = lab.base / "log.jsonl"
    lab.environment = {
        "RECALLFS_LOG__LEVEL": "info",
        "RECALLFS_LOG__FORMAT": "json",
        "RECALLFS_LOG__FILE": str(place),
    }
    lab.write_raw()
    url = "recall://lab/d.h5"
    lab.cli("run", "double", "-o", url, "-i", "raw=recall://lab/raw.h5")
    lab.cli("prove", url)
    lab.cli("release", url, "--yes", "--hold", "0s", "--max-skeleton", "1.0")
    lab.cli("get", url)
    lab.cli("forget", url, "--yes")
    events = read(place)
    assert [item["event"] for item in events] == [
        "recompute",
        "recompute",
        "prove",
        "release",
        "purge",
        "recompute",
        "fetch",
        "recall",
        "forget",
    ]
    recalled = events[-2]
    assert recalled["store"] == "lab"
    assert recalled["path"] == "d.h5"
    assert recalled["source"] == "recompute"
    assert recalled["seconds"] > 0
    assert recalled["bytes"] > 0
    assert recalled["level"] == "info"


def test_failures_are_warnings(lab: Lab) -> None:
    """At the level 'warning' only failures are told, with the kind of error."""
    released_file(lab, "a.bin")
    place = lab.base / "log.jsonl"
    lab.write_config(f'[log]\nlevel = "warning"\nformat = "json"\nfile = "{place}"\n')
    lab.cli("get", "recall://lab/a.bin", check=False)
    lab.write_config(
        f'[[sources.mirror]]\nname = "m"\nurl = "file://{lab.base}/mirror-of-nothing"\n'
        f'[log]\nlevel = "warning"\nformat = "json"\nfile = "{place}"\n'
    )
    lab.cli("get", "recall://lab/a.bin", check=False)
    told = [(item["event"], item["kind"]) for item in read(place)]
    assert told == [
        ("fetch", "source-unavailable"),
        ("recall-failed", "source-unavailable"),
    ]


def test_passwords_are_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    """Who is named before the host in a URL is not told."""
    log.configure("info")
    log.event("fetch", message="sftp://ana:secret@host/x could not be reached")
    text = capfd.readouterr().err
    assert "secret" not in text
    assert "sftp://***@host/x" in text


def test_a_program_gets_the_fields(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """A handler of one's own sees the facts, not only a line."""
    released_file(lab, "a.bin")
    caplog.set_level("INFO", logger="recallfs")
    recall(lab.stores, lab.store, "a.bin")
    (record,) = [item for item in caplog.records if item.getMessage() == "recall"]
    assert record.recallfs["source"] == "mirror:copies"  # type: ignore[attr-defined] # ours


def test_take_over_is_told(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """Taking a lease over from a dead process is an event."""
    from actors import hold_lease_and_staging, wait_for

    released_file(lab, "a.bin")
    ready = lab.base / "ready"
    process = start(hold_lease_and_staging, "lease", "a.bin", str(ready))
    wait_for(ready, process)
    process.kill()
    process.join()
    caplog.set_level("INFO", logger="recallfs")
    recall(lab.stores, lab.store, "a.bin")
    assert "take-over" in [item.getMessage() for item in caplog.records]


def test_audit_trail_outlives_the_catalog(lab: Lab) -> None:
    """After the loss of the catalog the trail is as before, and what was forgotten stays so."""
    for name in ("a.bin", "b.bin"):
        released_file(lab, name, name.encode() * 1000)
    lab.cli("get", "recall://lab/a.bin")
    forget(lab.store, "a.bin")
    before = lab.store.catalog.events()
    assert {event["action"] for event in before} == {"release", "purge", "forget"}
    with audit.audit_path(lab.store).open("a") as file:
        file.write('{"torn": ')
    lab.store.catalog.close()
    for path in (lab.root / ".recall").glob("catalog.sqlite*"):
        path.unlink()
    lab.cli("catalog", "rebuild")
    store = lab.store
    after = store.catalog.events(lab.entry("b.bin").id)
    assert [e["action"] for e in after] == [
        e["action"] for e in before if e["entry_id"] == lab.entry("b.bin").id
    ]
    found = {item["id"] for item in lab.cli_json("doctor")["findings"]}
    assert "sidecar-only-in-vault" not in found
    lab.cli("catalog", "rebuild")
    assert audit.restore(store) == 0


def test_a_recall_that_fails_is_on_the_trail(lab: Lab) -> None:
    """`recall status` learns of it from there."""
    released_file(lab, "a.bin")
    (lab.base / "mirror").rename(lab.base / "away")
    (lab.base / "mirror").mkdir()
    with pytest.raises(NotRecallableError):
        recall(lab.stores, lab.store, "a.bin")
    (line,) = [item for item in read(audit.audit_path(lab.store)) if "failed" in item["action"]]
    assert (line["action"], line["path"]) == ("recall-failed", "a.bin")


def test_importing_sets_nothing_up() -> None:
    """`import recallfs` does not load what touches the logger."""
    code = "import sys, recallfs; sys.exit('recallfs.log' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
