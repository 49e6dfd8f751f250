"""The vault alone is enough: drills that look at nothing else, and a store that is put back."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from conftest import Lab, sha256
from recallfs.catalog import records
from recallfs.cli.app import main
from recallfs.errors import ConflictError
from recallfs.release.drill import configured_vault
from recallfs.resolve.tree import move
from recallfs.skeleton.salvage import find_in_vault, put_back
from recallfs.values import State, now_utc


def chain(lab: Lab) -> dict[str, str]:
    """Release a file, and one that is made from it; return their digests from before."""
    first = lab.derive("one.h5")
    lab.prove("one.h5")
    second = lab.derive("two.h5", raw="one.h5", factor=3.0)
    lab.prove("two.h5")
    digests = {"one.h5": sha256(first), "two.h5": sha256(second)}
    lab.release("two.h5")
    config = "[release]\nmax_skeleton = 1.0\n"
    lab.write_config(config)
    assert main(["release", "recall://lab/one.h5", "--yes", "--hold", "0s", "--allow-chain"]) == 0
    return digests


def test_drill_from_the_vault_alone(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """With .recall gone, released files still come back, compared with their sha256."""
    digests = chain(lab)
    lab.store.catalog.close()
    vault = lab.base / "vault"
    (lab.root / ".recall").rename(lab.base / "hidden")
    before = sorted(path.name for path in lab.root.iterdir())
    capfd.readouterr()
    assert main(["drill", f"--from-vault={vault}", "--from", "recompute", "--json"]) == 0
    files = {item["url"]: item for item in json.loads(capfd.readouterr().out)["files"]}
    assert {url.rpartition("/")[2] for url in files} == set(digests)
    assert all(item["level"] == "exact" and item["error"] is None for item in files.values())
    assert sorted(path.name for path in lab.root.iterdir()) == before, "the tree is only read"
    assert main(["drill", f"--from-vault={vault}", "--quiet", "--sample", "1"]) == 0
    assert capfd.readouterr().out == ""


def test_drill_notices_what_the_vault_lacks(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """A vault that lost a skeleton fails its drill, though the store still has it."""
    lab.released("one.h5")
    for skeleton in (lab.base / "vault").glob("*/skeletons/*/*"):
        skeleton.unlink()
    assert main(["drill", "--from-vault", "--quiet"]) == 1
    assert "DID NOT COME BACK" in capfd.readouterr().out
    assert main(["drill", "--quiet"]) == 0
    assert main(["drill", "recall://lab/none/*", "--from-vault"]) == 0
    assert "nothing to drill" in capfd.readouterr().out


def test_store_is_put_back_from_its_vault(lab: Lab) -> None:
    """With .recall lost, one command gives the store its evidence, and files come back."""
    digests = chain(lab)
    identifier = lab.store.id
    lab.store.catalog.close()
    shutil.rmtree(lab.root / ".recall")
    lab.write_config("# as another process sees it\n")
    assert main(["catalog", "rebuild", "lab", f"--from-vault={lab.base / 'vault'}"]) == 0
    assert lab.store.id == identifier
    assert lab.entry("raw.h5").state is State.RESIDENT, "inputs are known too"
    assert main(["get", "recall://lab/two.h5", "recall://lab/one.h5"]) == 0
    assert {name: sha256(lab.root / name) for name in digests} == digests


def test_nothing_is_written_over(lab: Lab) -> None:
    """What the store has stays as it is, and another store's folder is refused."""
    lab.released("one.h5")
    sidecar = lab.store.sidecar_path(lab.entry("one.h5").id)
    sidecar.write_bytes(b"as it was")
    kept = find_in_vault(configured_vault(lab.stores.config, "lab"), "lab")
    assert put_back(kept, lab.root) == 0
    assert sidecar.read_bytes() == b"as it was"
    text = (lab.root / ".recall" / "store.toml").read_text()
    (lab.root / ".recall" / "store.toml").write_text(text.replace(lab.store.id, "f" * 32))
    with pytest.raises(ConflictError, match="a store of its own"):
        put_back(kept, lab.root)


