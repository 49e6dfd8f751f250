"""Files that are damaged or made to do harm: one clear error or the right answer, and soon."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from recallfs.digest.difference import compare_files
from recallfs.digest.hdf5 import content_digest
from recallfs.errors import ConflictError, InvalidInputError, RecallError
from recallfs.skeleton.build import build_skeleton
from recallfs.skeleton.graft import graft

RNG = np.random.default_rng(5)


def rebuilt(path: Path) -> bool:
    """Make a file's skeleton, and the file from that and itself; tell whether it is the same."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    skeleton = build_skeleton(path, sha256=sha256, size_bytes=path.stat().st_size)
    target = path.with_name("rebuilt.h5")
    graft(skeleton, path, target)
    content = target.read_bytes()
    target.unlink()
    return hashlib.sha256(content).hexdigest() == sha256


def test_deep_nesting_takes_linear_time(tmp_path: Path) -> None:
    """Three thousand groups in each other are digested, compared and rebuilt like any others."""
    for name, value in (("a.h5", 1), ("b.h5", 2)):
        with h5py.File(tmp_path / name, "w", libver="latest") as file:
            group = file["/"]
            for _ in range(3000):
                group = group.create_group("g")
            group["x"] = np.arange(9000) * value
    start = time.monotonic()
    assert compare_files(tmp_path / "a.h5", tmp_path / "b.h5").differing == 1
    assert rebuilt(tmp_path / "a.h5")
    # Each path from the root takes 20 s for the skeleton alone.
    assert time.monotonic() - start < 15


def test_paths_without_end_are_refused(tmp_path: Path) -> None:
    """A file of 8 MB whose paths would take half a GB is refused before they fill the memory."""
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        group = file["/"]
        for _ in range(130):
            group = group.create_group("g" * 65_000)
    with pytest.raises(InvalidInputError, match="nests its groups too deeply"):
        content_digest(tmp_path / "a.h5")


def test_chunks_of_one_byte(tmp_path: Path) -> None:
    """Thirty thousand of them are digested one by one, and stay in the skeleton."""
    values = RNG.integers(0, 9, 30_000, dtype="u1")
    for name, options in (("a.h5", {"chunks": (1,)}), ("b.h5", {})):
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("x", data=values, **options)
    verdict = compare_files(tmp_path / "a.h5", tmp_path / "b.h5").verdict
    assert verdict == "same content, other layout"
    assert rebuilt(tmp_path / "a.h5")


