"""A file of a real dandiset, read over the network that there is."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

from recallfs.bench.suite import ONLINE as ASSET
from suite.selection import ONLINE


def describe() -> dict[str, Any]:
    """Ask the archive about the asset; its URL is the archive's own address of it.

    Such as ``https://api.dandiarchive.org/api/dandisets/ID/versions/VERSION/assets/ASSET/``.
    """
    found = ASSET.match(ONLINE)
    assert found is not None, ONLINE  # `recall bench run` has looked at it
    with urllib.request.urlopen(ONLINE, timeout=60) as answer:  # noqa: S310 - what was asked for
        about = json.load(answer)
    # An asset has an address at the API, which redirects, and one at its bucket.
    urls = [url for url in about["contentUrl"] if not url.startswith(found["api"])]
    return {**found.groupdict(), "path": about["path"], "url": (urls or about["contentUrl"])[0]}


def configure(base: Path, api: str) -> None:
    """Write a configuration in which the archive is the only source."""
    (base / "config.toml").write_text(
        f'[stores.far]\nroot = "{base / "far"}"\n[cache]\nfolder = "{base / "cache"}"\n'
        f'[sources.kachery]\nenabled = false\n[sources.dandi]\ninstance = "{api}"\n'
    )
    os.environ["RECALLFS_CONFIG"] = str(base / "config.toml")
    os.environ["XDG_STATE_HOME"] = str(base / "state")


def make_store(base: Path) -> dict[str, Any]:
    """Catalog the asset in the store ``far``; no byte of it is fetched."""
    from recallfs.catalog.store import create_store
    from recallfs.config import DandiSettings
    from recallfs.resolve.dandisets import catalog_dandiset
    from recallfs.sources.dandi import DandiSource

    about = describe()
    configure(base, about["api"])
    store = create_store(base / "far", "far", vault=base / "vault")
    source = DandiSource(DandiSettings(instance=about["api"]))
    catalog_dandiset(store, source, f"{about['dandiset']}@{about['version']}", glob=about["path"])
    store.catalog.close()
    return about


class Wire:
    """Counts what goes over all interfaces but loopback; so keep the computer quiet meanwhile."""

    def __init__(self) -> None:
        self._before = self._counts()

    @staticmethod
    def _counts() -> dict[str, float]:
        import psutil

        names = {
            "amount_downloaded_in_bytes": "bytes_recv",
            "amount_uploaded_in_bytes": "bytes_sent",
            "amount_downloaded_in_number_of_packets": "packets_recv",
            "amount_uploaded_in_number_of_packets": "packets_sent",
        }
        counters = [
            each for name, each in psutil.net_io_counters(pernic=True).items() if name != "lo"
        ]
        return {
            name: sum(getattr(each, field) for each in counters) for name, field in names.items()
        }

    def traffic(self) -> dict[str, float]:
        """Return bytes and packets since this was last asked."""
        now = self._counts()
        before, self._before = self._before, now
        return {name: now[name] - before[name] for name in now}

    def stop(self) -> None:
        """Do nothing: there is no server of ours."""
