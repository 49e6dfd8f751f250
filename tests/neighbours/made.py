"""What the scripts beside this make alike: NWB files in memory, and a store with a mirror."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pynwb

from recallfs.catalog.store import create_store
from recallfs.release.assessment import assess
from recallfs.release.policy import Wanted
from recallfs.release.release import release
from recallfs.resolve.commit import add_existing
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import Entry, parse_span


def new_file(identifier: str) -> pynwb.NWBFile:
    """Make a file in memory with nothing in it."""
    return pynwb.NWBFile(
        session_description="made up",
        identifier=identifier,
        session_start_time=datetime(2026, 1, 1, tzinfo=timezone.utc),
    )


def add_electrodes(nwbfile: pynwb.NWBFile, count: int) -> Any:
    """Add a probe; return the region of all its electrodes."""
    device = nwbfile.create_device(name="probe")
    group = nwbfile.create_electrode_group(
        name="shank", description="", location="CA1", device=device
    )
    for _ in range(count):
        nwbfile.add_electrode(group=group, location="CA1")
    return nwbfile.create_electrode_table_region(list(range(count)), "all")


class Lab:
    """A store called ``lab`` here, whose files are released because a mirror holds copies."""

    def __init__(self) -> None:
        base = Path.cwd()
        self.root, self._copies = base / "lab", base / "copies"
        (base / "config.toml").write_text(
            f'[stores.lab]\nroot = "{self.root}"\n[[sources.mirror]]\nname = "copies"\n'
            f'url = "{self._copies.as_uri()}"\nfailure_domain = "elsewhere"\nlayout = "sha256"\n'
            "[release]\ncopies = 1\n"
        )
        os.environ["RECALLFS_CONFIG"] = str(base / "config.toml")
        create_store(self.root, "lab", vault=base / "vault")
        self._stores = stores_in_reach()
        self._store = self._stores.by_name("lab")

    def add(self, paths: list[str]) -> list[Entry]:
        """Catalog files and copy them to the mirror."""
        entries = add_existing(self._store, paths)
        for entry in entries:
            copy = self._copies / "sha256" / entry.sha256[:2] / entry.sha256[2:4] / entry.sha256
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((self.root / entry.path).read_bytes())
        return entries

    def release(self, entries: list[Entry]) -> None:
        """Release files for good."""
        wanted = Wanted(hold=parse_span("0s"), max_skeleton=1.0)
        for entry in entries:
            decision = assess(self._stores, self._store, entry, wanted)
            release(self._stores, self._store, entry, decision, wanted)
            assert not os.path.lexists(self.root / entry.path)
