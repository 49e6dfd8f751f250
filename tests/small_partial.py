"""A download on a small disk, in a mount namespace of its own (see test_small_disk.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from faulty_server import Thing, serving
from recallfs.errors import SourceError
from transfer_actors import fetch

SIZE = 20_000_000


def tell(base: Path) -> None:
    """Go through it step by step; any surprise is an AssertionError."""
    disk = base / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(disk)], check=True)
    with serving() as site:
        content = os.urandom(SIZE)
        site.things["/x"] = Thing(content, etag=lambda _: '"e"')
        with pytest.raises(SourceError, match="no space left") as caught:
            fetch(site.url(), str(disk), SIZE, b"")
        assert caught.value.kind == "no-space"
        assert not (disk / "got").exists()
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        done = fetch(site.url(), str(disk), SIZE, b"")
        assert done.reused_bytes > 5_000_000
        assert (disk / "got").read_bytes() == content


if __name__ == "__main__":
    tell(Path(sys.argv[1]))
