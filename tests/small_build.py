"""Building an environment on a small disk, in a mount namespace of its own (see test_conda.py)."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from channels import write_package
from conftest import sha256
from recallfs.config import EnvironmentSettings
from recallfs.environment.restore import restore
from recallfs.errors import SourceError


def tell(base: Path) -> None:
    """Fill it while a package comes, then while it is unpacked; nothing is left behind."""
    disk = base / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    for name, content in (("noise", os.urandom(3_000_000)), ("zeros", bytes(3_000_000))):
        channel = base / name
        place = write_package(channel, name, "1.0", {"lib/large": content})
        recorded = {
            "python": platform.python_version(),
            "conda": {name: "1.0=0"},
            "conda_files": {name: {"url": place.as_uri(), "sha256": sha256(place)}},
        }
        settings = EnvironmentSettings(disk / "built", (), (channel.as_uri(),))
        with pytest.raises(SourceError, match=r"no space left on the disk at .*disk ") as caught:
            restore(name, recorded, settings)
        assert caught.value.kind == "no-space"
        assert list((disk / "built").iterdir()) == []


if __name__ == "__main__":
    tell(Path(sys.argv[1]))
