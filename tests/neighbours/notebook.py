"""Run the same notebook before and after its file is released; print what its cells showed."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pynwb

from recallfs.catalog.store import create_store
from recallfs.release.assessment import assess
from recallfs.release.policy import Wanted
from recallfs.release.release import release
from recallfs.resolve.commit import add_existing
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import parse_span

CELLS = (
    "%load_ext recallfs",
    """
import os
import pynwb
place = "lab/a.nwb"
print(os.path.exists(place), os.path.getsize(place))
nwbfile = pynwb.NWBHDF5IO(place, "r").read()
nwbfile
""",
    """
series = nwbfile.acquisition["lfp"]
print(series.object_id, nwbfile.object_id)
series.data[:].sum(), series.data[7, 2]
""",
)


def write_file(place: Path) -> None:
    """Write an NWB file with a series."""
    nwbfile = pynwb.NWBFile(
        session_description="made up",
        identifier="notebook",
        session_start_time=datetime(2026, 1, 1, tzinfo=timezone.utc),
    )
    data = np.arange(20_000, dtype="i2").reshape(-1, 4)
    nwbfile.add_acquisition(pynwb.TimeSeries(name="lfp", data=data, rate=1000.0, unit="uV"))
    with pynwb.NWBHDF5IO(place, "w") as out:
        out.write(nwbfile)


def shown() -> list[list[Any]]:
    """Run the notebook in a kernel of its own; return what each cell showed, in order."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return [
        [output.get("data") or [output["name"], output["text"]] for output in cell.outputs]
        for cell in notebook.cells
    ]


def main() -> None:
    """Make a store here, then run the notebook twice."""
    base = Path.cwd()
    root, copies = base / "lab", base / "copies"
    (base / "config.toml").write_text(
        f'[stores.lab]\nroot = "{root}"\n[[sources.mirror]]\nname = "copies"\n'
        f'url = "{copies.as_uri()}"\nfailure_domain = "elsewhere"\nlayout = "sha256"\n'
        "[release]\ncopies = 1\n"
    )
    os.environ["RECALLFS_CONFIG"] = str(base / "config.toml")
    create_store(root, "lab", vault=base / "vault")
    stores = stores_in_reach()
    store = stores.by_name("lab")
    write_file(root / "a.nwb")
    (entry,) = add_existing(store, ["a.nwb"])
    copy = copies / "sha256" / entry.sha256[:2] / entry.sha256[2:4] / entry.sha256
    copy.parent.mkdir(parents=True)
    copy.write_bytes((root / "a.nwb").read_bytes())
    found = {"before": shown()}
    wanted = Wanted(hold=parse_span("0s"), max_skeleton=1.0)
    release(stores, store, entry, assess(stores, store, entry, wanted), wanted)
    assert not os.path.lexists(root / "a.nwb")
    found["after"] = shown()
    print(json.dumps(found))


main()
