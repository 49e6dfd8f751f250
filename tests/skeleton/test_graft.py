"""Putting recomputed data back: the original's bytes, whatever its layout, filters and types."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t, h5z
from hypothesis import given, settings
from hypothesis import strategies as st

from recallfs.skeleton.build import build_skeleton
from recallfs.skeleton.format import Skeleton
from recallfs.skeleton.graft import graft
from skeleton.released import WALK, Release, Writing

RNG = np.random.default_rng(1)

LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": (100, 10)},
    "gzip": {"chunks": (100, 10), "compression": "gzip"},
    "gzip 9": {"chunks": (100, 10), "compression": "gzip", "compression_opts": 9},
    "other chunks": {"chunks": (64, 33), "compression": "gzip", "shuffle": True},
    "one chunk": {"chunks": (700, 33), "compression": "gzip", "fletcher32": True},
    "growing": {"chunks": (90, 8), "maxshape": (None, 33), "shuffle": True, "fletcher32": True},
    "larger chunk": {"chunks": (1000, 50), "maxshape": (None, None), "compression": "gzip"},
    "scaled": {"chunks": (100, 10), "scaleoffset": 0},
    "filled": {"chunks": (97, 13), "compression": "gzip", "fillvalue": -1},
}


# Each layout from itself, from one without chunks, and from one with other chunks.
PAIRS = [
    (before, after)
    for before in LAYOUTS
    for after in dict.fromkeys((before, "contiguous", "other chunks", "gzip 9"))
]


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("pair", PAIRS, ids=" from ".join)
def test_any_layout_comes_back_from_any_other(
    writing: Writing, tmp_path: Path, release: Release, pair: tuple[str, str], libver: str
) -> None:
    """However the recomputed values are laid out, the original's bytes come back."""
    before, after = pair
    with writing("a.h5", libver=libver) as file:
        file.attrs["made"] = "first"
        file.create_dataset("group/x", data=WALK, **LAYOUTS[before])
    released = release(tmp_path / "a.h5")
    assert released.bulk_paths == ["/group/x"]
    with writing("again.h5") as file:
        file.attrs["made"] = "second, with a longer text"
        file["other"] = np.arange(7)
        file.create_dataset("group/x", data=WALK, **LAYOUTS[after])
    report = released.restore(tmp_path / "again.h5")
    n_pieces = len(released.skeleton.pieces)
    if before == "contiguous":
        assert report.pieces_laid == n_pieces
    elif before == after:
        assert report.pieces_copied == n_pieces
    else:
        assert report.pieces_copied + report.pieces_encoded == n_pieces
        assert report.pieces_encoded > 0


