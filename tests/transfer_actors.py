"""What other processes do in the tests of transfers."""

from __future__ import annotations

import resource
from pathlib import Path

from recallfs.transfer.download import Downloaded, Limits, Wanted, download
from recallfs.transfer.http import Client
from recallfs.transfer.remote import HttpRemote, Location
from recallfs.transfer.timing import Deadlines


def fetch(
    url: str, folder: str, size_bytes: int, blocks: bytes, *, name: str = "got", streams: int = 4
) -> Downloaded:
    """Download a URL into a folder."""
    deadlines = Deadlines(connect_s=1, read_s=5)
    return download(
        HttpRemote(Client(), lambda _: Location(url), deadlines=deadlines, source="lab"),
        Wanted(size_bytes, blocks),
        partials=Path(folder) / "partials",
        key="k",
        target=Path(folder) / name,
        deadlines=deadlines,
        limits=Limits(streams=streams),
        source="lab",
    )


def fetch_measured(url: str, folder: str, size_bytes: int, growth: str) -> None:
    """Download, and write down by how many bytes the process has grown meanwhile."""

    def peak_bytes() -> int:
        # A child inherits ru_maxrss from its parent, so Linux' own count of this process is taken.
        status = Path("/proc/self/status")
        if not status.exists():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024

    before = peak_bytes()
    fetch(url, folder, size_bytes, b"")
    Path(growth).write_text(str(peak_bytes() - before))
