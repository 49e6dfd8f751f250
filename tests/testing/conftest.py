"""Which tests there are, and files to serve."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

# The DANDI client is not made for Python 3.10.
collect_ignore = ["test_dandi_client.py"] if sys.version_info < (3, 11) else []


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give a file of 3,000,000 bytes, no two of its parts alike."""
    path = tmp_path / "data.nwb"
    path.write_bytes(np.random.default_rng(4).bytes(3_000_000))
    return path
