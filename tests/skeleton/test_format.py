"""The skeleton's own form: complete, checked, and readable for as long as it may lie."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from recallfs.errors import IntegrityError
from recallfs.skeleton.format import EXTENT, PIECE, Skeleton, SkeletonDataset
from recallfs.skeleton.graft import graft

GOLDEN = Path(__file__).with_name("golden")


def _skeleton(n_pieces: int = 3) -> Skeleton:
    """Make a skeleton of a file of 100-byte chunks, each followed by 10 bytes of metadata."""
    rng = np.random.default_rng(5)
    pieces = np.zeros(n_pieces, dtype=PIECE)
    pieces["offset"] = np.arange(n_pieces) * 110
    pieces["size"] = 100
    pieces["raw"] = rng.integers(0, 256, (n_pieces, 32))
    pieces["decoded"] = rng.integers(0, 256, (n_pieces, 32))
    extents = np.zeros(n_pieces, dtype=EXTENT)
    extents["offset"] = pieces["offset"] + 100
    extents["size"] = 10
    starts = np.stack((np.arange(n_pieces) * 25, np.zeros(n_pieces)), axis=1)
    counts = np.full((n_pieces, 2), (25, 2))
    return Skeleton(
        size_bytes=n_pieces * 110,
        sha256="0" * 64,
        extents=extents,
        retained=bytes(10 * n_pieces),
        datasets=(SkeletonDataset("/x", (25 * n_pieces, 2), (25, 2), 2, n_pieces),),
        pieces=pieces,
        coordinates=np.concatenate((starts.ravel(), counts.ravel())).astype("<u8"),
        written_with={"hdf5": "1.0"},
    )


@pytest.mark.parametrize("n_pieces", [0, 1, 100_000])
def test_a_skeleton_survives_its_bytes(n_pieces: int) -> None:
    """All fields come back, for no pieces and for very many."""
    before = _skeleton(n_pieces)
    after = Skeleton.from_bytes(before.to_bytes())
    for field in dataclasses.fields(Skeleton):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other
    assert after.stored_bytes == len(before.to_bytes())
    assert after.retained_bytes == 10 * n_pieces
    assert after.bulk_bytes == 100 * n_pieces


def test_a_cut_chunk_is_for_readers_that_know_of_it() -> None:
    """What is skipped comes back; a reader that would not skip it is told to refuse the record."""
    before = _skeleton()
    assert b'"requires":[]' in before.to_bytes()
    pieces = _with_column(before.pieces, "skip", [0, 7, 2**40])
    record = dataclasses.replace(before, pieces=pieces).to_bytes()
    assert b'"requires":["cut-chunks"]' in record
    assert Skeleton.from_bytes(record).pieces["skip"].tolist() == [0, 7, 2**40]


def test_places_belong_to_their_dataset() -> None:
    """With datasets of different rank each one's starts, counts and pieces are its own."""
    one = _skeleton(3)
    second = SkeletonDataset("/y", (50,), None, 2, 1)
    coordinates = np.concatenate((one.coordinates, np.array([0, 50], dtype="<u8")))
    pieces = np.concatenate((one.pieces, one.pieces[:1]))
    pieces["dataset"][3], pieces["offset"][3] = 1, 330
    both = dataclasses.replace(
        one,
        size_bytes=430,
        datasets=(*one.datasets, second),
        pieces=pieces,
        coordinates=coordinates,
    )
    both.check()
    starts, counts = both.places_of(0)
    assert (starts.tolist(), counts[2].tolist()) == ([[0, 0], [25, 0], [50, 0]], [25, 2])
    starts, counts = both.places_of(1)
    assert (starts.tolist(), counts.tolist()) == ([[0]], [[50]])
    assert both.pieces_of(1)["offset"].tolist() == [330]


def test_a_flipped_bit_is_noticed() -> None:
    """Wherever one bit is wrong, the record is damaged, never read."""
    record = _skeleton().to_bytes()
    rng = np.random.default_rng(6)
    for position in rng.choice(8 * len(record), 300, replace=False).tolist():
        changed = bytearray(record)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(IntegrityError) as caught:
            Skeleton.from_bytes(bytes(changed))
        assert caught.value.kind == "damaged-record"


