"""NWB files of made-up recordings, and a store that released them to a far mirror."""

from __future__ import annotations

import json
import os
import shutil
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent
RATE_HZ = 30_000
CHANNELS = 64
SERIES = "e"
DATA = f"acquisition/{SERIES}/data"

LARGE_CHUNKS, SMALL_CHUNKS, APPENDED = "large-chunks.nwb", "small-chunks.nwb", "appended.nwb"
"""In gzip chunks of 10 MB; of 80 KB; and of 10 MB in a file that was appended to ten times."""


def cases_of(lengths_s: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return a case for a recording of each length, whose ``https_url`` is that length."""
    sizes = {seconds: seconds * RATE_HZ * CHANNELS * 2 for seconds in lengths_s}
    return [
        {"name": f"Ecephys{size // 1_000_000}MB", "https_url": str(seconds), "size_bytes": size}
        for seconds, size in sizes.items()
    ]


def write_recording(place: Path, seconds: float, *, level: int = 1) -> None:
    """Write a recording of noise, with the few objects that each NWB file has."""
    import numpy as np
    from hdmf.backends.hdf5 import H5DataIO
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.ecephys import ElectricalSeries

    rng = np.random.default_rng(0)
    rows = int(seconds * RATE_HZ)
    chunks = (10_000, 4) if place.name == SMALL_CHUNKS else (81_920, CHANNELS)
    first = rows // 2 if place.name == APPENDED else rows

    def values(count: int) -> Any:
        return rng.normal(0, 40, (count, CHANNELS)).astype(np.int16)

    nwb = NWBFile("a recording", place.stem, datetime(2026, 1, 1, tzinfo=timezone.utc))
    device = nwb.create_device("probe")
    group = nwb.create_electrode_group("g", "shank", "CA1", device)
    for number in range(CHANNELS):
        nwb.add_electrode(x=float(number), y=0.0, z=0.0, location="CA1", group=group)
    region = nwb.create_electrode_table_region(list(range(CHANNELS)), "all")
    data = H5DataIO(
        values(first), chunks=chunks, compression="gzip", compression_opts=level,
        maxshape=(None, CHANNELS),
    )  # fmt: skip
    nwb.add_acquisition(ElectricalSeries(SERIES, data, region, rate=float(RATE_HZ)))
    for number in range(400):
        nwb.add_trial(start_time=number * 0.5, stop_time=number * 0.5 + 0.4)
    with NWBHDF5IO(place, "w") as io:
        io.write(nwb)
    if place.name != APPENDED:
        return
    import h5py

    step = (rows - first) // 10
    for _ in range(10):
        with h5py.File(place, "r+") as file:
            series = file[DATA]
            series.resize(series.shape[0] + step, axis=0)
            series[-step:] = values(step)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def configure(
    base: Path, port: int, *, sources: tuple[str, ...] = ("mirror",), recipes: str = ""
) -> None:
    """Write the configuration: which sources there are; this process and its children take it."""
    text = f'[recipes]\nmodules = ["{recipes}"]\npaths = ["{FOLDER}"]\n' if recipes else ""
    text += f'[stores.far]\nroot = "{base / "far"}"\n[cache]\nfolder = "{base / "cache"}"\n'
    text += "[release]\ncopies = 1\n"
    for source in ("kachery", "dandi"):
        text += f"[sources.{source}]\nenabled = {json.dumps(source in sources)}\n"
    if "mirror" in sources:
        text += (
            f'[[sources.mirror]]\nname = "far"\nurl = "http://127.0.0.1:{port}"\n'
            'layout = "sha256"\nfailure_domain = "elsewhere"\n'
        )
    (base / "config.toml").write_text(text)
    os.environ["RECALLFS_CONFIG"] = str(base / "config.toml")
    os.environ["XDG_STATE_HOME"] = str(base / "state")


def release(name: str) -> None:
    """Release a file of the store ``far``, whose mirror must answer."""
    from recallfs.catalog.records import known_entry
    from recallfs.release.assessment import assess
    from recallfs.release.policy import Wanted
    from recallfs.release.release import release as release_file
    from recallfs.resolve.stores import stores_in_reach
    from recallfs.values import parse_span

    stores = stores_in_reach()
    store = stores.by_name("far")
    wanted = Wanted(hold=parse_span("0s"), max_skeleton=1.0)
    entry = known_entry(store, name)
    release_file(stores, store, entry, assess(stores, store, entry, wanted), wanted)


def make_far_store(base: Path, names: tuple[str, ...], seconds: float, *, keep: bool) -> int:
    """Make recordings in the store ``far`` and their copies in ``served``; return the port to use.

    Parameters
    ----------
    base : Path
        An empty folder.
    keep : bool
        Whether the files stay resident; else they are released.
    """
    from recallfs.catalog.records import known_entry
    from recallfs.catalog.store import create_store
    from recallfs.release.original import with_skeleton
    from recallfs.resolve.commit import add_existing
    from recallfs.resolve.stores import stores_in_reach
    from recallfs.testing.http import Files

    port = free_port()
    configure(base, port)
    served = base / "served"
    served.mkdir()
    create_store(base / "far", "far", vault=base / "vault")
    with Files(served, port=port):
        for name in names:
            write_recording(served / name, seconds)
            shutil.copyfile(served / name, base / "far" / name)
            store = stores_in_reach().by_name("far")
            add_existing(store, [name])
            entry = known_entry(store, name)
            with_skeleton(store, entry, store.root / name)
            offer(served, served / name, entry.sha256)
            if not keep:
                release(name)
    return port


def offer(served: Path, file: Path, sha256: str) -> None:
    """Put a file where the mirror has it."""
    copy = served / "sha256" / sha256[:2] / sha256[2:4] / sha256
    copy.parent.mkdir(parents=True, exist_ok=True)
    os.link(file, copy)
