"""Mirrors that are the store by another name, and disks that are full or read-only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TESTS

pytestmark = pytest.mark.services


def test_mirrors_on_real_mounts(tmp_path: Path) -> None:
    """A bind mount of the store is no mirror; a full or read-only disk gets no half file."""
    unshare = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "-Urm"]
    done = subprocess.run(
        [*unshare, sys.executable, str(TESTS / "mirror_disks.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
