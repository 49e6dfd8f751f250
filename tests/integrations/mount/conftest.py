"""A lab whose store is mounted."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import Lab
from recallfs.cli.app import main
from recallfs.integrations.mount import point

WAYS = {
    "passthrough": "pass",
    "served": "passthrough._OPEN = 0",  # the kernel leaves all reading to the server
    "plain": "passthrough._VERSIONS = range(0)",  # libfuse does not let us add to its answers
}


@dataclass
class Mount:
    """A mounted store."""

    lab: Lab
    place: Path

    def start(self) -> None:
        """Mount it, in the background."""
        assert main(["mount", str(self.place), "--store", "lab"]) == 0

    def start_as(self, way: str) -> None:
        """Mount it as on a system that can do less, one of `WAYS`."""
        program = (
            "import sys; from recallfs.cli.app import main; "
            "from recallfs.integrations.mount import passthrough; "
            f"{WAYS[way]}; sys.exit(main(sys.argv[1:]))"
        )
        words = ["mount", str(self.place), "--store", "lab", "--foreground"]
        subprocess.Popen([sys.executable, "-c", program, *words]).returncode = 0
        while point.mounted(self.place) is None:
            time.sleep(0.01)

    @property
    def log(self) -> str:
        """What its process has told."""
        return (self.lab.base / "state" / "recallfs" / "log" / "mount-lab.log").read_text()

    def pids(self) -> tuple[int, int]:
        """Return the server's process and the keeper's."""
        server, keeper = -1, -1
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if str(self.place).encode() in words:
                    if b"recall-keeper" in words:
                        keeper = int(folder.name)
                    elif b"--foreground" in words:
                        server = int(folder.name)
        return server, keeper

    def wait_until_gone(self, seconds: float = 20) -> None:
        """Wait until nothing is mounted, and its processes have ended."""
        end = time.monotonic() + seconds
        while point.mounted(self.place) is not None or self.pids() != (-1, -1):
            assert time.monotonic() < end, f"still there: {self.pids()}"
            time.sleep(0.02)


@pytest.fixture
def mount(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    """Give a store that is not mounted yet, and unmount it in the end."""
    monkeypatch.setenv("XDG_STATE_HOME", str(lab.base / "state"))
    place = lab.base / "mnt"
    place.mkdir()
    mount = Mount(lab, place)
    yield mount
    for one in (place, lab.root):
        if point.mounted(one) is not None:
            point.unmount(one, lazy=True)
    mount.wait_until_gone()


def run(*command: str | Path) -> str:
    """Run a program that must succeed; return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
