"""What other processes do in the tests of files that are read in parts."""

from __future__ import annotations

import random
from pathlib import Path

from recallfs.atomic import set_fault_hook
from recallfs.partial.opening import Parts
from recallfs.resolve.stores import stores_in_reach
from recallfs.testing.faults import kill_at


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
