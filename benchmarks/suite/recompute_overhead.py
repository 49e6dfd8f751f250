"""What a recall by recompute takes beyond the recipe, called as a plain function."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from recallfs.resolve.recall import recall
from recallfs.resolve.stores import stores_in_reach
from recallfs.sources import recompute  # noqa: F401 - loaded when it is first needed
from suite.recordings import configure, release
from suite.selection import Timed, by_selection

SECONDS = by_selection(10, 60)
CASES = [{"name": f"EcephysLFP{SECONDS}s", "https_url": "recall://far/lfp.nwb"}]
PEER = """
import sys
from pathlib import Path
from recallfs.cli.demo.recipes import lfp
lfp({"raw": Path(sys.argv[1])}, Path(sys.argv[2]))
"""


def lfp_world() -> dict[str, str]:
    """Make a recording and what a recipe makes of it, and prove that."""
    from recallfs.catalog.records import known_entry
    from recallfs.catalog.store import create_store
    from recallfs.cli.demo.recording import write_recording
    from recallfs.release.proof import prove
    from recallfs.resolve.commit import add_existing
    from recallfs.resolve.derive import derive

    base = Path.cwd() / "lfp-world"
    base.mkdir()
    configure(base, 0, sources=())
    store = create_store(base / "far", "far", vault=base / "vault")
    stores = stores_in_reach()
    write_recording(store.root / "raw.nwb", SECONDS)
    add_existing(store, ["raw.nwb"])
    derive(
        stores,
        "demo.lfp",
        outputs={"": "recall://far/lfp.nwb"},
        inputs={"raw": "recall://far/raw.nwb"},
        parameters={},
    )
    prove(stores, store, known_entry(store, "lfp.nwb"), hiding="auto")
    release("lfp.nwb")
    store.catalog.close()
    return {"base": str(base)}


lfp_world.timeout = 600.0  # type: ignore[attr-defined]


class ReleasedLFP(Timed):
    """A file that a recipe makes again in seconds; released at first."""

    setup_cache = staticmethod(lfp_world)
    param_names = ("case",)
    params = (CASES,)

    def setup(self, world: dict[str, str], _case: dict[str, Any]) -> None:
        """Open the store."""
        self.base = Path(world["base"])
        configure(self.base, 0, sources=())
        self.stores = stores_in_reach()
        self.store = self.stores.by_name("far")
        self.store.catalog.totals()

    def teardown(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Release it again."""
        (self.base / "peer.nwb").unlink(missing_ok=True)
        if (self.base / "far" / "lfp.nwb").exists():
            release("lfp.nwb")


class RecomputeOverheadBenchmark(ReleasedLFP):
    """Both start a process; the peer imports the recipe and calls it, as a person would."""

    def time_recall_recompute(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Open a released file."""
        assert recall(self.stores, self.store, "lfp.nwb").source == "recompute"

    def time_recipe_alone(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Call the recipe."""
        paths = [str(self.base / "far" / "raw.nwb"), str(self.base / "peer.nwb")]
        subprocess.run([sys.executable, "-c", PEER, *paths], check=True, capture_output=True)
