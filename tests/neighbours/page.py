"""Run the blocks of one page, here, with those that need the libraries that are here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pynwb
from IPython.core.interactiveshell import InteractiveShell

from neighbours import made
from pages import Block, Runner, blocks_of, program_folder
from recallfs.catalog.store import create_store
from recallfs.cli.demo.recording import write_recording
from recallfs.resolve.commit import add_existing


def small_file() -> pynwb.NWBFile:
    """Return a file in memory, with the series that pages name."""
    nwbfile = made.new_file("page")
    region = made.add_electrodes(nwbfile, 32)
    data = np.arange(32_000 * 32, dtype="i2").reshape(-1, 32)
    nwbfile.add_acquisition(
        pynwb.ecephys.ElectricalSeries(
            name="ElectricalSeries", data=data, electrodes=region, rate=1000.0
        )
    )
    return nwbfile


def run_cell(block: Block) -> None:
    """Run a block as a cell of a notebook."""
    InteractiveShell.instance().run_cell(block.text).raise_error()


def main(page: str) -> None:
    """Make a store with a recording here, and run the page."""
    base = Path.cwd()
    os.environ["RECALLFS_CONFIG"] = str(base / "config.toml")
    os.environ["PATH"] = f"{program_folder(base)}:{os.environ['PATH']}"
    root = base / "data/analysis"
    root.mkdir(parents=True)
    (base / "config.toml").write_text(f'[stores.analysis]\nroot = "{root}"\n')
    store = create_store(root, "analysis", vault=base / "vault")
    write_recording(root / "s1.nwb", 2)
    add_existing(store, ["s1.nwb"])
    store.catalog.close()
    runner = Runner(base, os.environ.__setitem__)
    runner.names["nwbfile"] = small_file()
    blocks = blocks_of(page)
    while blocks[-1].note != "neighbours":
        blocks.pop()
    for block in blocks:
        if block.need == "IPython":
            run_cell(block)
        elif block.note == "neighbours" or (block.language == "python" and not block.note):
            runner.run(block)  # code before it may define what it uses
    print(page, "was run")


if __name__ == "__main__":
    main(sys.argv[1])
