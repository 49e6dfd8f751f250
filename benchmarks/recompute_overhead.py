#!/usr/bin/env python3
"""What a recall by recompute costs beyond the recipe, called as a plain function in the same run.

The peer is a process that imports the recipe and calls it, as a person would without recallfs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = """
import sys
from pathlib import Path
from recallfs.cli.demo.recipes import lfp
lfp({"raw": Path(sys.argv[1])}, Path(sys.argv[2]))
"""


def measure(folder: Path, length_s: int, repeat: int) -> dict[str, float]:
    """Return the seconds of the plain recipe and of the recall, the least of several runs."""
    from recallfs.catalog.records import known_entry
    from recallfs.catalog.store import create_store
    from recallfs.cli.demo.recording import write_recording
    from recallfs.config import register_store
    from recallfs.release.assessment import assess
    from recallfs.release.policy import Wanted
    from recallfs.release.proof import prove
    from recallfs.release.release import release
    from recallfs.resolve.commit import add_existing
    from recallfs.resolve.derive import derive
    from recallfs.resolve.recall import recall
    from recallfs.resolve.stores import stores_in_reach
    from recallfs.values import parse_span

    root = folder / "store"
    register_store("store", root)
    store = create_store(root, "store", vault=folder / "vault")
    stores = stores_in_reach()
    raw = root / "raw.nwb"
    write_recording(raw, length_s)
    add_existing(store, ["raw.nwb"])
    derive(
        stores,
        "demo.lfp",
        outputs={"": "recall://store/lfp.nwb"},
        inputs={"raw": "recall://store/raw.nwb"},
        parameters={},
    )
    prove(stores, store, known_entry(store, "lfp.nwb"), hiding="auto")
    wanted = Wanted(hold=parse_span("0s"))
    recalls, peers = [], []
    for _ in range(repeat):
        start = time.perf_counter()
        command = [sys.executable, "-c", PEER, str(raw), str(folder / "peer.nwb")]
        subprocess.run(command, check=True)
        peers.append(time.perf_counter() - start)
        entry = known_entry(store, "lfp.nwb")
        release(stores, store, entry, assess(stores, store, entry, wanted), wanted)
        start = time.perf_counter()
        assert recall(stores, store, "lfp.nwb").source == "recompute"
        recalls.append(time.perf_counter() - start)
    return {
        "recipe_s": min(peers),
        "recall_s": min(recalls),
        "ratio": min(recalls) / min(peers),
        "overhead_s": min(recalls) - min(peers),
        "size_bytes": known_entry(store, "lfp.nwb").size_bytes,
    }


def main() -> None:
    """Print a line, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="length of the recording (10)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RECALLFS_CONFIG"] = str(Path(folder) / "config.toml")
        result = measure(Path(folder), options.seconds, options.repeat)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"recipe alone {result['recipe_s']:.2f} s, recall by recompute {result['recall_s']:.2f} s: "
        f"{result['ratio']:.2f}x, {result['overhead_s']:+.2f} s "
        f"({result['size_bytes'] / 1e6:.1f} MB, exact)"
    )


if __name__ == "__main__":
    main()
