"""Downloads to a disk that is really full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TESTS

pytestmark = pytest.mark.services


def test_full_disk_is_told_and_gone_on_from(tmp_path: Path) -> None:
    """A full disk is no outage of the source; once there is room, what came is used."""
    unshare = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "-Urm"]
    done = subprocess.run(
        [*unshare, sys.executable, str(TESTS / "small_partial.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
