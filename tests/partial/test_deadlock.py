"""Readers in h5py, with its lock held, and garbage that needs the lock: nobody waits for ever."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from mirrored import configure_mirror
from served import Served, write_hdf5

# In a process of its own: its threads, too, could begin to collect, holding what it needs.
SERVER = """
import sys
from pathlib import Path
from recallfs.testing.latency import Distant
with Distant(Path(sys.argv[1]), rtt_s=0.002) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@pytest.mark.timeout(120)
def test_garbage_of_h5py_does_not_stop_a_reader(served: Served, tmp_path: Path) -> None:
    """While threads leave h5py objects in cycles, others read chunk after chunk through h5py."""
    values = write_hdf5(tmp_path / "made.h5")
    served.release("a.h5", tmp_path / "made.h5")
    command = [sys.executable, "-c", SERVER, str(served.folder)]
    stopped = threading.Event()
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run,
        h5py.File(tmp_path / "other.h5", "w") as other,
    ):
        assert run.stdout is not None
        configure_mirror(served.lab, run.stdout.readline().strip())
        for number in range(20):
            other[f"d{number}"] = number

        def litter() -> None:
            while not stopped.is_set():
                cycle = [other[f"d{number}"] for number in range(20)]
                cycle.append(cycle)

        thresholds = gc.get_threshold()
        gc.set_threshold(50, 2, 2)
        littering = threading.Thread(target=litter)
        littering.start()
        try:
            with served.parts().open(for_hdf5=True) as parts, h5py.File(parts, "r") as file:
                plain, packed = file["group/plain"], file["group/gzip"]

                def read(number: int) -> bool:
                    begin = number * 100
                    _, chunk = plain.id.read_direct_chunk((begin, 0))  # with the lock held
                    some = packed[begin : begin + 150]  # first without it
                    return chunk == values["plain"][begin : begin + 100].tobytes() and bool(
                        np.array_equal(some, values["gzip"][begin : begin + 150])
                    )

                with ThreadPoolExecutor(3) as pool:
                    assert all(pool.map(read, range(30)))
        finally:
            stopped.set()
            littering.join()
            gc.set_threshold(*thresholds)
            run.communicate()
