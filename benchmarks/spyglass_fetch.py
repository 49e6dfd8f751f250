"""``fetch_nwb`` on a released recording against Spyglass' own recompute, in one run.

Sets up a database server and one recording, proves and releases it, and reads it in turns:
brought back by its recipe, by a mirror, without recallfs by Spyglass; and while it is there, of
which most is pynwb, which parses extensions anew. The targets: the recipe takes no longer than
Spyglass does, which gives other bytes; a mirror takes under 1.3 s.

    .venv-spyglass/bin/python benchmarks/spyglass_fetch.py --size 125MB --runs 3

`make test-spyglass` makes that environment; elsewhere nothing is measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
BYTES_A_SECOND = 815_000
"""Of a recording of four channels with its timestamps."""


def main(size_bytes: int, runs: int, base: Path) -> int:
    """Print what each way takes; return 1 if a target was missed."""
    from database_servers import MariaDB

    server = MariaDB()
    try:
        return _measured(server, size_bytes, runs, base)
    finally:
        server.stop()


def _measured(server: Any, size_bytes: int, runs: int, base: Path) -> int:
    _configure(server, base)
    from recallfs.catalog.store import create_store
    from recallfs.integrations import spyglass

    (base / "raw").mkdir()
    # In a process of its own: what writes raw files loads NWB extensions, which a session of
    # somebody who reads has not loaded.
    make = get_context("spawn").Process(target=_make, args=(base, size_bytes / BYTES_A_SECOND))
    make.start()
    make.join()
    key = json.loads((base / "key.json").read_text())
    create_store(base / "analysis", "analysis", vault=base / "vault")
    _write_config(base, with_mirror=False)
    from spyglass.spikesorting.v1 import SpikeSortingRecording

    row = SpikeSortingRecording & key
    _close()
    (adopted,) = spyglass.adopt(row)
    url = adopted.checked().outputs["output"]
    spyglass.prove(row)[0].checked()
    _push(base, url)
    (place,) = (base / "analysis").rglob("*.nwb")
    print(f"{place.stat().st_size / 1e6:.1f} MB")

    def drop() -> None:
        spyglass.release(row, hold=timedelta(0))[0].checked()

    def ours() -> float:
        return _timed(row, drop)

    spyglass.install()
    _write_config(base, with_mirror=False)
    recipe = [ours() for _ in range(runs)]
    _write_config(base, with_mirror=True)
    mirror = [ours() for _ in range(runs)]
    spyglass.uninstall()
    # Last: it puts other bytes at the path, and their size and checksum into the database.
    own = [_timed(row, place.unlink) for _ in range(runs)]
    there = [_timed(row, lambda: None) for _ in range(runs)]
    for label, times in (
        ("recipe", recipe),
        ("mirror", mirror),
        ("Spyglass", own),
        ("there", there),
    ):
        shown = ", ".join(f"{taken:.1f}" for taken in times)
        print(f"{label:9} {statistics.median(times):5.2f} s ({shown})")
    ratio = statistics.median(recipe) / statistics.median(own)
    print(f"recipe / Spyglass {ratio:.2f}")
    return int(ratio > 1 or statistics.median(mirror) > 1.3)


def _make(base: Path, seconds: float) -> None:
    """Have Spyglass make the recording."""
    import spyglass_recording

    spyglass_recording.write_raw(base / "raw" / "rat1.nwb", seconds=seconds + 1)
    name = spyglass_recording.insert_raw("rat1.nwb")
    key = spyglass_recording.make_recording(name, interval=(0.0, seconds))
    (base / "key.json").write_text(json.dumps({name: str(value) for name, value in key.items()}))


def _timed(row: Any, drop: Callable[[], object]) -> float:
    _close()
    drop()
    start = time.perf_counter()
    (found,) = row.fetch_nwb()
    _ = found["object_id"].data[:10]
    return time.perf_counter() - start


def _close() -> None:
    import gc

    from spyglass.utils.nwb_helper_fn import close_nwb_files

    close_nwb_files()
    gc.collect()


def _configure(server: Any, base: Path) -> None:
    server.write_settings(base, server.admin, base)
    programs = TESTS / "integrations" / "spyglass" / "programs"
    os.environ.update(
        HOME=str(base),
        PYTHON_OF_CONDA=sys.executable,
        PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
        RECALLFS_CONFIG=str(base / "config.toml"),
    )
    os.chdir(base)


def _write_config(base: Path, *, with_mirror: bool) -> None:
    mirror = base / "mirror"
    mirror.mkdir(exist_ok=True)
    text = f'[stores.analysis]\nroot = "{base}/analysis"\n'
    if with_mirror:
        text += (
            f'\n[[sources.mirror]]\nname = "nas"\nurl = "{mirror.as_uri()}"\nlayout = "sha256"\n'
        )
    (base / "config.toml").write_text(text)


def _push(base: Path, url: str) -> None:
    from recallfs.release.push import push, push_target
    from recallfs.resolve.selection import select
    from recallfs.resolve.stores import stores_in_reach

    _write_config(base, with_mirror=True)
    stores = stores_in_reach()
    ((store, entry),) = select(stores, [url])
    push(stores, store, entry, push_target(stores, "mirror:nas"))


if __name__ == "__main__":
    from recallfs.values import parse_size

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="125MB")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    if importlib.util.find_spec("spyglass") is None:
        print("Spyglass is not installed here, so there is nothing to compare with.")
        sys.exit()
    sys.path.insert(0, str(TESTS))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        sys.exit(main(parse_size(given.size), given.runs, Path(folder)))
