"""Run the same notebook before and after its file is released; print what its cells showed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pynwb

from neighbours import made

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
    nwbfile = made.new_file("notebook")
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
    lab = made.Lab()
    write_file(lab.root / "a.nwb")
    entries = lab.add(["a.nwb"])
    found = {"before": shown()}
    lab.release(entries)
    found["after"] = shown()
    print(json.dumps(found))


main()
