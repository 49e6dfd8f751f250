"""What is there when the first block of a page begins: a store, files, servers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import page_recipes
from archives import in_client
from conftest import TESTS
from database_servers import Server
from pages import Runner
from recallfs.catalog.records import known_entry
from recallfs.catalog.store import create_store
from recallfs.cli.app import main
from recallfs.config import PUBLIC_KINDS
from recallfs.mounts import read_mounts
from recallfs.release.assessment import assess
from recallfs.release.policy import Wanted
from recallfs.release.proof import prove
from recallfs.release.release import release
from recallfs.resolve.commit import add_existing
from recallfs.resolve.derive import derive
from recallfs.resolve.stores import stores_in_reach
from recallfs.testing.dandi import DandiServer
from recallfs.testing.kachery import KacheryServer
from recallfs.values import parse_span

STAGES = ("store", "made", "proved", "released")
"""Each with all before: `s1.nwb` and `s2.nwb`; files that are named; their proofs; not here."""

SERVICES = ("dandi", "kachery")

DEFAULT_SOURCES = "default-sources"
"""Public services are as on any computer: turned on, unless the page itself turns them off."""

_CONFIG = """\
[recipes]
modules = ["page_recipes"]
paths = ["{tests}"]

[stores.analysis]
root = "{base}/data/analysis"
vault = "{base}/nas/vault"

[[sources.mirror]]
name = "nas"
url = "file://{base}/nas/analysis-copy"
layout = "sha256"
"""


def prepare(runner: Runner, needs: list[str]) -> None:
    """Make what a page needs, below the runner's folder."""
    base = runner.base
    # Our own group, by its number: it need not have a name, and who is not root may name no other.
    runner.words.update({"chgrp lab": f"chgrp {os.getgid()}", "-g lab": f"-g {os.getgid()}"})
    runner.words["/opt/recallfs/bin/"] = f"{base}/bin/"
    for name in (
        "data",
        "nas/analysis-copy",
        "backup",
        "fast",
        "scratch",
        "srv",
        "mnt/analysis",
        "var/cache",
        "work",
    ):
        (base / name).mkdir(parents=True)
    (base / "work/analysis.py").write_text("import sys\nprint(sys.argv[1:])\n")
    stage = next((need for need in needs if need in STAGES), "")
    if not stage:
        return
    (base / "config.toml").write_text(_CONFIG.format(base=base, tests=TESTS), encoding="utf-8")
    root = base / "data/analysis"
    root.mkdir()
    store = create_store(root, "analysis", vault=base / "nas/vault")
    for seed, name in enumerate(("s1.nwb", "s2.nwb")):
        page_recipes.write_recording(root / name, seed)
    add_existing(store, ["s1.nwb", "s2.nwb"])
    level = STAGES.index(stage)
    stores = stores_in_reach()
    for name in (need for need in needs if need.endswith(".nwb")):
        derive(
            stores,
            "lfp",
            outputs={"": store.url(name)},
            inputs={"raw": store.url("s2.nwb" if name.startswith("s2") else "s1.nwb")},
            parameters={"freq_max": 300.0 + 100 * (name.count("/"))},
        )
        entry = known_entry(store, name)
        if level > 1:
            prove(stores, store, entry, hiding="auto")
        if level > 2:
            wanted = Wanted(hold=parse_span("0s"))
            release(stores, store, entry, assess(stores, store, entry, wanted), wanted)
    if level:
        (record,) = (root / ".recall/environments").glob("*.json")
        label = json.loads(record.read_text("utf-8"))["label"]
        runner.words.update(dict.fromkeys(("ada_lfp_03", "ada_lfp_04"), label))
    store.catalog.close()


@contextlib.contextmanager
def servers(runner: Runner, needs: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the servers that a page needs."""
    if DEFAULT_SOURCES in needs:
        for kind in PUBLIC_KINDS:
            monkeypatch.delenv(f"RECALLFS_SOURCES__{kind.upper()}__ENABLED")
    with contextlib.ExitStack() as stack:
        if "dandi" in needs:
            dandi = stack.enter_context(DandiServer())
            for number, identifier in enumerate(("000001", "000006", "000233")):
                file = runner.base / f"{identifier}.nwb"
                page_recipes.write_recording(file, 10 + number)
                dandi.add_dandiset(identifier)
                name = "sub-anm369962/sub-anm369962_ses-20170310.nwb"
                dandi.add_asset(identifier, name, file)
                dandi.add_asset(identifier, "sub-1.nwb", file)
                dandi.publish(identifier, "0.220126.1855")
            monkeypatch.setenv("RECALLFS_SOURCES__DANDI__ENABLED", "true")
            monkeypatch.setenv("RECALLFS_SOURCES__DANDI__INSTANCE", dandi.api_url)
        if "kachery" in needs:
            kachery = stack.enter_context(KacheryServer())
            for key, value in kachery.environment(runner.base / "kachery").items():
                monkeypatch.setenv(key, value)
            in_client("import kachery_cloud; kachery_cloud.get_client_id(generate_if_missing=True)")
            monkeypatch.setenv("RECALLFS_SOURCES__KACHERY__ENABLED", "true")
        yield


@contextlib.contextmanager
def database(runner: Runner, server: Server) -> Iterator[None]:
    """Have the pages' database server, as its administrator; drop the database they make."""
    here = f"127.0.0.1:{server.port}"
    runner.words.update({"db.lab.example:5432": here, "db.lab.example": here})
    runner.words.update({"10.0.0.%": "127.0.0.1", "/home/ana": str(runner.base / "work")})
    runner.sql = lambda statements: server.run(*statements)
    yield
    server.drop("recall")


def unmount_all(base: Path) -> None:
    """Unmount whatever is mounted below a folder, the newest first."""
    for mount in reversed(read_mounts()):
        place = mount.info.mount_point
        if Path(place).is_relative_to(base):
            if mount.info.kind.startswith("fuse"):
                main(["unmount", "--lazy", place])
            else:
                subprocess.run(["umount", "--lazy", place], check=True)
