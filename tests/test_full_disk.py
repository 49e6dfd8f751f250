"""A full disk: one clear error, nothing half-written, and all is well once there is space."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TESTS


@pytest.mark.services
def test_full_disk_loses_nothing(tmp_path: Path) -> None:
    """Recalls, runs and writes on a full disk are refused as such, and work when it is not."""
    unshare = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "-Urm"]
    done = subprocess.run(
        [*unshare, sys.executable, str(TESTS / "full_disk.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr
