"""Reservations on a small disk, in a mount namespace of its own (see test_budget_users.py)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from recallfs.config import Config, Floor, RecallSettings
from recallfs.errors import SourceError
from recallfs.resolve.budget import hold_slot
from recallfs.sources.base import Need

MEGABYTE = 1024 * 1024


def tell(base: Path) -> None:
    """Go through it step by step; any surprise is an AssertionError."""
    disk = base / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], check=True)
    settings = RecallSettings(keep_free=Floor(fraction=0.1), budget_folder=base / "tickets")
    config = Config(recall=settings)
    order: list[str] = []
    began, finish = threading.Event(), threading.Event()

    def hold(name: str, size: int, *, until: threading.Event | None = None) -> None:
        with hold_slot(config, Need("fetch", size), disk):
            order.append(f"{name} began")
            began.set()
            if until is not None:
                until.wait(20)
            order.append(f"{name} ended")

    first = threading.Thread(target=hold, args=("first", 12 * MEGABYTE), kwargs={"until": finish})
    first.start()
    assert began.wait(10)
    hold("small", 5 * MEGABYTE)  # 12 + 5 leave more than the 2 MB that stay free
    with pytest.raises(SourceError, match="not enough space") as caught:
        hold("hopeless", 19 * MEGABYTE)
    assert caught.value.kind == "no-space"
    second = threading.Thread(target=hold, args=("second", 12 * MEGABYTE))
    second.start()
    time.sleep(1)
    assert order[-1] == "small ended", order
    finish.set()
    first.join()
    second.join(10)
    assert order[-3:] == ["first ended", "second began", "second ended"], order

    (disk / "filler").write_bytes(b"\0" * 17 * MEGABYTE)
    with pytest.raises(SourceError, match="not enough space"):
        hold("full", 2 * MEGABYTE)
    (disk / "filler").unlink()
    hold("again", 17 * MEGABYTE)


if __name__ == "__main__":
    tell(Path(sys.argv[1]))
