"""Marks that killed HDF5 writers leave: healed in place, and nothing else is."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from actors import die_with_file_open, wait_for, write_without_locking
from conftest import Lab, sha256
from processes import start
from recallfs.doctor.examination import Outcome, examine
from recallfs.resolve.commit import add_existing

LAYOUTS: dict[str, dict[str, Any]] = {
    "v0": {},
    "v0 with a user block": {"userblock_size": 512},
    "v2": {"libver": ("v108", "v108")},
    "v3": {"libver": "latest"},
    "v3 with a user block": {"libver": "latest", "userblock_size": 2048},
    "v3 behind a block of digests": {"libver": "latest", "userblock_size": 8 * 1024 * 1024},
}


def write(lab: Lab, **layout: Any) -> Path:
    """Write and catalog an HDF5 file."""
    place = lab.root / "a.h5"
    with h5py.File(place, "w", **layout) as file:
        # More than the largest user block, so that the superblock is found again behind it.
        file["data"] = np.random.default_rng(0).normal(size=(1000, 100))
    add_existing(lab.store, ["a.h5"])
    return place


def kill_writer(place: Path, how: str = "open") -> None:
    """Let another process open a file for writing, and die with it."""
    process = start(die_with_file_open, str(place), how)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def flags(fix: bool = False) -> list[Outcome]:
    return [o for o in examine(fix=fix).outcomes if o.finding.id == "hdf5-flags"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", ["open", "swmr"])
def test_killed_writer_is_healed(lab: Lab, layout: str, how: str) -> None:
    """A file that a writer was killed with has its sha256 and its modification time again."""
    if how == "swmr" and not layout.startswith("v3"):
        how = "open-latest"
    place = write(lab, **LAYOUTS[layout])
    before, mtime = sha256(place), place.stat().st_mtime_ns
    kill_writer(place, how)
    assert sha256(place) != before, "the writer left no marks"
    marked = place.read_bytes()
    (told,) = flags()
    assert told.finding.mend is not None
    assert place.read_bytes() == marked
    (mended,) = flags(fix=True)
    assert mended.done, mended.failure
    assert (sha256(place), place.stat().st_mtime_ns) == (before, mtime)
    assert lab.cli_json("show", "recall://lab/a.h5")["state"] == "resident"
    assert not flags()
    with h5py.File(place, "r") as file:
        assert file["data"].shape == (1000, 100)


def test_marks_that_were_recorded_are_kept(lab: Lab) -> None:
    """A file that was cataloged with marks gets those back, not clean ones."""
    place = lab.root / "a.h5"
    with h5py.File(place, "w", libver="latest") as file:
        file["data"] = np.arange(1000)
    kill_writer(place)
    add_existing(lab.store, ["a.h5"])
    before = sha256(place)
    with place.open("r+b") as file:
        file.seek(11)
        file.write(b"\x05")
    flags(fix=True)
    assert sha256(place) == before


@pytest.mark.parametrize("change", ["data", "data and flags", "length", "checksum only"])
def test_real_changes_are_never_touched(lab: Lab, change: str) -> None:
    """A file whose data differs as well, by one bit, is left exactly as it is."""
    place = write(lab, libver="latest")
    if change == "data and flags":
        kill_writer(place)
    content = bytearray(place.read_bytes())
    if change == "length":
        content += b"\0"
    elif change == "checksum only":
        content[44] ^= 1
    else:
        content[-5] ^= 1
    place.write_bytes(content)
    outcomes = examine(fix=True).outcomes
    if change == "checksum only":
        # The bytes that the marks decide are all that differs: that is healed, too.
        assert sha256(place) == lab.entry("a.h5").sha256
        return
    assert "file-changed" in {outcome.finding.id for outcome in outcomes}
    assert place.read_bytes() == bytes(content)


def test_open_file_is_left_alone(lab: Lab) -> None:
    """While a writer lives its marks are right; they are not healed away under it."""
    place = write(lab, libver="latest")
    ready = lab.base / "ready"
    process = start(write_without_locking, str(place), str(ready))
    wait_for(ready, process)
    marked = place.read_bytes()
    (outcome,) = flags(fix=True)
    assert outcome.is_left
    assert "open in another process" in str(outcome.failure)
    assert place.read_bytes() == marked
    process.kill()
    process.join()
    (outcome,) = flags(fix=True)
    assert outcome.done


def test_written_data_is_not_lost(lab: Lab) -> None:
    """A killed writer that had written keeps what it wrote."""
    place = write(lab, libver="latest")
    kill_writer(place, "write")
    after = place.read_bytes()
    assert not flags(fix=True)
    assert place.read_bytes() == after


def test_what_is_not_hdf5_is_passed_over(lab: Lab) -> None:
    """Short, empty and other files are not taken for HDF5."""
    for number, content in enumerate((b"", b"\x89HDF", b"\x89HDF\r\n\x1a\n\x00", b"x" * 3000)):
        place = lab.add(f"{number}.bin", content)
        place.write_bytes(content[::-1])
        os.utime(place, (1, 1))
    assert not flags(fix=True)
