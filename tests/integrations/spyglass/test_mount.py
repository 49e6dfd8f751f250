"""Spyglass as it is, with nothing of recallfs in its process, over a mounted analysis folder."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import numpy as np
import pytest

from conftest import sha256
from integrations.spyglass.test_recording import _read_in_child, read, same
from recallfs.cli.app import main
from recallfs.integrations import spyglass
from recallfs.integrations.mount import point

pytestmark = pytest.mark.spyglass


def test_spyglass_unchanged_over_a_mount(proved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """fetch_nwb, get_recording, two readers and a new row all work; nothing is registered anew."""
    from spyglass.spikesorting.v1 import SpikeSortingRecording

    import spyglass_recording

    monkeypatch.setenv("XDG_STATE_HOME", str(proved.base / "state"))
    before, registered = read(proved.recording), proved.external()
    traces = proved.recording.get_recording(proved.key).get_traces()
    digest = proved.release()
    place, size_bytes = proved.place(), len(registered)
    spyglass.uninstall()
    assert not spyglass.is_installed()
    assert main(["mount", str(proved.root), "--store", "analysis"]) == 0
    try:
        assert size_bytes == len(proved.external())
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        readers = [context.Process(target=_read_in_child, args=(proved, answers)) for _ in range(2)]
        for reader in readers:
            reader.start()
        found = [answers.get(timeout=200) for _ in readers]
        for reader in readers:
            reader.join(60)
        assert found == [(before["id"], float(before["data"].sum()))] * 2
        assert same(read(proved.recording), before)
        again = proved.recording.get_recording(proved.key).get_traces()
        assert np.array_equal(again, traces)
        assert sha256(place) == digest
        assert proved.external() == registered
        key = spyglass_recording.make_recording(proved.nwb_file_name, interval=(0.5, 3.5))
        written = SpikeSortingRecording & key
        assert read(written)["data"].shape[0] in range(59_000, 61_000)
        new = proved.place(written)
        proved.close()
    finally:
        proved.close()
        point.unmount(proved.root, lazy=True)
        while point.mounted(proved.root) is not None:
            time.sleep(0.02)
    assert sha256(place) == digest
    assert new.stat().st_size > 0
    written.delete(safemode=False)
