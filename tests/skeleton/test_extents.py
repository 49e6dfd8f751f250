"""Where bulk data lies, and what counts as bulk."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hypothesis import given
from hypothesis import strategies as st

from recallfs.hdf5.extents import contiguous_pieces, list_bulk, stored_chunk
from skeleton.released import Writing

NUMBERS = np.arange(4000, dtype="<i4").reshape(100, 40)


def _add_implicit(file: h5py.File, name: str) -> None:
    """Add a dataset whose chunks need no index: fixed size, early allocation, no filter."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((30, 16))
    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    space = h5s.create_simple(NUMBERS.shape)
    dataset = h5d.create(file.id, name.encode(), h5t.STD_I32LE, space, properties)
    dataset.write(h5s.ALL, h5s.ALL, NUMBERS)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_extents_hold_the_stored_bytes(writing: Writing, tmp_path: Path, libver: str) -> None:
    """For every layout and chunk index the listed ranges of the file are the stored data."""
    with writing("a.h5", libver=libver) as file:
        file.create_dataset("single", data=NUMBERS, chunks=NUMBERS.shape)
        file.create_dataset("fixed", data=NUMBERS, chunks=(30, 16), compression="gzip")
        file.create_dataset("growing", data=NUMBERS, chunks=(30, 16), maxshape=(None, 40))
        file.create_dataset("tree", data=NUMBERS, chunks=(30, 16), maxshape=(None, None))
        _add_implicit(file, "implicit")
        file.create_dataset("contiguous", data=NUMBERS)
    content = (tmp_path / "a.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as file:
        found = {one.path: one for one in list_bulk(file)}
        for name, bulk in found.items():
            for number, start in enumerate(bulk.starts.tolist()):
                offset, size = int(bulk.offsets[number]), int(bulk.sizes[number])
                here = content[offset : offset + size]
                if bulk.chunk_shape is None:
                    assert here == NUMBERS.tobytes()
                else:
                    assert stored_chunk(file[name].id, tuple(start)) == (0, here)
    pieces = {name: len(bulk.sizes) for name, bulk in found.items()}
    assert pieces == {
        "/contiguous": 1, "/fixed": 12, "/growing": 12, "/implicit": 12, "/single": 1, "/tree": 12,
    }  # fmt: skip
    assert found["/fixed"].counts[-1].tolist() == [10, 8]
    assert found["/fixed"].starts.tolist() == sorted(found["/fixed"].starts.tolist())


def test_what_is_not_bulk_is_not_listed(writing: Writing, tmp_path: Path) -> None:
    """Small, compact, external, virtual, empty, scalar, unsteady and variable data is left out."""
    compact = h5p.create(h5p.DATASET_CREATE)
    compact.set_layout(h5d.COMPACT)
    virtual = h5py.VirtualLayout(shape=NUMBERS.shape, dtype=NUMBERS.dtype)
    virtual[:] = h5py.VirtualSource("other.h5", "x", shape=NUMBERS.shape)
    with writing("a.h5") as file:
        file["small"] = NUMBERS[:20]
        file.create_dataset("lzf", data=NUMBERS, chunks=(50, 40), compression="lzf")
        file.create_dataset("tiny chunks", data=NUMBERS, chunks=(1, 40))
        h5d.create(file.id, b"compact", h5t.STD_I32LE, h5s.create_simple((5000,)), compact)
        file.create_dataset(
            "external", data=NUMBERS, external=[(str(tmp_path / "raw"), 0, NUMBERS.nbytes)]
        )
        file.create_virtual_dataset("virtual", virtual)
        file.create_dataset("empty", shape=(0, 5), dtype="i4", maxshape=(None, 5))
        file.create_dataset("never written", shape=(9999,), dtype="f8")
        file["null"] = h5py.Empty("f8")
        file["scalar"] = np.bytes_(b"x" * 9000)
        file["text"] = np.array(["word"] * 4000, dtype=h5py.string_dtype())
        file.create_dataset("references", data=[file.ref] * 4000, dtype=h5py.ref_dtype)
    with h5py.File(tmp_path / "a.h5") as file:
        assert [one.path for one in list_bulk(file)] == ["/small"]


def test_a_dataset_with_several_names_is_listed_once(writing: Writing, tmp_path: Path) -> None:
    """Hard links give the first path in order; soft links give none."""
    with writing("a.h5") as file:
        file["z/one"] = NUMBERS
        file["b/two"] = file["z/one"]
        file["a"] = h5py.SoftLink("/z/one")
    with h5py.File(tmp_path / "a.h5") as file:
        assert [one.path for one in list_bulk(file)] == ["/b/two"]


def test_a_name_that_is_not_text_stays_in_the_skeleton(writing: Writing, tmp_path: Path) -> None:
    """A link whose name is not UTF-8 is passed over, not a failure."""
    with writing("a.h5") as file:
        space = h5s.create_simple(NUMBERS.shape)
        h5d.create(file.id, b"caf\xe9", h5t.STD_I32LE, space).write(h5s.ALL, h5s.ALL, NUMBERS)
        file["text"] = NUMBERS
    with h5py.File(tmp_path / "a.h5") as file:
        assert [one.path for one in list_bulk(file)] == ["/text"]


def test_chunks_without_data_are_not_pieces(writing: Writing, tmp_path: Path) -> None:
    """Of a sparse dataset only the chunks that were written are listed."""
    with writing("a.h5") as file:
        dataset = file.create_dataset("x", shape=(10**6, 10**3), dtype="f8", chunks=(100, 10))
        dataset[500:600, 20:30] = 1.0
    with h5py.File(tmp_path / "a.h5") as file:
        (bulk,) = list_bulk(file)
    assert (bulk.starts.tolist(), bulk.stored_bytes) == ([[500, 20]], 8000)


@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple),
    item_bytes=st.integers(1, 9),
    limit_bytes=st.integers(1, 300),
)
def test_contiguous_pieces_follow_one_another(
    shape: tuple[int, ...], item_bytes: int, limit_bytes: int
) -> None:
    """Laid end to end in C order, the pieces are the array; each keeps to the limit."""
    starts, counts = contiguous_pieces(shape, item_bytes, limit_bytes=limit_bytes)
    numbers = np.arange(math.prod(shape)).reshape(shape)
    pieces = [
        numbers[tuple(slice(s, s + c) for s, c in zip(start, count, strict=True))].ravel()
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True)
    ]
    assert np.concatenate(pieces).tolist() == list(range(math.prod(shape)))
    assert all(len(one) * item_bytes <= max(limit_bytes, item_bytes) for one in pieces)
