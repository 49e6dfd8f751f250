"""The residual's own form: bound, checked, and readable for as long as it may lie."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recallfs.errors import IntegrityError
from recallfs.skeleton import container
from recallfs.skeleton.graft import graft
from recallfs.skeleton.residual import MAGIC, VERSION, Residual, ResidualWriter
from recallfs.skeleton.witness import Witness
from skeleton.released import Writing

GOLDEN = Path(__file__).with_name("golden") / "rsd1-version-1.bin"
RNG = np.random.default_rng(1)


def golden_pieces() -> list[tuple[int, int, Any, Any]]:
    """Return (row, item size, original, recomputed) of the pieces of the golden residual."""
    doubles = np.arange(1, 1001) / 7
    whole = np.arange(600, dtype=">i2")
    return [
        (3, 8, doubles, doubles * (1 + 2.0**-50)),
        (5, 2, whole, whole + (whole % 11 == 0)),
        (9, 3, np.arange(90, dtype=np.uint8), np.arange(90, dtype=np.uint8)[::-1]),
    ]


def flat(values: Any) -> Any:
    """Return the bytes of an array."""
    return np.frombuffer(values.tobytes(), np.uint8)


def residual_of(folder: Path, pieces: Any, limit: float = 1.0) -> Residual:
    """Make a residual."""
    with closing(ResidualWriter(limit, 10**9, folder)) as writer:
        for row, item_bytes, original, recomputed in pieces:
            writer.add(
                row,
                flat(original),
                flat(recomputed),
                stored_bytes=original.nbytes,
                item_bytes=item_bytes,
            )
        return writer.finish(
            folder / f"{uuid.uuid4()}.rsd1",
            sha256="a" * 64,
            skeleton="b" * 64,
            derivation_id="c" * 32,
        )


def mend(residual: Residual, *piece: Any) -> Any:
    """Mend one piece."""
    with residual.mending() as mender:
        return mender.mend(*piece)


def opened(folder: Path, record: bytes) -> Residual:
    """Open a record of these bytes."""
    path = folder / f"{uuid.uuid4()}.rsd1"
    path.write_bytes(record)
    return Residual.open(path)


def test_an_old_residual_still_makes_its_values_right() -> None:
    """A record of the first version, made long ago, is read and applied."""
    residual = Residual.open(GOLDEN)
    assert (residual.sha256, residual.skeleton) == ("a" * 64, "b" * 64)
    assert residual.derivation_id == "c" * 32
    assert residual.pieces.tolist() == [3, 5, 9]
    for row, item_bytes, original, recomputed in golden_pieces():
        mended = mend(residual, row, flat(recomputed), item_bytes)
        assert mended is not None
        assert mended.tobytes() == original.tobytes()


def test_a_new_residual_says_the_same_as_the_golden_one(tmp_path: Path) -> None:
    """Made again, the tables are those of the golden file; frames may be packed otherwise."""
    golden, again = Residual.open(GOLDEN), residual_of(tmp_path, golden_pieces())
    for name in ("sha256", "skeleton", "derivation_id"):
        assert getattr(golden, name) == getattr(again, name)
    assert golden.pieces.tolist() == again.pieces.tolist()
    assert golden.recomputed.tolist() == again.recomputed.tolist()


@given(
    arrays.arrays(np.uint8, st.integers(1, 40).map(lambda n: n * 8)),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 2**32),
)
def test_any_bits_come_back(original: Any, item_bytes: int, seed: int) -> None:
    """Whatever two pieces hold, the one becomes the other; through the record's bytes too."""
    recomputed = np.random.default_rng(seed).integers(0, 256, len(original), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        residual = residual_of(Path(folder), [(0, item_bytes, original, recomputed)], limit=1000.0)
        mended = mend(residual, 0, recomputed, item_bytes)
    assert mended is not None
    assert mended.tobytes() == original.tobytes()


def test_other_values_and_other_pieces_are_left_alone(tmp_path: Path) -> None:
    """Values it was not made for are not touched, whatever their row."""
    residual = residual_of(tmp_path, golden_pieces())
    row, item_bytes, _, recomputed = golden_pieces()[0]
    other = recomputed.copy()
    other[17] = np.nextafter(other[17], 0)
    assert mend(residual, row, flat(other), item_bytes) is None
    assert mend(residual, row + 1, flat(recomputed), item_bytes) is None
    assert mend(residual, 5, flat(recomputed), item_bytes) is None


def test_pieces_are_mended_in_any_order(tmp_path: Path) -> None:
    """Forwards, backwards and twice the same: each piece gets its own frame."""
    pieces = golden_pieces()
    with residual_of(tmp_path, pieces).mending() as mender:
        for index in (0, 2, 1, 1, 0):
            row, item_bytes, original, recomputed = pieces[index]
            mended = mender.mend(row, flat(recomputed), item_bytes)
            assert mended is not None
            assert mended.tobytes() == original.tobytes()


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Wherever one bit is wrong, the record is damaged, never applied."""
    record = residual_of(tmp_path, golden_pieces()).path.read_bytes()
    for position in RNG.choice(8 * len(record), 300, replace=False).tolist():
        changed = bytearray(record)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(IntegrityError) as caught:
            opened(tmp_path, bytes(changed))
        assert caught.value.kind == "damaged-record"


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "a" * 63},
        {"skeleton": "B" * 64},
        {"pieces": np.array([3, 5], dtype="<u8")},
        {"pieces": np.array([3, 9, 5], dtype="<u8")},
        {"frame-sizes": np.array([1, 2, 3], dtype="<u8")},
        {"frame-sizes": np.array([2**64 - 1, 2, 3], dtype="<u8")},
        {"frame-sizes": np.zeros(5, np.uint8)},
        {"frames": np.zeros(0, np.uint8)},
        {"recomputed-digests": np.zeros((2, 32), np.uint8)},
        {"recomputed-digests": np.zeros(95, np.uint8)},
        {"pieces": None},
        {"frames": None},
    ],
    ids=str,
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A record that is sound as such, but fits no file, is damaged."""
    sound = residual_of(tmp_path, golden_pieces()).path.read_bytes()
    header, sections = container.unpack(MAGIC, VERSION, sound)
    for name, value in changes.items():
        if name in header:
            header[name] = value
        elif value is None:
            del sections[name]
        else:
            sections[name] = value.tobytes()
    with pytest.raises(IntegrityError) as caught:
        opened(tmp_path, container.pack(MAGIC, VERSION, header, sections))
    assert caught.value.kind == "damaged-record"


def test_a_frame_of_another_length_is_damaged(tmp_path: Path) -> None:
    """A frame that would unpack to more than its piece is refused before it is unpacked."""
    row, item_bytes, original, recomputed = golden_pieces()[0]
    residual = residual_of(tmp_path, [(row, item_bytes, original, recomputed)])
    digest = np.frombuffer(blake3(flat(recomputed[:-1]).data).digest(), np.uint8).reshape(1, 32)
    changed = dataclasses.replace(residual, recomputed=digest)
    with pytest.raises(IntegrityError, match="not as long as its elements"):
        mend(changed, row, flat(recomputed[:-1]), item_bytes)
    few = flat(recomputed)[:8]
    digest = np.frombuffer(blake3(few.data).digest(), np.uint8).reshape(1, 32)
    with pytest.raises(IntegrityError, match="longer than its piece"):
        mend(
            dataclasses.replace(
                residual, recomputed=digest, sizes=residual.sizes + np.uint64(9999)
            ),
            row,
            few,
            item_bytes,
        )


def test_one_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    """Above the limit only the size is counted on; nothing is left on the disk."""
    with closing(ResidualWriter(0.2, 80_000, tmp_path)) as writer:
        for row in range(100):
            noise = RNG.integers(0, 256, 8000, dtype=np.uint8)
            writer.add(row, noise, noise[::-1].copy(), stored_bytes=8000, item_bytes=8)
        assert writer.is_too_large
        assert writer.concerned_bytes == 800_000
        assert 0.9 < writer.size_bytes / writer.concerned_bytes < 1.1
    assert not list(tmp_path.iterdir())


TYPES: dict[str, Any] = {
    "float32": RNG.normal(size=(900, 7)).astype("<f4"),
    "float64 big-endian": RNG.normal(size=(900, 7)).astype(">f8"),
    "int16": RNG.integers(-900, 900, (900, 7)).astype("<i2"),
    "complex": RNG.normal(size=(900, 7)) + 1j * RNG.normal(size=(900, 7)),
    "compound": np.rec.fromarrays(
        [RNG.normal(size=900), np.arange(900, dtype="i1")], dtype=[("x", "<f8"), ("n", "i1")]
    ),
}


@pytest.mark.parametrize(
    "options", [{}, {"chunks": True, "compression": 4, "shuffle": True}], ids=str
)
@pytest.mark.parametrize("name", TYPES)
def test_values_off_by_a_bit_are_mended_through_a_graft(
    writing: Writing, tmp_path: Path, release: Any, name: str, options: dict[str, Any]
) -> None:
    """Each type, contiguous and compressed: the witness names the value, the residual mends it."""
    data = TYPES[name]
    other = data.copy()
    raw = other.reshape(-1).view(np.uint8)
    raw[100 * data.itemsize] ^= 1
    for path, values in (("a.h5", data), ("again.h5", other), ("witness.h5", data)):
        with writing(path) as file:
            file.create_dataset("x", data=values, **options)
    released = release(tmp_path / "a.h5")
    with Witness(tmp_path / "witness.h5", 0.5, tmp_path) as witness:
        with pytest.raises(IntegrityError) as caught:
            graft(released.skeleton, tmp_path / "again.h5", tmp_path / "b.h5", witness=witness)
        residual = witness.residual.finish(
            tmp_path / "a.rsd1", sha256=released.sha256, skeleton="b" * 64, derivation_id="c" * 32
        )
    (difference,) = caught.value.details["objects"]
    assert difference["values"]["count"] == 1
    place = np.unravel_index(100, data.shape)
    assert difference["first"] == [int(n) for n in place]
    report = graft(released.skeleton, tmp_path / "again.h5", tmp_path / "b.h5", residual=residual)
    assert report.pieces_mended == 1
    assert hashlib.sha256((tmp_path / "b.h5").read_bytes()).hexdigest() == released.sha256


def test_the_first_difference_is_the_first_in_the_dataset(
    writing: Writing, tmp_path: Path, release: Any
) -> None:
    """Over many chunks the counts add up, the largest is the largest, the first is in C order."""
    data = RNG.normal(size=(400, 60))
    other = data.copy()
    for place, step in (((10, 55), 1e-9), ((11, 2), 1e-6), ((399, 59), 1e-12)):
        other[place] += step
    for path, values in (("a.h5", data), ("again.h5", other), ("witness.h5", data)):
        with writing(path) as file:
            file.create_dataset("x", data=values, chunks=(100, 20))
    released = release(tmp_path / "a.h5")
    with (
        Witness(tmp_path / "witness.h5", 0.5, tmp_path) as witness,
        pytest.raises(IntegrityError, match=r"3 of 24,000 values differ, first at \(10, 55\)"),
    ):
        graft(released.skeleton, tmp_path / "again.h5", tmp_path / "b.h5", witness=witness)
    found = witness.difference("/x")
    assert found is not None
    assert found.largest_absolute == pytest.approx(1e-6)
