"""A full disk: one clear error, nothing half-written, and all is well once there is space."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes import run_with_own_mounts


@pytest.mark.services
def test_full_disk_loses_nothing(tmp_path: Path) -> None:
    """Recalls, runs and writes on a full disk are refused as such, and work when it is not."""
    said = run_with_own_mounts("full_disk.py", tmp_path)
    assert "no space left" in said
    assert "Traceback" not in said
