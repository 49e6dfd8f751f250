"""Recomputed data that does not give the original's bytes is refused, and what differs is named."""

from __future__ import annotations

import dataclasses
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from recallfs.errors import ConflictError, IntegrityError, InvalidInputError
from recallfs.skeleton.graft import graft
from skeleton.released import WALK, Release, Released, Writing


def _write_pair(writing: Writing, release: Release, tmp_path: Path) -> Released:
    """Release a file of a float series and two others."""
    with writing("a.h5") as file:
        file.create_dataset("acquisition/e", data=WALK / 7, chunks=(100, 33), compression="gzip")
        file["b"] = WALK
        file["c"] = WALK
    return release(tmp_path / "a.h5")


def _refusal(released: Released, tmp_path: Path) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        graft(released.skeleton, tmp_path / "again.h5", tmp_path / "restored.h5")
    assert not (tmp_path / "restored.h5").exists()
    assert caught.value.kind == "digest-mismatch"
    assert caught.value.details["expected"] == released.sha256
    return caught.value


def test_one_ulp_is_refused_and_named(writing: Writing, tmp_path: Path, release: Release) -> None:
    """A change of one value in its last bit is found, named by dataset and chunk, and not kept."""
    released = _write_pair(writing, release, tmp_path)
    data = WALK / 7
    data[450, 3] = np.nextafter(data[450, 3], np.inf)
    data[650, 8] = np.nextafter(data[650, 8], np.inf)
    with writing("again.h5") as file:
        file.create_dataset("acquisition/e", data=data, chunks=(100, 33), compression="gzip")
        file["b"], file["c"] = WALK, WALK
    error = _refusal(released, tmp_path)
    assert error.message == (
        "1 of 3 bulk datasets differs: /acquisition/e (2 of 7 chunks, first at (400, 0))"
    )
    assert error.details["objects"] == [
        {
            "path": "/acquisition/e", "reason": "values", "pieces": 2, "of": 7,
            "first": [400, 0], "note": "",
        }
    ]  # fmt: skip


def test_missing_reshaped_and_retyped_datasets_are_named(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """All that cannot be compared is reported at once."""
    released = _write_pair(writing, release, tmp_path)
    with writing("again.h5") as file:
        file.create_group("acquisition/e")
        file["b"] = WALK[:-1]
        file["c"] = WALK.astype("i4")
    error = _refusal(released, tmp_path)
    reasons = {one["path"]: one["reason"] for one in error.details["objects"]}
    assert reasons == {"/acquisition/e": "missing", "/b": "shape", "/c": "dtype"}
    assert "3 of 3 bulk datasets differ: /acquisition/e (missing); /b (shape (699, 33)" in str(
        error
    )


def test_a_long_list_of_differences_is_cut_in_the_message(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """The message names three; the details name all."""
    with writing("a.h5") as file:
        for number in range(9):
            file[f"x{number}"] = WALK
    released = release(tmp_path / "a.h5")
    with writing("again.h5"):
        pass
    error = _refusal(released, tmp_path)
    assert str(error).endswith("/x2 (missing); and 6 more")
    assert len(error.details["objects"]) == 9


def test_equal_values_in_other_bytes_are_told_apart(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """Where another compressor made the original, the values are said to be equal."""
    with writing("a.h5") as file:
        dataset = file.create_dataset("x", data=WALK, chunks=WALK.shape, compression="gzip")
        huffman_only = zlib.compressobj(4, strategy=zlib.Z_HUFFMAN_ONLY)
        other = huffman_only.compress(WALK.tobytes()) + huffman_only.flush()
        dataset.id.write_direct_chunk((0, 0), other)
    released = release(tmp_path / "a.h5")
    with writing("again.h5") as file:
        file["x"] = WALK
    error = _refusal(released, tmp_path)
    assert [one["reason"] for one in error.details["objects"]] == ["encoding"]
    assert "1 of 1 chunks cannot be re-encoded here" in str(error)
    assert "gzip" in str(error) or "deflate" in str(error)
    assert "here is the one on record" in str(error)
    elsewhere = dataclasses.replace(released.skeleton.encoders[0], fingerprint="0" * 64)
    foreign = dataclasses.replace(
        released,
        skeleton=dataclasses.replace(
            released.skeleton, encoders=(elsewhere,), written_with={"hdf5": "1.10.4"}
        ),
    )
    error = _refusal(foreign, tmp_path)
    assert "another build than the one on record (hdf5 1.10.4)" in str(error)
    with writing("again.h5") as file:
        dataset = file.create_dataset("x", WALK.shape, "<i2", chunks=WALK.shape, compression="gzip")
        dataset.id.write_direct_chunk((0, 0), other)
    assert released.restore(tmp_path / "again.h5").pieces_copied == 1


@pytest.mark.parametrize("damage", ["truncated", "not HDF5", "absent", "chunk"])
def test_a_damaged_recompute_is_refused(
    writing: Writing, tmp_path: Path, release: Release, damage: str
) -> None:
    """A recomputed file that cannot be read is an invalid input, and nothing is left behind."""
    released = _write_pair(writing, release, tmp_path)
    path = tmp_path / "again.h5"
    with writing("again.h5") as file:
        data = WALK / 7
        file.create_dataset("acquisition/e", data=data, chunks=(90, 33), compression="gzip")
        file["b"], file["c"] = WALK, WALK
        info = file["acquisition/e"].id.get_chunk_info(2)
    if damage == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "not HDF5":
        path.write_bytes(b"nothing of the kind")
    elif damage == "absent":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[info.byte_offset : info.byte_offset + 50] = bytes(50)
        path.write_bytes(content)
    with pytest.raises(InvalidInputError) as caught:
        graft(released.skeleton, path, tmp_path / "restored.h5")
    assert caught.value.kind == "not-hdf5"
    assert not (tmp_path / "restored.h5").exists()


def test_an_existing_target_is_left_alone(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """A graft never overwrites anything."""
    released = _write_pair(writing, release, tmp_path)
    (tmp_path / "restored.h5").write_text("mine")
    with pytest.raises(ConflictError):
        graft(released.skeleton, tmp_path / "again.h5", tmp_path / "restored.h5")
    assert (tmp_path / "restored.h5").read_text() == "mine"


def test_a_skeleton_that_is_no_frame_is_damaged(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """Retained bytes that are not an HDF5 file's are found before anything is compared."""
    released = _write_pair(writing, release, tmp_path)
    with writing("again.h5") as file:
        file["b"] = WALK
    wrong = dataclasses.replace(released.skeleton, retained=bytes(len(released.skeleton.retained)))
    with pytest.raises(IntegrityError) as caught:
        graft(wrong, tmp_path / "again.h5", tmp_path / "restored.h5")
    assert caught.value.kind == "damaged-record"
    assert not (tmp_path / "restored.h5").exists()
