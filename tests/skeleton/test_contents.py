"""Kept digests of the objects of files that are gone."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest

from conftest import Lab
from hdf5_files import everything
from recallfs.catalog.vaulted import vault_place
from recallfs.digest.hdf5 import ContentDigest, content_digest
from recallfs.digest.rules import KNOWN, Rules
from recallfs.errors import IntegrityError
from recallfs.skeleton.contents import load_contents


def test_digests_survive_being_kept(tmp_path: Path) -> None:
    """What was kept is what was digested; a flipped bit anywhere is noticed."""
    found = content_digest(everything().write(tmp_path / "a.h5"))
    content = found.to_bytes()
    assert ContentDigest.from_bytes(content) == found
    for place in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[place] ^= 4
        with pytest.raises(IntegrityError):
            ContentDigest.from_bytes(bytes(damaged))


@pytest.mark.parametrize("rules", [*KNOWN.values(), Rules("mine", ("/f/**",), ("/i@*",))])
def test_rules_can_be_laid_over_later(tmp_path: Path, rules: Rules) -> None:
    """Leaving out afterwards gives the digest that leaving out at once does."""
    path = everything().write(tmp_path / "a.h5")
    assert content_digest(path).under(rules) == content_digest(path, rules)


def test_what_differs_from_a_file_that_is_gone(lab: Lab) -> None:
    """After a release another file is compared with it, object by object, without a recall."""
    place = lab.derive()
    other = lab.base / "other.h5"
    other.write_bytes(place.read_bytes())
    with h5py.File(other, "r+") as file:
        file["data"][0, 0] += 1
        file["new"] = 1
    lab.prove()
    before = content_digest(place)
    lab.release()
    assert load_contents(lab.store, lab.entry("derived.h5")) == before
    done = lab.cli("diff", "recall://lab/derived.h5", str(other), "--json", check=False)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert {item["path"] for item in told["differences"]} == {"/data", "/new"}
    assert (told["differing"], told["compared"]) == (2, 3)
    assert not place.exists()
    shown = lab.cli("show", "recall://lab/derived.h5", "--objects").stdout
    assert "/data" in shown
    assert before.objects["/data"].digest[:16] in shown


def test_the_vault_keeps_them_too(lab: Lab) -> None:
    """With the store's copy gone or damaged, the vault's is used; without both nothing is told."""
    lab.released()
    entry = lab.entry("derived.h5")
    local = lab.store.contents_path(entry.sha256)
    whole = load_contents(lab.store, entry)
    local.write_bytes(b"damaged")
    assert load_contents(lab.store, entry) == whole
    local.unlink()
    assert load_contents(lab.store, entry) == whole
    vault_place(lab.store, local).unlink()
    assert load_contents(lab.store, entry) is None
    done = lab.cli("diff", "recall://lab/derived.h5", str(lab.root / "raw.h5"), check=False)
    assert done.returncode == 2
    assert "no digests of its objects are kept" in done.stderr
