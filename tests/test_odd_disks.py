"""Disks without inodes or mounted read-only: what is here is read, what cannot be done is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TESTS


@pytest.mark.services
@pytest.mark.parametrize("story", ["no-inodes", "read-only"])
def test_odd_disk_loses_nothing(tmp_path: Path, story: str) -> None:
    """Reading goes on, each change is refused with its own exit code, and nothing is half done."""
    unshare = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "-Urm"]
    done = subprocess.run(
        [*unshare, sys.executable, str(TESTS / "odd_disks.py"), story, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
