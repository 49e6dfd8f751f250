"""Downloads to a disk that is really full."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes import run_with_own_mounts

pytestmark = pytest.mark.services


def test_full_disk_is_told_and_gone_on_from(tmp_path: Path) -> None:
    """A full disk is no outage of the source; once there is room, what came is used."""
    run_with_own_mounts("small_partial.py", tmp_path)
