"""The most memory that a process of its own takes while it digests an NWB file."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from suite import peers
from suite.content_digest import Recording
from suite.selection import tracked

MEASURE = """
import pathlib, resource, sys
path = pathlib.Path(sys.argv[1])
{action}
# A child inherits ru_maxrss from its parent, so Linux' own count of this process comes first.
try:
    status = pathlib.Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
except FileNotFoundError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


class PeakMemoryBenchmark(Recording):
    """Whole processes, interpreter and imports included."""

    def _peak(self, action: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE.format(action=action), self.path],
            capture_output=True,
            text=True,
            check=True,
            env=dict(os.environ),
        )
        return tracked({"peak_memory_in_MB": int(done.stdout) / 1e6})

    def track_recall_content_digest(
        self, _world: dict[str, str], _case: dict[str, Any]
    ) -> dict[str, Any]:
        """Digest the content."""
        return self._peak("from recallfs.digest.hdf5 import content_digest; content_digest(path)")

    def track_recall_all_digests(
        self, _world: dict[str, str], _case: dict[str, Any]
    ) -> dict[str, Any]:
        """Digest the bytes."""
        return self._peak("from recallfs.digest.stream import digest_file; digest_file(path)")

    def track_h5py_import(self, _world: dict[str, str], _case: dict[str, Any]) -> dict[str, Any]:
        """Do nothing but import h5py, for scale."""
        return self._peak("import h5py")

    def track_spyglass_hasher(
        self, _world: dict[str, str], _case: dict[str, Any]
    ) -> dict[str, Any]:
        """Digest by the peer."""
        hasher = peers.spyglass_hasher(self.path)
        try:
            return tracked({"peak_memory_in_MB": int(hasher.do()) / 1e6})
        finally:
            hasher.stop()
