"""What other processes do in the tests of files that are read in parts."""

from __future__ import annotations

import gc
import random
import threading
import time
from pathlib import Path

import h5py
import numpy as np

from recallfs.atomic import set_fault_hook
from recallfs.partial.opening import Parts
from recallfs.resolve.stores import stores_in_reach
from recallfs.testing.faults import kill_at

_RINGS = 300


def _parts() -> Parts:
    stores = stores_in_reach()
    store = stores.by_name("lab")
    entry = store.catalog.entry_at("a.h5")
    assert entry is not None
    return Parts(stores, store, entry)


def read_all(output: str) -> None:
    """Read the file to its end, and write it down."""
    with _parts().open() as parts:
        Path(output).write_bytes(parts.read())


def read_units(output: str, seed: int, kill: str = "") -> None:
    """Read at random places for ever, or until killed at a point."""
    if kill:
        set_fault_hook(kill_at(kill))
    chance = random.Random(seed)  # noqa: S311 - no secret
    Path(output).touch()
    while True:
        with _parts().open() as parts:
            for _ in range(6):
                begin = chance.randrange(parts.size)
                parts.read_at(begin, begin + chance.randrange(60_000))


def read_part(start: int, stop: int) -> str:
    """Read some bytes of the file."""
    with _parts().open() as parts:
        return parts.read_at(start, stop).hex()


def read_amid_garbage(output: str) -> None:
    """Read under h5py's lock by several connections, while h5py's objects become garbage."""
    with _parts().open(for_hdf5=True) as parts, h5py.File(parts, "r") as file:
        data = file["big"].id
        stock = [data.get_space() for _ in range(_RINGS)]
        values = np.empty(data.shape, data.dtype)

        def drop() -> None:
            time.sleep(0.15)  # all have asked, and wait for their answers
            gc.collect()
            gc.set_threshold(_RINGS + 10)
            while stock:
                ring: list[object] = [stock.pop()]
                ring.append(ring)  # only a collection of garbage ends it

        thread = threading.Thread(target=drop)
        thread.start()
        data.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        gc.set_threshold(700, 10, 10)
        thread.join()
        Path(output).write_text(f"{len(stock)} {values.sum()}")
