"""Fixtures: the filesystem of a lab."""

from __future__ import annotations

import pytest

from conftest import Lab
from recallfs.filesystem import RecallFileSystem


@pytest.fixture
def fs(lab: Lab) -> RecallFileSystem:
    """Give the filesystem of all stores that the lab's configuration names."""
    return RecallFileSystem()
