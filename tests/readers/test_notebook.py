"""A notebook shows the same before and after its file is released."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from conftest import TESTS
from venvs import neighbours


@pytest.mark.services
def test_same_cells_before_and_after(tmp_path: Path) -> None:
    """All that cells print and show is the same; the recall's bar alone is added to one of them."""
    done = subprocess.run(
        [neighbours(), "-W", "ignore", TESTS / "neighbours" / "notebook.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Where an object lies in memory differs from one kernel to the next.
    found = json.loads(re.sub(r"0x[0-9a-f]+", "0x", done.stdout.splitlines()[-1]))
    before, after = found["before"], found["after"]
    text = json.dumps(before[1])
    assert "True" in text
    assert "notebook" in text
    bars = [output for output in after[1] if "recallfs: recall://lab/a.nwb" in json.dumps(output)]
    assert len(bars) == 1
    assert "done" in json.dumps(bars)
    after[1].remove(bars[0])
    assert after == before
