"""Disks without inodes or mounted read-only: what is here is read, what cannot be done is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes import run_with_own_mounts


@pytest.mark.services
@pytest.mark.parametrize("story", ["no-inodes", "read-only"])
def test_odd_disk_loses_nothing(tmp_path: Path, story: str) -> None:
    """Reading goes on, each change is refused with its own exit code, and nothing is half done."""
    said = run_with_own_mounts("odd_disks.py", story, tmp_path)
    assert "Traceback" not in said
