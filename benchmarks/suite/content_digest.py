"""The digest of an NWB file's content, beside Spyglass' hasher and beside decoding alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from recallfs.digest.hdf5 import content_digest
from suite import peers
from suite.recordings import DATA, LARGE_CHUNKS, cases_of, write_recording
from suite.selection import Timed, by_selection

SECONDS = by_selection((2, 10), (5, 20, 80))


def recordings() -> dict[str, str]:
    """Write recordings, in gzip chunks of 10 MB."""
    base = Path.cwd() / "recordings"
    for seconds in SECONDS:
        (base / str(seconds)).mkdir(parents=True)
        write_recording(base / str(seconds) / LARGE_CHUNKS, seconds)
    return {"base": str(base)}


recordings.timeout = 600.0  # type: ignore[attr-defined]


class Recording(Timed):
    """A recording whose pages are in memory."""

    setup_cache = staticmethod(recordings)
    param_names = ("case",)
    params = (cases_of(SECONDS),)

    def setup(self, world: dict[str, str], case: dict[str, Any]) -> None:
        """Read the file once."""
        self.path = Path(world["base"]) / case["https_url"] / LARGE_CHUNKS
        self.path.read_bytes()


class ContentDigestBenchmark(Recording):
    """What inflating alone takes on all cores is the bound of any digest of values."""

    def time_recall_content_digest(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Use all cores."""
        content_digest(self.path)

    def time_recall_one_thread(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Use one core."""
        content_digest(self.path, threads=1)

    def time_h5py_decoding(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Read each chunk once by h5py, and hash nothing."""
        with h5py.File(self.path) as file:
            dataset = file[DATA]
            step = dataset.chunks[0]
            for first in range(0, len(dataset), step):
                dataset[first : first + step]

    def time_inflating_alone(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Inflate each chunk, on all cores."""
        peers.require(peers.has("deflate"), "deflate")
        import deflate

        with h5py.File(self.path) as file:
            dataset = file[DATA].id
            length = int(np.prod(dataset.get_create_plist().get_chunk())) * 2
            places = [
                dataset.get_chunk_info(number).chunk_offset
                for number in range(dataset.get_num_chunks())
            ]

            def one(place: tuple[int, ...]) -> int:
                return len(deflate.zlib_decompress(dataset.read_direct_chunk(place)[1], length))

            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                assert sum(pool.map(one, places)) >= dataset.get_storage_size()


class SpyglassBenchmark(Recording):
    """The peer, in the environment that it is installed in."""

    timeout = 1200.0

    def setup(self, world: dict[str, str], case: dict[str, Any]) -> None:
        """Start it."""
        super().setup(world, case)
        self.hasher = peers.spyglass_hasher(self.path)

    def time_spyglass_hasher(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Digest the file."""
        self.hasher.do()

    def teardown(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Stop it."""
        if hasattr(self, "hasher"):
            self.hasher.stop()