def test_a_cycle_of_hard_links_ends(tmp_path: Path) -> None:
    """Groups that hold their own parents are walked once."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("a/b/c")
        group["up"], file["a/b/itself"], file["root"] = file["a"], file["a/b"], file["/"]
        group["x"] = np.arange(9000)
    assert set(content_digest(tmp_path / "a.h5").objects) == {
        "/", "/a", "/a/b", "/a/b/c", "/a/b/c/up", "/a/b/c/x", "/a/b/itself", "/root",
    }  # fmt: skip
    assert rebuilt(tmp_path / "a.h5")


def test_links_to_nowhere_are_content_and_missing_data_is_told(tmp_path: Path) -> None:
    """External and soft links need no target; values that lie in a file that is gone are named."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["outside"] = h5py.ExternalLink("/nowhere/none.h5", "/x")
        file["soft"], file["loop"] = h5py.SoftLink("/none"), h5py.SoftLink("/loop")
        file["x"] = np.arange(9000)
    assert len(content_digest(tmp_path / "a.h5").objects) == 5
    assert rebuilt(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.create_dataset("y", (100,), "f8", external=[("/nowhere/raw.bin", 0, 800)])
    with pytest.raises(InvalidInputError, match="unable to open external raw data file"):
        content_digest(tmp_path / "a.h5")
    assert rebuilt(tmp_path / "a.h5")


def test_a_filter_that_is_not_installed_is_named(tmp_path: Path) -> None:
    """Whatever is asked of the file, filter, dataset and what to install are named."""
    plugins = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("z", data=np.arange(9000), chunks=(1000,), **plugins.Zstd())
    content = (tmp_path / "a.h5").read_bytes()
    number, unknown = (32015).to_bytes(2, "little"), (31999).to_bytes(2, "little")
    (tmp_path / "a.h5").write_bytes(content.replace(number, unknown))
    (tmp_path / "b.h5").write_bytes(content.replace(number, unknown) + b"\0")
    for act in (content_digest, rebuilt, lambda path: compare_files(path, tmp_path / "b.h5")):
        with pytest.raises(InvalidInputError, match=r"/z .* filter 31999 .*install the plug-in"):
            act(tmp_path / "a.h5")


def test_a_file_open_for_writing_is_in_use(tmp_path: Path) -> None:
    """While another process writes to it nothing is said of what it holds."""
    code = (
        "import h5py, sys\n"
        "file = h5py.File(sys.argv[1], 'w', libver='latest')\n"
        "file['x'] = range(9000)\n"
        "file.flush(); print('ready', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "a.h5"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for act in (content_digest, rebuilt):
            with pytest.raises(ConflictError, match="open for writing") as caught:
                act(path)
            assert caught.value.kind == "in-use"
        writer.communicate()
    assert content_digest(path).objects["/x"].shape == (9000,)


@pytest.mark.parametrize("act", ["digest", "diff"])
def test_a_file_that_changes_meanwhile_is_not_described(tmp_path: Path, act: str) -> None:
    """Neither digest nor difference is given of a file that somebody wrote to in between."""
    path, other = tmp_path / "a.h5", tmp_path / "b.h5"
    for number, place in enumerate((path, other)):
        with h5py.File(place, "w") as file:
            file.create_dataset("x", data=np.arange(9000) + number, chunks=(1000,))

    def touch(_size: int) -> None:
        os.utime(path, ns=(1, time.monotonic_ns()))

    acts: dict[str, Callable[[], object]] = {
        "digest": lambda: content_digest(path, progress=touch),
        "diff": lambda: compare_files(other, path, progress=touch),
    }
    with pytest.raises(ConflictError, match="was changed while it was read") as caught:
        acts[act]()
    assert caught.value.kind == "in-use"


FLIPPED = """
import json, os, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_bad_input
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
path = Path(sys.argv[2])
print(json.dumps(test_bad_input.flip_bits(path, json.loads(sys.argv[3]))))
"""


def flip_bits(path: Path, places: list[int]) -> list[str]:
    """Flip one bit at a time, and say what came of it."""
    content = path.read_bytes()
    digest = content_digest(path).digest
    damaged = path.with_name("damaged.h5")
    found = []
    for number, place in enumerate(places):
        changed = bytearray(content)
        changed[place] ^= 1 << number % 8
        damaged.write_bytes(changed)
        acts: tuple[Callable[[], object], ...] = (
            lambda: content_digest(damaged).digest == digest,
            lambda: compare_files(damaged, path).verdict,
            lambda: rebuilt(damaged) or "WRONG",
        )
        for act in acts:
            try:
                found.append(str(act()))
            except RecallError as error:
                found.append(error.kind)
    return found


def test_flipped_bits_give_an_error_or_another_digest(tmp_path: Path) -> None:
    """In metadata and chunks: no crash, no hang, only errors of ours, nothing rebuilt wrong."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = RNG.normal(size=(40, 50))
        file.create_dataset("x", data=data, chunks=(20, 50), compression=4, fletcher32=True)
        file["texts"] = ["a", "bb", "ccc"] * 20
        file["texts"].attrs["unit"] = "µV"
        file["table"] = np.zeros(40, dtype=[("a", "i4"), ("b", "f8")])
        file["references"] = np.array([file["x"].ref] * 3, dtype=h5py.ref_dtype)
        file["soft"] = h5py.SoftLink("/x")
        chunk = file["x"].id.get_chunk_info(0)
    metadata = [
        n for n in range(path.stat().st_size) if not 0 <= n - chunk.byte_offset < chunk.size
    ]
    places = RNG.choice(metadata, 60).tolist()
    places += (chunk.byte_offset + RNG.choice(chunk.size, 10)).tolist()
    done = subprocess.run(
        [sys.executable, "-c", FLIPPED, Path(__file__).parent, path, json.dumps(places)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == 3 * len(places)
    assert "WRONG" not in found
    assert {"not-hdf5", "True", "same content, other layout"} <= {*found}
    # The checksum of a chunk finds every bit of it.
    assert found[180::3] == ["not-hdf5"] * 10
