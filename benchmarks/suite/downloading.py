"""Bringing a whole far file here: by recallfs from each source, and by the clients made for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from recallfs.resolve.recall import recall
from recallfs.resolve.stores import stores_in_reach
from suite import peers
from suite.reading import READ_CASES, Remote, class_for_each
from suite.recordings import LARGE_CHUNKS, configure, release
from suite.servers import Far

METHODS = (
    "recall_mirror",
    "recall_kachery",
    "recall_dandi",
    "fsspec_https",
    "curl",
    "kachery_cloud",
    "dandi",
)


class Download(Remote):
    """One file and one way to bring it here."""

    params = ([case for case in READ_CASES if case["https_url"].endswith(LARGE_CHUNKS)],)

    def serve(self, world: dict[str, Any], case: dict[str, Any]) -> Far:
        """Start the far end, with a gateway or an archive that has the file."""
        return Far(
            self.base / "served",
            rtt_s=case["rtt_ms"] / 1000,
            port=world["port"],
            kachery=self.base / "served" / self.name if "kachery" in self.method else None,
            dandi=self.base / "served" / self.name if "dandi" in self.method else None,
        )

    def prepare(self, method: str) -> None:
        """Import what is needed, and have one source alone."""
        about = self.server.about
        self.target = self.folder / "file.nwb"
        if "kachery" in method:
            os.environ["KACHERY_GATEWAY_URL"] = about["gateway"]
            os.environ["KACHERY_CLOUD_DIR"] = str(self.folder / "kachery")
            os.environ["KACHERY_ZONE"] = "default"
        if method.startswith("recall"):
            port = int(about["url"].rpartition(":")[2])
            configure(self.base, port, sources=(method.removeprefix("recall_"),))
            os.environ["DANDI_INSTANCE"] = about.get("api", "")
            self.stores = stores_in_reach()
            self.store = self.stores.by_name("far")
        elif method == "fsspec_https":
            peers.require(peers.has("aiohttp"), "fsspec's HTTP file system")
            import fsspec.implementations.http  # noqa: F401
        elif method == "curl":
            peers.require(shutil.which("curl") is not None, "curl")
        elif method == "kachery_cloud":
            peers.require(peers.has("kachery_cloud"), "kachery_cloud")
            from kachery_cloud.get_client_id import get_client_id

            get_client_id(generate_if_missing=True)
        elif method == "dandi":
            peers.require(peers.has("dandi"), "the DANDI client")
            import dandi.download  # noqa: F401
        self.server.traffic()

    def bring(self) -> None:
        """Bring the file."""
        if self.method.startswith("recall"):
            recall(self.stores, self.store, self.name)
            self.target = self.store.root / self.name
        elif self.method == "fsspec_https":
            import fsspec

            fsspec.filesystem("http").get_file(self.url, str(self.target))
        elif self.method == "curl":
            subprocess.run(["curl", "-s", "-o", self.target, self.url], check=True)
        elif self.method == "kachery_cloud":
            import kachery_cloud

            self.target = Path(kachery_cloud.load_file(f"sha1://{self.server.about['sha1']}"))
        else:
            from dandi.consts import DandiInstance
            from dandi.dandiapi import DandiAPIClient

            about = self.server.about
            client = DandiAPIClient(dandi_instance=DandiInstance("lab", None, about["api"]))
            asset = client.get_dandiset(about["dandiset"]).get_asset_by_path("sub-1/file.nwb")
            asset.download(self.target)

    def teardown(self, world: dict[str, Any], case: dict[str, Any]) -> None:
        """Check what came, and take it away again."""
        if hasattr(self, "target") and self.target.exists():
            size = (self.base / "served" / self.name).stat().st_size
            assert self.target.stat().st_size == size
            if self.method.startswith("recall"):
                self.store.catalog.close()
                configure(self.base, world["port"])
                release(self.name)
        super().teardown(world, case)


def downloaders(prefix: str) -> dict[str, type]:
    """Make a class for each method."""

    def run(self: Any, _world: dict[str, Any], _case: dict[str, Any]) -> Any:
        self.bring()
        return None if prefix == "time" else self.traffic()

    members = {f"{prefix}_download_{{}}": run}
    return class_for_each(METHODS, Download, "HDF5{}DownloadBenchmark", members)