def test_empty_vault_is_told(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """A vault without evidence is an error, as when its disk is not mounted; never a success.

    Nor is it one if the store was put back and knows only that files are released.
    """
    lab.released("one.h5")
    for folder in (lab.base / "vault").iterdir():
        folder.rename(lab.base / folder.name)
    assert main(["drill", "--from-vault", "--quiet"]) == 17
    assert "holds no evidence" in capfd.readouterr().err
    (lab.root / ".recall" / "vault-used").unlink()
    assert main(["drill", "--from-vault", "--quiet"]) == 17
    (lab.root / ".recall").rename(lab.base / "hidden")
    assert main(["drill", "--from-vault", "--quiet"]) == 17


def test_a_store_of_which_nothing_was_released_has_nothing_to_drill(
    lab: Lab, capfd: pytest.CaptureFixture[str]
) -> None:
    """Until the first release a vault is empty, and cron hears nothing.

    Whoever names a vault expects something in it.
    """
    lab.derive()
    assert main(["drill", "recall://lab", "--from-vault", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    assert main(["drill", "--from-vault"]) == 0
    assert "nothing to drill" in capfd.readouterr().out
    assert main(["drill", f"--from-vault={lab.base / 'vault'}", "--quiet"]) == 17


def release_three(lab: Lab) -> None:
    """Make, prove and release three different files."""
    for factor, name in enumerate(("one.h5", "two.h5", "three.h5"), start=2):
        lab.derive(name, factor=float(factor))
        lab.prove(name)
        lab.release(name)


def lose_records(lab: Lab) -> None:
    """Lose .recall, and put the store back from its vault."""
    lab.store.catalog.close()
    shutil.rmtree(lab.root / ".recall")
    lab.write_config("# as another process sees it\n")
    assert main(["catalog", "rebuild", "lab", f"--from-vault={lab.base / 'vault'}"]) == 0


def test_what_changed_after_a_release_is_in_the_vault(lab: Lab) -> None:
    """A revocation, a pin and a new name survive the loss of .recall."""
    release_three(lab)
    lab.cli("revoke", "recall://lab/one.h5", "--why", "wrong filter")
    lab.cli("pin", "recall://lab/two.h5", "--why", "the poster")
    move(lab.store, "three.h5", "renamed.h5")
    assert main(["verify", "recall://lab", "--deep"]) == 0
    lose_records(lab)
    entry = lab.entry("one.h5")
    record = records.load(lab.store, entry.id)
    assert [one.reason for one in record.revocations] == ["wrong filter"]
    assert not record.valid_proofs(now_utc())
    assert records.load(lab.store, lab.entry("two.h5").id).is_pinned
    assert lab.entry("renamed.h5").state is State.RELEASED
    assert lab.store.catalog.entry_at("three.h5") is None
    lab.cli("get", "recall://lab/one.h5")
    refused = lab.cli("release", "recall://lab/one.h5", "--yes", check=False)
    assert refused.returncode == 1
    assert (lab.root / "one.h5").exists(), "a revoked proof lets nothing go"


def test_file_that_was_recalled_loses_its_proof_in_the_vault_too(lab: Lab) -> None:
    """A proof is revoked in the vault even if its file is here again."""
    lab.released("one.h5")
    lab.cli("get", "recall://lab/one.h5")
    lab.cli("revoke", "--recipe", "double", "--why", "wrong filter")
    lose_records(lab)
    record = records.load(lab.store, lab.entry("one.h5").id)
    assert not record.valid_proofs(now_utc())


def test_vault_that_is_not_there_is_warned_of(lab: Lab) -> None:
    """What the vault could not be told is a warning, a mismatch, and mended by the doctor."""
    lab.released("one.h5")
    vault, away = lab.base / "vault", lab.base / "away"
    vault.rename(away)
    done = lab.cli("revoke", "recall://lab/one.h5", "--why", "wrong filter")
    assert "1 proof" in done.stdout
    assert "warning: what the vault has of recall://lab/one.h5 does not say" in done.stderr
    assert "Warning:" not in done.stderr, "no line of Python's own"
    away.rename(vault)
    found = lab.cli_json("verify", "recall://lab/one.h5", check=False)["mismatches"]
    assert [(one["part"], one["actual"]) for one in found] == [("vault", "an earlier state of it")]
    lab.cli("doctor", "--fix", "lab", check=False)
    lab.cli("verify", "recall://lab/one.h5", "--deep")
    lose_records(lab)
    assert not records.load(lab.store, lab.entry("one.h5").id).valid_proofs(now_utc())
    vault.rename(away)
    assert "warning: what the vault" in lab.cli("pin", "recall://lab/one.h5").stderr
    findings = lab.cli_json("doctor", "lab", check=False)["findings"]
    assert "vault-unreachable" in {one["id"] for one in findings}, "it was in use before"


def test_put_back_follows_the_tree(lab: Lab) -> None:
    """A file at its path is resident after a rebuild from the vault, and lost trash is not due."""
    release_three(lab)
    lab.cli("get", "recall://lab/one.h5", "recall://lab/two.h5")
    changed = lab.root / "two.h5"
    seen = changed.stat()
    changed.write_bytes(changed.read_bytes()[:-1])
    os.utime(changed, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    lose_records(lab)
    states = {name: lab.entry(name).state for name in ("one.h5", "two.h5", "three.h5")}
    assert states == {
        "one.h5": State.RESIDENT, "two.h5": State.RELEASED, "three.h5": State.RELEASED,
    }  # fmt: skip
    assert records.load(lab.store, lab.entry("one.h5").id).release is None
    findings = lab.cli_json("doctor", "lab", check=False)["findings"]
    assert not {one["id"] for one in findings} & {"trash-gone", "trash-overdue", "row-differs"}
