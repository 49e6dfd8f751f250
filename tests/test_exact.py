"""Exact recall of real NWB files: written by plain pynwb, with nothing seeded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from conftest import Lab
from recallfs.cli import schemas
from recallfs.cli.schemas import strict

pytest.importorskip("pynwb")
pytest.importorskip("scipy")

SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "nwb"


def test_demonstration_is_exact(lab: Lab) -> None:
    """The demonstration brings an unseeded file back exactly, from a mirror and by recompute.

    What it prints fits its schema, and what it leaves is in order.
    """
    kept = lab.base / "demo"
    document = lab.cli_json("demo", "--seconds", "2", "--keep", str(kept))
    jsonschema.validate(document, strict(schemas.document("demo")))
    assert document["exact"]
    sources = [opening["source"] for opening in document["openings"]]
    assert sources == ["mirror:lab", "recompute"]
    assert {opening["sha256"] for opening in document["openings"]} == {document["sha256_before"]}
    assert all(opening["freed_bytes"] > 500_000 for opening in document["openings"])
    lab.environment["RECALLFS_CONFIG"] = str(kept / "config.toml")
    findings = lab.cli_json("doctor")["findings"]
    assert {finding["id"] for finding in findings} <= {"vault-same-disk"}
    url = "recall://analysis/derived/sub-1_lfp.nwb"
    lab.cli("release", url, "--yes", "--hold", "0s")
    steps = lab.cli("explain", url).stdout
    assert "recompute" in steps
    assert "mirror" not in steps


UNCHANGED = """
import sys
from pynwb import NWBHDF5IO
import h5py
import recallfs
recallfs.install()
path, = sys.argv[1:]
with NWBHDF5IO(path, "r") as io:
    print(io.read().processing["ecephys"]["LFP"]["lfp"].data.shape)
"""


def test_unchanged_script_reads_a_released_file(lab: Lab) -> None:
    """A script that knows only a plain path reads a released NWB file, in a process of its own."""
    from recallfs.cli.demo.recording import write_recording

    write_recording(lab.root / "raw.nwb", 1)
    lab.cli("add", str(lab.root / "raw.nwb"))
    lab.cli("run", "demo.lfp", "-o", "recall://lab/lfp.nwb", "-i", "raw=recall://lab/raw.nwb")
    lab.prove("lfp.nwb")
    lab.release("lfp.nwb")
    done = subprocess.run(
        [sys.executable, "-c", UNCHANGED, str(lab.root / "lfp.nwb")],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2500, 64)"
    assert "was released" in done.stderr


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.nwb")), ids=lambda path: path.name)
def test_real_file_is_catalogued_and_copied_back(lab: Lab, sample: Path) -> None:
    """A real file of an older pynwb is added, taken away, and comes back from a mirror."""
    import shutil

    from conftest import sha256

    folder = lab.base / "mirror"
    folder.mkdir()
    lab.write_config(f'[[sources.mirror]]\nname = "m"\nurl = "file://{folder}"\n')
    place = lab.root / sample.name
    shutil.copyfile(sample, place)
    before = sha256(sample)
    lab.cli("add", str(place))
    shutil.copyfile(sample, folder / sample.name)
    place.unlink()
    lab.cli("get", str(place))
    assert sha256(place) == before
