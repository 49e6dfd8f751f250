"""Putting recomputed values back into the original's bytes, beside copying and hashing a file."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from recallfs.digest.stream import digest_file
from recallfs.skeleton.build import build_skeleton
from recallfs.skeleton.graft import graft
from suite.recordings import LARGE_CHUNKS, cases_of, write_recording
from suite.selection import Timed, by_selection

SECONDS = by_selection((2, 8), (5, 20, 80))


def recomputed_recordings() -> dict[str, str]:
    """Write recordings, and each again: as it was, and compressed otherwise."""
    base = Path.cwd() / "recomputed"
    for seconds in SECONDS:
        for name, level in (("original", 1), ("again", 1), ("otherwise", 4)):
            place = base / str(seconds) / name
            place.mkdir(parents=True)
            write_recording(place / LARGE_CHUNKS, seconds, level=level)
    return {"base": str(base)}


recomputed_recordings.timeout = 900.0  # type: ignore[attr-defined]


class GraftBenchmark(Timed):
    """All pages are in memory; what is written is not synced."""

    setup_cache = staticmethod(recomputed_recordings)
    param_names = ("case",)
    params = (cases_of(SECONDS),)

    def setup(self, world: dict[str, str], case: dict[str, Any]) -> None:
        """Make the skeleton."""
        self.folder = Path(world["base"]) / case["https_url"]
        self.original = self.folder / "original" / LARGE_CHUNKS
        size = self.original.stat().st_size
        self.sha256 = digest_file(self.original).sha256
        self.skeleton = build_skeleton(
            self.original, sha256=self.sha256, size_bytes=size, max_retained_bytes=size
        )
        self.target = self.folder / "target.nwb"
        self.target.unlink(missing_ok=True)

    def time_recall_graft(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Lay chunks that have the same bytes, and digest the file."""
        self._graft("again")

    def time_recall_graft_encoding(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Encode chunks again that were compressed otherwise, and digest the file."""
        self._graft("otherwise")

    def _graft(self, name: str) -> None:
        graft(self.skeleton, self.folder / name / LARGE_CHUNKS, self.target)
        assert digest_file(self.target).sha256 == self.sha256

    def time_copy_and_sha256(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Do the least that giving a file back takes."""
        shutil.copyfile(self.original, self.target)
        with self.target.open("rb") as file:
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
        assert digest.hexdigest() == self.sha256
