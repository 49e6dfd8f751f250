"""Chunks are compressed again where the compressors are those that the file was proved with."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

import recallfs
from conftest import Lab, sha256
from recallfs.errors import IntegrityError

pytest.importorskip("hdf5plugin")

FINGERPRINT = """
import h5py, hdf5plugin, sys
from recallfs.hdf5.encoders import ChunkEncoder
options = {"blosc": hdf5plugin.Blosc(cname="zstd"), "deflate": {"compression": 4}}
with h5py.File("x", "w", driver="core", backing_store=False) as file:
    for name, option in options.items():
        made = file.create_dataset(name, (100, 100), "f8", chunks=(100, 100), **option)
        print(ChunkEncoder(made.id).fingerprint())
"""


@pytest.fixture
def other_python(tmp_path: Path) -> Path:
    """Make an environment whose Blosc cuts its blocks otherwise, as other builds of it do."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    here = [str(Path(recallfs.__file__).parents[1]), *site.getsitepackages()]
    # Not in a sitecustomize.py: a Python of Debian's has one that goes before.
    set_them = 'import os; os.environ.update(BLOSC_BLOCKSIZE="4096", BLOSC_SPLITMODE="NEVER")'
    (packages / "here.pth").write_text("\n".join([*here, set_them]))
    return folder / "bin" / "python"


def run(python: Path | str, *arguments: str) -> str:
    """Run a Python to its end; return what it printed."""
    done = subprocess.run(
        [str(python), *arguments], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def released_by(lab: Lab, python: Path, after: str) -> tuple[Path, str]:
    """Make, prove and release a file with an interpreter, compressed otherwise when recomputed."""
    layout = lab.base / "layout"
    layout.write_text("blosc")
    lab.write_raw()
    place, tool = lab.root / "laid.h5", ("-m", "recallfs")
    run(python, *tool, "run", "laid_out", "-o", "recall://lab/laid.h5", "-i",
        "raw=recall://lab/raw.h5", "-p", f"layout_file={layout}")  # fmt: skip
    digest = sha256(place)
    layout.write_text(after)
    run(python, *tool, "prove", str(place), "--hide", "auto")
    lab.release("laid.h5")
    return place, digest


def test_the_two_encoders_differ(other_python: Path) -> None:
    """What follows is worth something: one filter's fingerprint differs, the other's does not."""
    here = run(sys.executable, "-c", FINGERPRINT).split()
    there = run(other_python, "-c", FINGERPRINT).split()
    assert here[0] != there[0]
    assert here[1] == there[1]


def test_another_encoder_here_gives_way_to_the_one_on_record(lab: Lab, other_python: Path) -> None:
    """Chunks that the caller's Blosc cannot make are made where they were proved, or not at all."""
    place, digest = released_by(lab, other_python, "other chunks")
    lab.cli("get", str(place))
    assert sha256(place) == digest
    lab.release("laid.h5")
    shutil.rmtree(other_python.parents[1])
    failed = lab.cli("get", str(place), check=False)
    assert failed.returncode == 65
    assert "`recall env restore" in failed.stderr
    assert not place.exists()


def test_a_proof_is_what_the_environment_on_record_can_do(lab: Lab, other_python: Path) -> None:
    """Proved from a Python whose compressors would do, a file is not proved if its own do not."""
    layout = lab.base / "layout"
    layout.write_text("blosc")
    lab.derive("laid.h5", recipe="laid_out", layout_file=str(layout))
    layout.write_text("other chunks")
    lab.prove("laid.h5")
    record_environment(lab, "laid.h5", other_python)
    with pytest.raises(IntegrityError, match="cannot be re-encoded here") as caught:
        lab.prove("laid.h5")
    said = str(caught.value)
    assert f"(tried with {other_python})" in said
    assert "; blosc here is another build than the one on record (" in said
    assert f"hdf5plugin {version('hdf5plugin')}" in said


def record_environment(lab: Lab, path: str, python: Path) -> None:
    """Put another interpreter on record as the one that a file was proved with."""
    import json

    from recallfs.catalog import records

    (proof,) = records.load(lab.store, lab.entry(path).id).proofs
    kept = lab.store.environment_path(proof.environment_id)
    environment = {**json.loads(kept.read_bytes()), "executable": str(python)}
    kept.write_text(json.dumps(environment))