def _with_column(table: Any, name: str, values: list[int]) -> Any:
    copy = table.copy()
    copy[name] = values
    return copy


def _changed_dataset(**changes: Any) -> dict[str, Any]:
    return {"datasets": (dataclasses.replace(_skeleton().datasets[0], **changes),)}


@pytest.mark.parametrize(
    "changes",
    [
        {"size_bytes": 331},
        {"size_bytes": 329},
        {"sha256": "0" * 63 + "G"},
        {"retained": bytes(31)},
        {"extents": _with_column(_skeleton().extents, "offset", [100, 210, 319])},
        {"pieces": _with_column(_skeleton().pieces, "offset", [0, 110, 110])},
        {"pieces": _with_column(_skeleton().pieces, "size", [100, 100, 2**64 - 1])},
        {"pieces": _skeleton().pieces[:2]},
        {"coordinates": _skeleton().coordinates[:-1]},
        {"coordinates": np.full(12, 10**6, dtype="<u8")},
        {"coordinates": np.zeros(12, dtype="<u8")},
        {"coordinates": np.full(12, 2**64 - 1, dtype="<u8")},
        _changed_dataset(n_pieces=2),
        _changed_dataset(n_pieces=-3),
        _changed_dataset(shape=(74, 2)),
        _changed_dataset(shape=(75,)),
        _changed_dataset(shape=()),
        _changed_dataset(chunk_shape=(25,)),
        _changed_dataset(chunk_shape=(25, 0)),
        _changed_dataset(chunk_shape=None, item_bytes=3),
        _changed_dataset(item_bytes=0),
        _changed_dataset(encoder=0),
        _changed_dataset(encoder=-1),
    ],
    ids=str,
)
def test_tables_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    """A record that is sound as such, but describes no file, is damaged."""
    record = dataclasses.replace(_skeleton(), **changes).to_bytes()
    with pytest.raises(IntegrityError) as caught:
        Skeleton.from_bytes(record)
    assert caught.value.kind == "damaged-record"


def write_golden_values(path: Path, *, chunks: tuple[int, int] | None) -> None:
    """Write the data that the golden skeleton was made of, laid out as asked."""
    numbers = np.arange(6000, dtype="<i4").reshape(300, 20)
    with h5py.File(path, "w") as file:
        file.create_dataset("chunked", data=numbers**2, chunks=chunks)
        file.create_dataset("contiguous", data=(numbers % 251).astype(">i2"))


def test_an_old_skeleton_still_gives_its_file_back(tmp_path: Path) -> None:
    """A record of the first version, made long ago, is read and restores the original.

    The golden file is of two datasets through shuffle and fletcher32, which no compressor's
    version touches.
    """
    skeleton = Skeleton.from_bytes((GOLDEN / "rsk1-version-1.bin").read_bytes())
    assert [one.path for one in skeleton.datasets] == ["/chunked", "/contiguous"]
    write_golden_values(tmp_path / "again.h5", chunks=(17, 20))
    graft(skeleton, tmp_path / "again.h5", tmp_path / "restored.h5")
    content = (tmp_path / "restored.h5").read_bytes()
    assert hashlib.sha256(content).hexdigest() == (GOLDEN / "original.sha256").read_text().strip()


def test_a_new_skeleton_says_the_same_as_the_golden_one(
    tmp_path: Path, release: Callable[..., Any]
) -> None:
    """Made again from the restored file, all tables and digests equal those of the golden file."""
    golden = Skeleton.from_bytes((GOLDEN / "rsk1-version-1.bin").read_bytes())
    write_golden_values(tmp_path / "again.h5", chunks=None)
    graft(golden, tmp_path / "again.h5", tmp_path / "restored.h5")
    again = release(tmp_path / "restored.h5").skeleton
    assert again.retained == golden.retained
    assert again.datasets == golden.datasets
    assert again.encoders == golden.encoders
    for name in ("extents", "pieces", "coordinates"):
        np.testing.assert_array_equal(getattr(again, name), getattr(golden, name))
