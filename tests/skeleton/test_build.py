"""Making skeletons: what is refused, and what is retained because it could not be relied on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from h5py import h5d, h5p, h5s, h5t, h5z

from recallfs.errors import ConflictError, IntegrityError, InvalidInputError
from recallfs.skeleton.build import build_skeleton
from skeleton.released import Release, Writing

NUMBERS = np.arange(4000, dtype="<i4").reshape(100, 40)


def _build(path: Path, **options: Any) -> Any:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return build_skeleton(path, **{"sha256": sha256, "size_bytes": path.stat().st_size, **options})


def test_digests_are_of_stored_and_of_decoded_bytes(writing: Writing, tmp_path: Path) -> None:
    """The digests can be had without recallfs: of the file's range, and of the array's bytes."""
    with writing("a.h5") as file:
        file.create_dataset("x", data=NUMBERS.astype(">i4"), chunks=(60, 40), compression="gzip")
    skeleton = _build(tmp_path / "a.h5")
    content = (tmp_path / "a.h5").read_bytes()
    for piece, rows in zip(skeleton.pieces, (NUMBERS[:60], NUMBERS[60:]), strict=True):
        stored = content[int(piece["offset"]) : int(piece["offset"] + piece["size"])]
        assert piece["raw"].tobytes() == blake3(stored).digest()
        assert piece["decoded"].tobytes() == blake3(rows.astype(">i4").tobytes()).digest()
    (encoder,) = skeleton.encoders
    assert [(step.code, step.values) for step in encoder.steps] == [(h5z.FILTER_DEFLATE, (4,))]
    assert len(encoder.fingerprint) == 64


def test_progress_adds_up_to_the_file(writing: Writing, tmp_path: Path) -> None:
    """The increments that are reported sum up to the size of the file."""
    with writing("a.h5") as file:
        file["x"] = NUMBERS
        file.create_dataset("y", data=NUMBERS, chunks=(60, 40), compression="gzip")
    steps: list[int] = []
    _build(tmp_path / "a.h5", progress=steps.append)
    assert sum(steps) == (tmp_path / "a.h5").stat().st_size
    assert len(steps) > 3


def test_a_truncated_file_is_refused(writing: Writing, tmp_path: Path) -> None:
    """A file that was cut short is no HDF5 file, however little is missing."""
    with writing("a.h5") as file:
        file["x"] = NUMBERS
    os.truncate(tmp_path / "a.h5", (tmp_path / "a.h5").stat().st_size - 1)
    with pytest.raises(InvalidInputError) as caught:
        _build(tmp_path / "a.h5")
    assert caught.value.kind == "not-hdf5"


def test_a_file_of_another_size_is_refused(writing: Writing, tmp_path: Path) -> None:
    """The size that was digested must be the size that is read."""
    with writing("a.h5") as file:
        file["x"] = NUMBERS
    with pytest.raises(IntegrityError) as caught:
        _build(tmp_path / "a.h5", size_bytes=17)
    assert caught.value.details["expected"] == 17


def test_a_file_that_changes_meanwhile_is_refused(writing: Writing, tmp_path: Path) -> None:
    """A write between the first and the last read is noticed."""
    path = tmp_path / "a.h5"
    with writing("a.h5") as file:
        file["x"] = NUMBERS
    with pytest.raises(IntegrityError, match="changed while it was read"):
        _build(path, progress=lambda _size: os.utime(path, ns=(1, 1)))


def test_a_file_with_too_little_bulk_is_refused(writing: Writing, tmp_path: Path) -> None:
    """Above the limit there is no skeleton, and the error says how much it would keep."""
    with writing("a.h5") as file:
        file["x"] = NUMBERS
        file["text"] = ["word" * 100] * 100
    kept = _build(tmp_path / "a.h5").retained_bytes
    assert _build(tmp_path / "a.h5", max_retained_bytes=kept).retained_bytes == kept
    with pytest.raises(ConflictError) as caught:
        _build(tmp_path / "a.h5", max_retained_bytes=kept - 1)
    assert caught.value.kind == "skeleton-too-large"
    assert caught.value.details["retained_bytes"] == kept


def test_a_missing_filter_is_named(writing: Writing, tmp_path: Path) -> None:
    """Data of a filter that is not here is refused with the filter's number and the dataset."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk(NUMBERS.shape)
    properties.set_filter(31999, h5z.FLAG_OPTIONAL, ())
    with writing("a.h5") as file:
        space = h5s.create_simple(NUMBERS.shape)
        dataset = h5d.create(file.id, b"odd", h5t.STD_I32LE, space, properties)
        dataset.write_direct_chunk((0, 0), NUMBERS.tobytes())
    with pytest.raises(InvalidInputError, match=r"/odd .*31999"):
        _build(tmp_path / "a.h5")


def test_a_chunk_with_odd_padding_is_retained(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """Bytes beyond a dataset's edge that no encoder would write stay in the skeleton."""
    with writing("a.h5") as file:
        dataset = file.create_dataset("x", data=NUMBERS, chunks=(64, 40))
        odd = np.full((64, 40), 77, "<i4")
        odd[:36] = NUMBERS[64:]
        dataset.id.write_direct_chunk((64, 0), odd.tobytes())
    released = release(tmp_path / "a.h5")
    assert released.skeleton.places_of(0)[0].tolist() == [[0, 0]]
    with writing("again.h5") as file:
        file["x"] = NUMBERS
    released.restore(tmp_path / "again.h5")


def test_a_damaged_chunk_is_retained(writing: Writing, tmp_path: Path, release: Release) -> None:
    """A chunk that could not be decoded before will be the same damaged chunk afterwards."""
    with writing("a.h5") as file:
        file.create_dataset("x", data=NUMBERS, chunks=(50, 40), compression="gzip", fletcher32=True)
        info = file["x"].id.get_chunk_info(1)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[info.byte_offset + 100] ^= 0xFF
    (tmp_path / "a.h5").write_bytes(content)
    released = release(tmp_path / "a.h5")
    assert released.skeleton.places_of(0)[0].tolist() == [[0, 0]]
    with writing("again.h5") as file:
        file["x"] = NUMBERS
    released.restore(tmp_path / "again.h5")


def test_datasets_that_share_bytes_are_retained(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """Of two datasets that claim the same range neither is trusted; others are unaffected."""
    with writing("a.h5") as file:
        file["one"] = NUMBERS
        file["two"] = NUMBERS
        file["three"] = NUMBERS
        one, two = (file[name].id.get_offset() for name in ("one", "two"))
    content = (tmp_path / "a.h5").read_bytes()
    claim = two.to_bytes(8, "little")
    assert content.count(claim) == 1
    (tmp_path / "a.h5").write_bytes(content.replace(claim, one.to_bytes(8, "little")))
    released = release(tmp_path / "a.h5")
    assert released.bulk_paths == ["/three"]
    with writing("again.h5") as file:
        file["three"] = NUMBERS
    released.restore(tmp_path / "again.h5")


def test_a_file_without_bulk_is_retained_whole(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """A file of small things comes back from its skeleton alone."""
    with writing("a.h5") as file:
        file["text"] = ["a", "b"]
    released = release(tmp_path / "a.h5")
    assert released.bulk_paths == []
    with writing("again.h5"):
        pass
    assert released.restore(tmp_path / "again.h5").bulk_bytes == 0
