"""Release plans: drawn up, approved, applied; and what happens when things changed meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Lab
from recallfs.values import State


def planned(lab: Lab, tmp_path: Path, *more: str) -> Path:
    """Prove two files, one of which rests on the other, and plan their release."""
    lab.derive("one.h5", factor=3.0)
    lab.derive("two.h5", factor=4.0)
    lab.prove("one.h5")
    lab.prove("two.h5")
    path = tmp_path / "plan.json"
    lab.cli("release", "recall://lab/", "--max-skeleton", "1", "--plan-out", str(path), *more,
            check=False)  # fmt: skip
    return path


def test_plan_is_applied_as_approved(lab: Lab, tmp_path: Path) -> None:
    """Planning touches nothing; applying releases those files and no other; again, nothing."""
    path = planned(lab, tmp_path, "--hold", "14d")
    document = json.loads(path.read_text())
    items = {item["url"]: item for item in document["plan"]["files"]}
    assert set(items) == {"recall://lab/one.h5", "recall://lab/two.h5"}
    assert all(item["evidence"].startswith("proof:") for item in items.values())
    assert all(0 < item["frees_bytes"] <= item["size_bytes"] for item in items.values())
    assert all(item["rests_on"] == ["recall://lab/raw.h5"] for item in items.values())
    assert all((item["depth"], item["worst_s"] > 0) == (1, True) for item in items.values())
    assert lab.entry("one.h5").state is State.RESIDENT
    lab.derive("three.h5", factor=5.0)
    lab.prove("three.h5")
    done = lab.cli_json("release", "--apply", str(path), "--yes")
    assert (len(done["released"]), done["freed_bytes"]) == (2, 0)
    assert lab.entry("one.h5").state is lab.entry("two.h5").state is State.RELEASED
    assert lab.entry("three.h5").state is State.RESIDENT
    assert lab.cli_json("release", "--apply", str(path), "--yes")["released"] == []
    lab.cli("undo", "recall://lab/one.h5")
    assert (lab.root / "one.h5").exists()


def test_stale_plan(lab: Lab, tmp_path: Path) -> None:
    """What was changed or lost its proof since the approval stays; the rest is released."""
    path = planned(lab, tmp_path, "--hold", "0s")
    lab.cli("revoke", "recall://lab/one.h5", "--why", "found wrong")
    done = lab.cli_json("release", "--apply", str(path), "--yes", check=False)
    assert [item["url"] for item in done["released"]] == ["recall://lab/two.h5"]
    assert "recall://lab/one.h5 no valid proof" in done["failed"][0]["message"]
    # Proved anew, it rests on another proof than the one that was approved.
    lab.prove("one.h5")
    done = lab.cli_json("release", "--apply", str(path), "--yes", check=False)
    assert "rests on something else" in done["failed"][0]["message"]
    assert lab.entry("one.h5").state is State.RESIDENT


def test_written_over_since(lab: Lab, tmp_path: Path) -> None:
    """A file that is another one by now is left alone."""
    path = planned(lab, tmp_path)
    (lab.root / "one.h5").write_bytes(b"somebody's new data")
    done = lab.cli_json("release", "--apply", str(path), "--yes", check=False)
    assert len(done["failed"]) == 1
    assert (lab.root / "one.h5").read_bytes() == b"somebody's new data"


@pytest.mark.parametrize("how", ["edited", "torn", "empty", "gone", "other"])
def test_bad_plan(lab: Lab, tmp_path: Path, how: str) -> None:
    """An edited or torn plan releases nothing, and one sentence says why."""
    path = planned(lab, tmp_path)
    text = path.read_text()
    if how == "edited":
        path.write_text(text.replace("two.h5", "raw.h5"))
    elif how == "torn":
        path.write_text(text[: len(text) // 2])
    elif how == "empty":
        path.write_text("")
    elif how == "other":
        path.write_text('{"format": "rrp9", "digest": "", "plan": {}}')
    elif how == "gone":
        path.unlink()
    done = lab.cli("release", "--apply", str(path), "--yes", check=False)
    assert done.returncode != 0
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert all(lab.entry(name).state is State.RESIDENT for name in ("one.h5", "two.h5"))


@pytest.mark.parametrize("name", ["files", "size_bytes", "frees_bytes", "expected_s", "depth"])
def test_edited_totals(lab: Lab, tmp_path: Path, name: str) -> None:
    """Totals that are not those of the files are an edit like any other, to whoever approves."""
    path = planned(lab, tmp_path)
    document = json.loads(path.read_text())
    document["totals"][name] += 1
    path.write_text(json.dumps(document))
    done = lab.cli("release", "--apply", str(path), "--yes", check=False)
    assert done.returncode == 51
    assert "was changed since it was made" in done.stderr
    document["totals"] = {}
    path.write_text(json.dumps(document))
    assert lab.cli("release", "--apply", str(path), "--yes", check=False).returncode == 51
    document["totals"] = None
    path.write_text(json.dumps(document))
    assert "is no release plan" in lab.cli("release", "--apply", str(path), check=False).stderr
    assert all(lab.entry(name).state is State.RESIDENT for name in ("one.h5", "two.h5"))
