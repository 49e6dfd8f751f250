"""What the causes of faults do alike: write a file, flip a bit, kill a process at work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from actors import hold_lease_and_staging, wait_for
from conftest import Lab
from mirrored import CONTENT
from processes import start
from recallfs.resolve.commit import add_existing

Cause = Callable[[Lab], Path | None]


def write_file(lab: Lab, path: str = "a.bin", content: bytes = CONTENT) -> Path:
    place = lab.root / path
    place.write_bytes(content)
    add_existing(lab.store, [path])
    return place


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def skeleton(lab: Lab) -> Path:
    (path,) = (lab.root / ".recall/skeletons").rglob("*.rsk1")
    return path


def kill(lab: Lab, what: str) -> None:
    """Let a process take something in hand, and kill it."""
    ready = lab.base / "ready"
    process = start(hold_lease_and_staging, what, "a.bin", str(ready))
    wait_for(ready, process)
    process.kill()
    process.join()
