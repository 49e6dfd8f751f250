"""What other processes do in the tests; importable, so that they can be sent there."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path


def wait_for(path: Path, process: BaseProcess, seconds: float = 30) -> None:
    """Wait until a process has made a file."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.is_alive(), f"the process ended with {process.exitcode} before {path} was"
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.01)


def run_main(arguments: tuple[str, ...]) -> None:
    """Run the command line and end as it says."""
    from recallfs.cli.app import main

    sys.exit(main(list(arguments)))


def open_and_report(url: str, place: str) -> None:
    """Read a file through fsspec and write down its sha256."""
    import fsspec

    with fsspec.open(url, "rb") as file:
        Path(place).write_text(hashlib.sha256(file.read()).hexdigest())


def write_without_locking(path: str, ready: str) -> None:
    """Keep an HDF5 file open for writing, with its locking off."""
    os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
    import h5py

    with h5py.File(path, "r+", locking=False):
        Path(ready).touch()
        time.sleep(60)


def prove_aside(path: str) -> None:
    """Prove a file, with the original renamed away meanwhile."""
    from recallfs.release.proof import prove
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    store = stores.by_name("lab")
    entry = store.catalog.entry_at(path)
    assert entry is not None
    prove(stores, store, entry, hiding="aside")
