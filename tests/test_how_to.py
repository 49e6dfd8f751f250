"""The pages that say how: every command of theirs is run, in order, and does what they promise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from actors import die_with_file_open
from conftest import TESTS, Lab, sha256
from processes import start
from recallfs.catalog.store import create_store
from recallfs.catalog.vaulted import vault_place
from recallfs.resolve.commit import add_existing

pytestmark = pytest.mark.long

PAGE = TESTS.parent / "docs" / "how-to" / "recover.md"


def commands(heading: str) -> list[list[str]]:
    """Return the lines of each shell block below a heading."""
    section = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```", section, re.DOTALL | re.MULTILINE)
    return [[line.strip() for line in text.splitlines()] for _, text in blocks]


@pytest.fixture
def shell(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Return a function that runs lines as a reader would, in a store of the page's name."""
    bin_folder = lab.base / "bin"
    bin_folder.mkdir()
    (bin_folder / "recall").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m recallfs "$@"\n')
    (bin_folder / "recall").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    text = lab.config.read_text()
    lab.config.write_text(text.replace("[stores.lab]", "[stores.analysis]"))

    def run(lines: list[str], **names: str) -> str:
        script = "\n".join(lines)
        places = {"/data/analysis": lab.root, "/nas/vault": lab.base / "vault"}
        places["/backup/analysis"] = lab.base / "backup"
        for written, real in (*places.items(), *names.items()):
            script = script.replace(written, str(real))
        done = subprocess.run(
            ["sh", "-ec", script], capture_output=True, text=True, cwd=lab.base, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    yield run
    text = lab.config.read_text()
    lab.config.write_text(text.replace("[stores.analysis]", "[stores.lab]"))


def make_files(lab: Lab) -> dict[str, str]:
    """Make a resident, a purged and a trashed file in the store; return their digests."""
    text = lab.config.read_text()
    lab.config.write_text(text.replace("[stores.analysis]", "[stores.lab]"))
    lab.write_raw()
    digests = {"raw.h5": sha256(lab.root / "raw.h5")}
    for name, factor, hold in (("gone.h5", 2.0, "0s"), ("trashed.h5", 3.0, "7d")):
        digests[name] = sha256(lab.derive(name, factor=factor))
        lab.prove(name)
        lab.release(name, hold=hold)
    with h5py.File(lab.root / "day1.h5", "w", libver="latest") as file:
        file["data"] = np.arange(1000)
    add_existing(lab.store, ["day1.h5"])
    digests["day1.h5"] = sha256(lab.root / "day1.h5")
    lab.store.catalog.close()
    lab.config.write_text(lab.config.read_text().replace("[stores.lab]", "[stores.analysis]"))
    return digests


def get_all(lab: Lab, shell: Callable[..., str]) -> dict[str, str]:
    shell(["recall get 'recall://analysis/*.h5'"])
    return {path.name: sha256(path) for path in lab.root.glob("*.h5")}


def test_lost_catalog(lab: Lab, shell: Callable[..., str]) -> None:
    """The catalog is made again, and every file comes back as it was."""
    digests = make_files(lab)
    for path in (lab.root / ".recall").glob("catalog.sqlite*"):
        path.unlink()
    (lab.root / ".recall/catalog.sqlite").write_bytes(b"damaged" * 1000)
    (lines,) = commands("The catalog is lost or damaged")
    assert "all as recorded" in shell(lines)
    assert get_all(lab, shell) == digests


def test_damaged_evidence(lab: Lab, shell: Callable[..., str]) -> None:
    """What was released is restored from the vault; what was not is recorded anew."""
    digests = make_files(lab)
    for path in (lab.root / ".recall/skeletons").rglob("*.rsk1"):
        path.write_bytes(b"damaged")
    own = None
    store = create_store(lab.root, "analysis")
    for path in (lab.root / ".recall/entries").rglob("*.rsc1"):
        text = path.read_text()
        if '"gone.h5"' in text:
            path.write_text(text[:500])
        elif '"day1.h5"' in text:
            path.write_text(text[:500])
            own = path
            assert not vault_place(store, path).exists()
    store.catalog.close()
    assert own is not None
    first, second = commands("A sidecar, a skeleton or an environment is damaged")
    # It mends what it can; what is left is told by its exit code.
    shell([f"{line} || true" for line in first])
    assert '"gone.h5"' in "".join(
        path.read_text() for path in (lab.root / ".recall/entries").rglob("*.rsc1")
    )
    shell(second, **{"ID.rsc1": f"{own.parent.name}/{own.name}"})
    assert get_all(lab, shell) == digests
    shell(["recall doctor analysis"])


def test_lost_disk(lab: Lab, shell: Callable[..., str]) -> None:
    """From the vault and a backup of what was resident, everything is as it was."""
    digests = make_files(lab)
    backup = lab.base / "backup"
    backup.mkdir()
    for name in ("raw.h5", "day1.h5"):
        shutil.copy2(lab.root / name, backup / name)
    shutil.rmtree(lab.root)
    (old,) = (lab.base / "vault").iterdir()
    for lines in commands("The disk of the store is lost"):
        shell(lines, OLD_ID=old.name)
    assert {path.name: sha256(path) for path in lab.root.glob("*.h5")} == digests
    shell(["recall doctor analysis"])


def test_lost_vault(lab: Lab, shell: Callable[..., str]) -> None:
    """The vault is filled again from the store."""
    make_files(lab)
    (old,) = (lab.base / "vault").iterdir()
    before = {path.relative_to(old) for path in old.rglob("*") if path.is_file()}
    shutil.rmtree(lab.base / "vault")
    (lines,) = commands("The disk of the vault is lost")
    shell(lines, STORE_ID=old.name)
    assert {path.relative_to(old) for path in old.rglob("*") if path.is_file()} == before


def test_killed_writer(lab: Lab, shell: Callable[..., str]) -> None:
    """The file has its recorded bytes again."""
    digests = make_files(lab)
    process = start(die_with_file_open, str(lab.root / "day1.h5"), "open-latest")
    process.join(30)
    assert sha256(lab.root / "day1.h5") != digests["day1.h5"]
    (lines,) = commands("A writer was killed")
    shell(lines)
    assert sha256(lab.root / "day1.h5") == digests["day1.h5"]


@pytest.mark.namespaces
def test_bad_digest(lab: Lab, shell: Callable[..., str]) -> None:
    """Proofs that rest on it count no more; files come back, and are proved anew."""
    digests = make_files(lab)
    first, second = commands("A digest, a skeleton or a recipe turned out wrong")
    shell([line.replace("h5c1 --before 2026-05-01", "sha256") for line in first])
    shell(second)
    assert {path.name: sha256(path) for path in lab.root.glob("*.h5")} == digests


def test_every_section_is_tried() -> None:
    """No shell block of the page is left out here."""
    headings = re.findall(r"^## (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    tried = set(re.findall(r'commands\("(.*?)"\)', Path(__file__).read_text("utf-8")))
    assert {heading for heading in headings if commands(heading)} == tried
