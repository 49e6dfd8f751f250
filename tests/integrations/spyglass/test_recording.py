"""A recording of Spyglass' own is adopted, proved, released, and read as if nothing had been."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from conftest import sha256
from recallfs.errors import ConflictError
from recallfs.integrations import spyglass
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import Level

pytestmark = pytest.mark.spyglass


def read(recording: Any) -> dict[str, Any]:
    """Return what a user's cell shows: series, ids, times."""
    (row,) = recording.fetch_nwb()
    series = row["object_id"]
    return {
        "data": series.data[:],
        "timestamps": series.timestamps[:],
        "id": series.object_id,
        "electrodes": row["electrodes_id"],
        "file": series.get_ancestor("NWBFile").object_id,
        "name": row["analysis_file_name"],
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Compare two answers of `read`."""
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def test_the_same_cell_before_and_after_release(proved: Any) -> None:
    """`fetch_nwb` recomputes a released file to the same data, ids and bytes; no row is written."""
    before, registered = read(proved.recording), proved.external()
    digest = proved.release()
    assert same(read(proved.recording), before)
    assert sha256(proved.place) == digest
    assert proved.external() == registered
    (entry,) = stores_in_reach().by_name("analysis").catalog.entries_below("")
    assert entry.sha256 == digest
