"""A notebook shows the same before and after its file is released."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from venvs import told_by_neighbours


@pytest.mark.services
def test_same_cells_before_and_after(tmp_path: Path) -> None:
    """All that cells print and show is the same; the recall's bar alone is added to one of them."""
    told = told_by_neighbours("notebook", folder=tmp_path)
    # Where an object lies in memory differs from one kernel to the next.
    found = json.loads(re.sub(r"0x[0-9a-f]+", "0x", told))
    before, after = found["before"], found["after"]
    text = json.dumps(before[1])
    assert "True" in text
    assert "notebook" in text
    bars = [output for output in after[1] if "recallfs: recall://lab/a.nwb" in json.dumps(output)]
    assert len(bars) == 1
    assert "done" in json.dumps(bars)
    after[1].remove(bars[0])
    assert after == before
