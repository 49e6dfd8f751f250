"""The vault alone is enough: drills that look at nothing else, and a store that is put back."""

from __future__ import annotations

import json
import shutil

import pytest

from conftest import Lab, sha256
from recallfs.cli.app import main
from recallfs.errors import ConflictError
from recallfs.release.drill import configured_vault
from recallfs.skeleton.salvage import find_in_vault, put_back
from recallfs.values import State


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
