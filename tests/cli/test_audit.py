"""The audit trail, told and exported: all of it, in order, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from conftest import Lab
from recallfs.catalog import audit
from recallfs.cli.app import main
from recallfs.resolve.commit import add_existing


def lines(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    """Ask for the trail as JSON Lines."""
    capfd.readouterr()
    assert main(["catalog", "audit", "--format", "jsonl", *arguments]) == 0
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_who_when_what_why_on_what_evidence(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """A proof, a release, a purge and a revocation are told, oldest first, each with its reason."""
    lab.released("one.h5")
    main(["revoke", "recall://lab/one.h5", "--why", "wrong edge"])
    events = lines(capfd)
    assert [event["action"] for event in events] == ["prove", "release", "purge", "revoke"]
    assert [event["at"] for event in events] == sorted(str(event["at"]) for event in events)
    release, revoke = events[1], events[3]
    assert str(release["evidence"]).startswith("proof:")
    assert "proved exact" in str(release["why"])
    assert release["url"] == "recall://lab/one.h5"
    assert revoke["why"] == "wrong edge"
    assert revoke["evidence"] == release["evidence"]
    assert all(event["who"] for event in events)
    only = lines(capfd, "--action", "purge", "--action", "revoke", "--store", "lab")
    assert [event["action"] for event in only] == ["purge", "revoke"]
    assert lines(capfd, "--since", str(events[2]["at"])) == events[2:]
    assert lines(capfd, "--until", str(events[2]["at"])) == events[:2]
    main(["catalog", "audit"])
    assert "wrong edge" in capfd.readouterr().out


def test_trail_outlives_the_catalog(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """Events that only the file has, or only the catalog, are told once each; so are forgotten."""
    lab.released("one.h5")
    audit.audit_path(lab.store).write_bytes(
        b'torn {"at"\n' + audit.audit_path(lab.store).read_bytes().splitlines(keepends=True)[0]
    )
    assert len(lines(capfd)) == 3, "two of the lines are gone, the catalog has them"
    lab.add("gone.bin", b"x")
    assert main(["forget", "recall://lab/gone.bin", "--yes"]) == 0
    whole = [(event["action"], event["url"]) for event in lines(capfd)]
    lab.store.catalog.close()
    for file in lab.store.control.glob("catalog.sqlite*"):
        file.unlink()
    lab.write_config("# as another process sees it\n")
    rest = [(event["action"], event["url"]) for event in lines(capfd)]
    assert ("forget", "recall://lab/gone.bin") in rest
    assert set(rest) <= set(whole)


def test_csv_runs_nothing(lab: Lab, tmp_path: Path) -> None:
    """Names and reasons that a spreadsheet would take for formulas are texts; all else is as is."""
    names = ["=cmd|' calc'!A0", "+1", "@x", 'a,"b"\nc']
    for name in names:
        (lab.root / name).write_bytes(name.encode())
    add_existing(lab.store, names)
    for name, why in zip(names, ("=HYPERLINK(1)", "-2+3", "@SUM(1)", "plain"), strict=True):
        audit.note(lab.store, "forget", lab.entry(name), "=who@lab", {"why": why})
    out = tmp_path / "audit.csv"
    assert main(["catalog", "audit", "--format", "csv", "--out", str(out)]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(names)
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert [row["why"] for row in rows] == ["'=HYPERLINK(1)", "'-2+3", "'@SUM(1)", "plain"]
    assert rows[3]["url"] == 'recall://lab/a,"b"\nc'
    assert json.loads(rows[0]["details"]) == {"why": "=HYPERLINK(1)"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "yesterday"), "is no date"),
        (("--store", "nolab"), "no store is named"),
        (("--out", "/no/such/folder/x.csv"), "cannot be written"),
    ],
)
def test_bad_words(
    lab: Lab, arguments: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is not clear is refused with one sentence, and nothing is written."""
    assert main(["catalog", "audit", *arguments]) != 0
    told = capfd.readouterr()
    assert said in told.err
    assert "Traceback" not in told.err