def test_chunks_without_an_index_come_back(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """The implicit index of the newest format, with early allocation, is no exception."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((100, 10))
    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    with writing("a.h5", libver="latest") as file:
        space = h5s.create_simple(WALK.shape)
        dataset = h5d.create(file.id, b"x", h5t.STD_I16LE, space, properties)
        dataset.write(h5s.ALL, h5s.ALL, WALK)
        dataset.close()
    released = release(tmp_path / "a.h5")
    with writing("again.h5") as file:
        file["x"] = WALK
    assert released.restore(tmp_path / "again.h5").pieces_encoded == 28


@pytest.mark.parametrize("shape", [(3_000_000,), (1500, 2000), (3, 700, 1100), (2, 5, 300_000)])
def test_contiguous_pieces_come_back(
    writing: Writing, tmp_path: Path, release: Release, shape: tuple[int, ...]
) -> None:
    """Contiguous arrays of more than one piece, in one to three dimensions."""
    data = RNG.integers(-(2**15), 2**15, shape, dtype="<i2")
    with writing("a.h5") as file:
        file["x"] = data
    released = release(tmp_path / "a.h5")
    with writing("again.h5") as file:
        file.create_dataset("x", data=data, chunks=True)
    assert released.restore(tmp_path / "again.h5").pieces_laid > 1


STRUCTURED = np.zeros(2000, dtype=np.dtype([("t", "<f8"), ("n", "i1"), ("s", "S5")], align=True))
STRUCTURED["t"] = RNG.random(2000)
STRUCTURED["n"] = RNG.integers(-9, 9, 2000)
STRUCTURED["s"] = b"abc"
TYPED: dict[str, Any] = {
    "big-endian": RNG.integers(0, 2**32, 3000, dtype=np.uint32).astype(">u4"),
    "half": RNG.random(6000).astype("<f2"),
    "double with NaN": np.where(RNG.random(3000) < 0.1, np.nan, RNG.random(3000)),
    "bool": RNG.random(30_000) < 0.5,
    "complex": RNG.random(2000) + 1j * RNG.random(2000),
    "text": RNG.integers(97, 123, 20_000, dtype=np.uint8).view("S10"),
    "opaque": RNG.integers(0, 256, 27_000, dtype=np.uint8).view("V9"),
    "compound": STRUCTURED,
    "big compound": STRUCTURED.astype([("t", ">f8"), ("n", "i1"), ("s", "S5")]),
}


@pytest.mark.parametrize("name", TYPED)
def test_fixed_size_types_come_back(
    writing: Writing, tmp_path: Path, release: Release, name: str
) -> None:
    """Every type whose bytes are its value is bulk, chunked and contiguous, and comes back."""
    data = TYPED[name]
    with writing("a.h5") as file:
        chunks = (len(data) * 3 // 8,)
        file.create_dataset("c", data=data, chunks=chunks, compression="gzip", shuffle=True)
        file.create_dataset("x", data=data)
    released = release(tmp_path / "a.h5", minimum_bytes=1)
    assert released.bulk_paths == ["/c", "/x"]
    with writing("again.h5") as file:
        file.create_dataset("c", data=data)
        file.create_dataset("x", data=data, chunks=(999,), compression="lzf")
    released.restore(tmp_path / "again.h5")


def test_enumerations_and_inner_arrays_come_back(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """Types that NumPy does not have are handled by HDF5 alone."""
    enum = h5py.enum_dtype({"rest": 0, "run": 1, "sleep": 7}, basetype="i2")
    array = np.dtype(("<f4", (3, 2)))
    states = RNG.choice([0, 1, 7], 9000).astype("i2")
    matrices = RNG.random((900, 3, 2)).astype("<f4")

    def write(name: str, **options: Any) -> None:
        with writing(name) as file:
            file.create_dataset("states", (9000,), enum, **options)[...] = states
            file.create_dataset("matrices", (900,), array, **options)[...] = matrices

    write("a.h5", chunks=(800,), compression="gzip")
    released = release(tmp_path / "a.h5", minimum_bytes=1)
    assert released.bulk_paths == ["/matrices", "/states"]
    write("again.h5")
    released.restore(tmp_path / "again.h5")


def test_another_byte_order_is_converted(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """Values recomputed on a machine of the other byte order are the same values."""
    with writing("a.h5") as file:
        file.create_dataset("n", data=WALK, chunks=(100, 33), compression="gzip")
        file["s"] = STRUCTURED
    released = release(tmp_path / "a.h5")
    with writing("again.h5") as file:
        file.create_dataset("n", data=WALK.astype(">i2"), chunks=(100, 33), compression="gzip")
        file["s"] = STRUCTURED.astype([("t", ">f8"), ("n", "i1"), ("s", "S5")])
    assert released.restore(tmp_path / "again.h5").pieces_encoded == 7


def test_what_is_not_bulk_comes_from_the_skeleton(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """Text, references, small and LZF data need not even be in the recomputed file."""
    with writing("a.h5") as file:
        file["bulk"] = WALK
        file["text"] = np.array([f"word {n}" for n in range(900)], dtype=h5py.string_dtype())
        file.create_dataset("refs", data=[file["bulk"].ref] * 900, dtype=h5py.ref_dtype)
        file["regions"] = np.array([file["bulk"].regionref[:2]] * 9, dtype=h5py.regionref_dtype)
        file.create_dataset("ragged", (3,), dtype=h5py.vlen_dtype(np.dtype("i4")))
        file["ragged"][1] = np.arange(5000)
        file.create_dataset("lzf", data=WALK, chunks=(70, 33), compression="lzf")
        file["small"] = np.arange(9)
        file.attrs["note"] = "kept"
    released = release(tmp_path / "a.h5")
    assert released.bulk_paths == ["/bulk"]
    with writing("again.h5") as file:
        file["bulk"] = WALK
    released.restore(tmp_path / "again.h5")
    with h5py.File(tmp_path / "restored.h5") as file:
        assert file[file["refs"][5]].name == "/bulk"
        assert file["text"].asstr()[899] == "word 899"


def test_skipped_filters_are_skipped_again(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """A chunk that was written without some of its filters comes back without them."""
    options: dict[str, Any] = {"chunks": (350, 33), "compression": "gzip", "shuffle": True}
    with writing("a.h5") as file:
        dataset = file.create_dataset("x", data=WALK, **options)
        dataset.id.write_direct_chunk((350, 0), WALK[350:].tobytes(), 0b11)
    released = release(tmp_path / "a.h5")
    assert released.skeleton.pieces["filter_mask"].tolist() == [0, 3]
    with writing("again.h5") as file:
        file.create_dataset("x", data=WALK, **options)
    report = released.restore(tmp_path / "again.h5")
    assert (report.pieces_copied, report.pieces_encoded) == (1, 1)


@pytest.mark.skipif(
    not h5z.filter_avail(h5z.FILTER_SZIP)
    or not h5z.get_filter_info(h5z.FILTER_SZIP) & h5z.FILTER_CONFIG_ENCODE_ENABLED,
    reason="this HDF5 was built without the szip encoder",
)
def test_szip_comes_back(writing: Writing, tmp_path: Path, release: Release) -> None:
    """Szip gives up on some chunks; which ones is reproduced too."""
    data = np.concatenate((WALK, RNG.integers(-(2**15), 2**15, (300, 33), dtype="<i2")))
    with writing("a.h5") as file:
        file.create_dataset("x", data=data, chunks=(64, 32), compression="szip")
    released = release(tmp_path / "a.h5")
    assert set(released.skeleton.pieces["filter_mask"].tolist()) == {0, 1}
    with writing("again.h5") as file:
        file["x"] = data
    released.restore(tmp_path / "again.h5")


def test_a_lossy_filter_is_applied_again(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """The recompute has the values from before the lossy filter; encoding makes them equal."""
    data = RNG.random((700, 33)).astype("<f4")
    with writing("a.h5") as file:
        file.create_dataset("x", data=data, chunks=(100, 33), scaleoffset=3)
        assert (file["x"][()] != data).any()
    released = release(tmp_path / "a.h5")
    with writing("again.h5") as file:
        file["x"] = data
    assert released.restore(tmp_path / "again.h5").pieces_encoded == 7


@pytest.mark.parametrize("size", [512, 4096])
def test_a_user_block_does_not_shift_anything(
    writing: Writing, tmp_path: Path, release: Release, size: int
) -> None:
    """Offsets are right with bytes in front of the HDF5 part, and these come back too."""
    with writing("a.h5", userblock_size=size) as file:
        file.create_dataset("c", data=WALK, chunks=(100, 10), compression="gzip")
        file.create_dataset("x", data=WALK)
    with (tmp_path / "a.h5").open("r+b") as raw:
        raw.write(b"a note in front")
    released = release(tmp_path / "a.h5")
    assert released.bulk_paths == ["/c", "/x"]
    with writing("again.h5") as file:
        file["c"], file["x"] = WALK, WALK
    released.restore(tmp_path / "again.h5")


def test_hard_links_and_sparse_chunks_come_back(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """A dataset of two names is put back once; chunks never written stay unwritten."""
    block = RNG.random((1000, 31))
    with writing("a.h5") as file:
        file["b/x"] = WALK
        file["a"] = file["b/x"]
        sparse = file.create_dataset("s", (9000, 90), "f8", chunks=(100, 9), compression="gzip")
        sparse[4000:5000, 9:40] = block
    released = release(tmp_path / "a.h5")
    assert released.bulk_paths == ["/a", "/s"]
    with writing("again.h5") as file:
        file["a"] = WALK
        file["s"] = np.zeros((9000, 90))
        file["s"][4000:5000, 9:40] = block
    assert released.restore(tmp_path / "again.h5").pieces_laid == 1


def test_progress_adds_up_to_the_file(writing: Writing, tmp_path: Path, release: Release) -> None:
    """The increments that are reported sum up to the size of the file."""
    with writing("a.h5") as file:
        file.create_dataset("e", data=WALK / 7, chunks=(100, 33), compression="gzip")
        file["b"], file["c"] = WALK, WALK
    released = release(tmp_path / "a.h5")
    with writing("again.h5") as file:
        file["e"] = WALK / 7
        file["b"], file["c"] = WALK, WALK
    steps: list[int] = []
    graft(released.skeleton, tmp_path / "again.h5", tmp_path / "restored.h5", progress=steps.append)
    assert sum(steps) == (tmp_path / "restored.h5").stat().st_size


@st.composite
def _datasets(draw: st.DrawFn) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Draw an array and two layouts for it."""
    rank = draw(st.integers(1, 3))
    least = {1: 300, 2: 18, 3: 7}[rank]  # so that a chunk is worth being left out
    shape = tuple(draw(st.integers(least, least * 3)) for _ in range(rank))
    dtype = np.dtype(draw(st.sampled_from(["i1", "<u2", ">i4", "<f4", ">f8", "S3", "V5"])))
    seed = draw(st.integers(0, 2**32 - 1))
    spread = draw(st.sampled_from([2, 256]))
    content = np.random.default_rng(seed).integers(0, spread, np.prod(shape) * dtype.itemsize)
    data = content.astype("u1").view(dtype).reshape(shape)

    def layout() -> dict[str, Any]:
        options: dict[str, Any] = {
            "chunks": tuple(draw(st.integers(least, n)) for n in shape),
            "compression": draw(st.sampled_from([None, 1, 6])),
            "shuffle": draw(st.booleans()),
            "fletcher32": draw(st.booleans()),
            "maxshape": draw(st.sampled_from([shape, (None,) * rank, (None, *shape[1:])])),
        }
        return options

    return data, layout(), layout()


@settings(max_examples=60)
@given(drawn=_datasets(), libver=st.sampled_from(["earliest", "latest"]))
def test_random_datasets_come_back(
    drawn: tuple[Any, dict[str, Any], dict[str, Any]], libver: str
) -> None:
    """Any array, chunk shape and filters come back from any other chunk shape and filters."""
    data, before, after = drawn
    with tempfile.TemporaryDirectory() as folder:
        original, again, target = (Path(folder) / name for name in ("a.h5", "b.h5", "c.h5"))
        with h5py.File(original, "w", libver=libver) as file:
            file.create_dataset("x", data=data, **before)
        content = original.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        skeleton = build_skeleton(original, sha256=sha256, size_bytes=len(content), minimum_bytes=1)
        original.unlink()
        del content
        with h5py.File(again, "w") as file:
            file.create_dataset("x", data=data, **after)
        graft(Skeleton.from_bytes(skeleton.to_bytes()), again, target)
        assert hashlib.sha256(target.read_bytes()).hexdigest() == sha256
