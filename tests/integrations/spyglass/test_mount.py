"""Spyglass as it is, with nothing of recallfs in its process, over a mounted analysis folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from conftest import sha256
from integrations.spyglass.test_recording import assert_two_get, read, same
from recallfs.cli.app import main
from recallfs.integrations import spyglass
from recallfs.integrations.mount import point

pytestmark = pytest.mark.spyglass


def test_spyglass_unchanged_over_a_mount(proved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """fetch_nwb, get_recording, two readers and a new file all work; nothing is registered anew."""
    import pynwb
    from spyglass.common import AnalysisNwbfile

    monkeypatch.setenv("XDG_STATE_HOME", str(proved.base / "state"))
    before, registered = read(proved.recording), proved.external()
    traces = proved.recording.get_recording(proved.key).get_traces()
    digest = proved.release()
    place = proved.place()
    spyglass.uninstall()
    assert not spyglass.is_installed()
    assert main(["mount", str(proved.root), "--store", "analysis"]) == 0
    try:
        assert_two_get(proved, before)
        assert same(read(proved.recording), before)
        again = proved.recording.get_recording(proved.key).get_traces()
        assert np.array_equal(again, traces)
        assert sha256(place) == digest
        assert proved.external() == registered
        name = AnalysisNwbfile().create(proved.nwb_file_name)  # what each table writes to
        new = Path(AnalysisNwbfile().get_abs_path(name, from_schema=False))
        assert new.is_relative_to(proved.root)
        with pynwb.NWBHDF5IO(new, "a") as io:
            file = io.read()
            file.add_scratch(np.arange(5), name="numbers", description="added")
            io.write(file)
        with h5py.File(new, "r", locking=True) as file:
            assert list(file["scratch/numbers"]) == list(range(5))
    finally:
        proved.close()
        point.unmount(proved.root, lazy=True)
        while point.mounted(proved.root) is not None:
            time.sleep(0.02)
    assert sha256(place) == digest
    assert new.stat().st_size > 0
    new.unlink()
