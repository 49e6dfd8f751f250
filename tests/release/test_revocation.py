"""Revoking by what proofs rest on: names are those that other commands use, and must be known."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from conftest import Lab
from recallfs.catalog import changes, records
from recallfs.catalog.holder import user_name
from recallfs.cli.app import main
from recallfs.values import now_utc


def proved(lab: Lab, *names: str) -> str:
    """Make and prove files; return the label of the environment that they were proved in."""
    for factor, name in enumerate(names, start=2):
        lab.derive(name, factor=float(factor))
        lab.prove(name)
    (environment,) = records.environments(lab.store).values()
    return str(environment["label"])


def counting(lab: Lab, name: str) -> int:
    """Return how many proofs of a file count."""
    return len(records.load(lab.store, lab.entry(name).id).valid_proofs(now_utc()))


@pytest.mark.parametrize("by", ["label", "digest", "start"])
def test_by_environment(lab: Lab, by: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An environment goes by its label, by its digest and by the start of that."""
    label = proved(lab, "one.h5", "two.h5")
    (digest,) = records.environments(lab.store)
    name = {"label": label, "digest": digest, "start": digest[:12]}[by]
    assert main(["revoke", "--environment", name, "--why", "bad BLAS", "--dry-run"]) == 0
    assert counting(lab, "one.h5") == 1
    capfd.readouterr()
    assert main(["revoke", "--environment", name, "--why", "bad BLAS", "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)["revoked"]) == 2
    assert counting(lab, "one.h5") == counting(lab, "two.h5") == 0
    assert main(["revoke", "--environment", name, "--why", "once more"]) == 0, "nothing is left"


def test_unknown_names_are_errors(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """A recipe or an environment that nothing names is refused, and what there is is told."""
    label = proved(lab, "one.h5")
    assert main(["revoke", "--environment", f"{label}x", "--why", "z"]) == 10
    assert f"no environment on record is called '{label}x'" in capfd.readouterr().err
    assert main(["revoke", "--recipe", "duoble", "--why", "z"]) == 15
    assert "no file was made by the recipe 'duoble'; on record: double." in capfd.readouterr().err
    assert main(["revoke", "recall://lab/one.h5", "--recipe", "duoble", "--why", "z"]) == 15
    assert counting(lab, "one.h5") == 1
    assert main(["revoke", "--recipe", "double", "--why", "wrong edge"]) == 0
    assert counting(lab, "one.h5") == 0


def test_show_says_why_a_proof_does_not_count(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """When it was revoked, by whom and what for; of one that ended, when; nothing of others."""
    proved(lab, "one.h5")
    with changes.edit(lab.store, lab.entry("one.h5").id, "prove") as draft:
        (proof,) = draft.record.proofs
        ended = replace(
            proof, id="e" * 32, made_at="2020-01-01T00:00:00", valid_until="2021-01-01T00:00:00"
        )
        draft.record = replace(draft.record, proofs=(proof, ended))
    assert main(["show", "recall://lab/one.h5"]) == 0
    shown = capfd.readouterr().out.partition("proofs that do not count")[2]
    assert "2021-01-01T00:00:00" in shown
    assert "it ended" in shown
    assert proof.made_at[:19] not in shown
    assert main(["revoke", "recall://lab/one.h5", "--why", "wrong filter edge"]) == 0
    capfd.readouterr()
    assert main(["show", "recall://lab/one.h5"]) == 0
    shown = capfd.readouterr().out.partition("proofs that do not count")[2]
    (line,) = [line for line in shown.splitlines() if line.startswith(proof.made_at[:19])]
    assert line.rstrip().endswith("wrong filter edge")
    assert user_name() in line


def test_environment_of_one_of_two_stores(lab: Lab) -> None:
    """A label that only one of the stores knows selects the proofs of that store."""
    label = proved(lab, "one.h5")
    other = lab.base / "other"
    other.mkdir()
    assert main(["init", str(other), "--name", "other"]) == 0
    lab.write_config(f'[stores.other]\nroot = "{other}"\n')
    assert main(["revoke", "--environment", label, "--why", "bad BLAS"]) == 0
    assert counting(lab, "one.h5") == 0
    assert main(["revoke", "--environment", "nobody_none_99", "--why", "z"]) == 10
