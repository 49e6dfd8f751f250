"""Mirrors that are the store by another name, and disks that are full or read-only."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes import run_with_own_mounts

pytestmark = pytest.mark.services


def test_mirrors_on_real_mounts(tmp_path: Path) -> None:
    """A bind mount of the store is no mirror; a full or read-only disk gets no half file."""
    run_with_own_mounts("mirror_disks.py", tmp_path)
