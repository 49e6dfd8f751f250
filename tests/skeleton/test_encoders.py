"""Encoding a chunk again gives the bytes that are in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5z

from recallfs.hdf5.access import read_elements
from recallfs.hdf5.encoders import (
    ChunkEncoder,
    is_lossless,
    is_own,
    is_repeatable,
    read_steps,
    rebuild_pipeline,
)
from skeleton.released import Writing

WALK = np.cumsum(np.random.default_rng(3).integers(-9, 10, (100, 40)), axis=0).astype("<i4")

FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "gzip": {"compression": "gzip", "compression_opts": 7},
    "shuffled": {"compression": "gzip", "shuffle": True},
    "checked": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "scaled": {"scaleoffset": 0, "compression": "gzip"},
    "filled": {"compression": "gzip", "fillvalue": -7},
}
if h5z.filter_avail(h5z.FILTER_SZIP) and (
    h5z.get_filter_info(h5z.FILTER_SZIP) & h5z.FILTER_CONFIG_ENCODE_ENABLED
):
    FILTERS["szip"] = {"compression": "szip"}


@pytest.mark.parametrize("options", FILTERS.values(), ids=FILTERS.keys())
def test_each_chunk_encodes_to_its_stored_bytes(
    writing: Writing, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Whole and edge chunks come out of every pipeline as HDF5 stored them."""
    with writing("a.h5") as file:
        file.create_dataset("x", data=WALK, chunks=(30, 16), **options)
    with h5py.File(tmp_path / "a.h5") as file, ChunkEncoder(file["x"].id) as encoder:
        dataset = file["x"].id
        edges = 0
        for place in np.ndindex(4, 3):
            start = (place[0] * 30, place[1] * 16)
            count = (min(30, 100 - start[0]), min(16, 40 - start[1]))
            edges += count != (30, 16)
            mask, stored = dataset.read_direct_chunk(start)
            values = read_elements(dataset, dataset.get_type(), start, count)
            assert encoder.encode(values, count, mask) == stored
            assert encoder.has_usual_padding(stored, count, mask)
    assert edges == 6


@pytest.mark.parametrize("mask", range(8))
def test_skipped_filters_are_skipped_again(writing: Writing, tmp_path: Path, mask: int) -> None:
    """A filter mask takes exactly the filters out that it names."""
    with writing("a.h5") as file:
        options: dict[str, Any] = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        dataset = file.create_dataset("x", data=WALK, chunks=WALK.shape, **options).id
        with ChunkEncoder(dataset) as encoder:
            encoded = encoder.encode(WALK.view("u1").ravel(), WALK.shape, mask)
        assert encoded is not None
        dataset.write_direct_chunk((0, 0), encoded, mask)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"].id.read_direct_chunk((0, 0))[0] == mask
        np.testing.assert_array_equal(file["x"][()], WALK)


def test_padding_with_other_bytes_is_noticed(writing: Writing) -> None:
    """An edge chunk that holds anything but the fill value beyond the edge is not usual."""
    with writing("a.h5") as file:
        dataset = file.create_dataset("x", (5,), "<i4", chunks=(8,), maxshape=(None,), fillvalue=9)
        usual = np.array([1, 2, 3, 4, 5, 9, 9, 9], "<i4").tobytes()
        zeros = np.array([1, 2, 3, 4, 5, 0, 0, 0], "<i4").tobytes()
        with ChunkEncoder(dataset.id) as encoder:
            assert encoder.has_usual_padding(usual, (5,), 0)
            assert not encoder.has_usual_padding(zeros, (5,), 0)
            assert not encoder.has_usual_padding(b"too short", (5,), 0)


def test_a_committed_type_can_be_encoded(writing: Writing) -> None:
    """A type that has a name in its own file does not stop the file in memory."""
    with writing("a.h5") as file:
        file["type"] = np.dtype([("a", "<i4"), ("b", "<f4")])
        dataset = file.create_dataset("x", (50,), file["type"], chunks=(50,), compression="gzip")
        values = np.arange(400, dtype="u1") % 7
        dataset[...] = values.view(dataset.dtype)
        with ChunkEncoder(dataset.id) as encoder:
            assert encoder.encode(values, (50,)) == dataset.id.read_direct_chunk((0,))[1]


def test_fingerprints_tell_pipelines_apart(writing: Writing) -> None:
    """The same pipeline has one fingerprint, whatever the chunks; another level has another."""
    with writing("a.h5") as file:
        prints = []
        for number, (level, chunks) in enumerate([(4, (30, 16)), (4, (100, 40)), (9, (30, 16))]):
            dataset = file.create_dataset(
                f"x{number}", data=WALK, chunks=chunks, compression="gzip", compression_opts=level
            )
            with ChunkEncoder(dataset.id) as encoder:
                prints.append(encoder.fingerprint())
    assert prints[0] == prints[1] != prints[2]


def test_lossy_pipelines_are_told_apart(writing: Writing) -> None:
    """Only pipelines known to be lossless count as such."""
    with writing("a.h5") as file:
        exact = file.create_dataset("a", (9,), "f4", chunks=(9,), compression="gzip", shuffle=True)
        lossy = file.create_dataset("b", (9,), "f4", chunks=(9,), scaleoffset=2)
        assert is_lossless(read_steps(exact.id.get_create_plist()))
        assert not is_lossless(read_steps(lossy.id.get_create_plist()))


def test_lzf_is_not_relied_on(writing: Writing) -> None:
    """LZF may give other bytes for equal values, and only HDF5's own filters are taken on trust."""
    with writing("a.h5") as file:
        own = file.create_dataset("a", (9,), "i4", chunks=(9,), scaleoffset=0, shuffle=True)
        lzf = file.create_dataset("b", (9,), "i4", chunks=(9,), compression="lzf", shuffle=True)
        own_steps, lzf_steps = (read_steps(x.id.get_create_plist()) for x in (own, lzf))
    assert is_repeatable(own_steps)
    assert is_own(own_steps)
    assert not is_repeatable(lzf_steps)
    assert not is_own(lzf_steps)


def test_bitshuffles_derived_values_are_not_asked_for_again() -> None:
    """Its stored parameters start with three that it puts there anew each time."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((8,))
    properties.set_filter(32008, h5z.FLAG_OPTIONAL, (0, 4, 4, 0, 2))
    (step,) = read_steps(rebuild_pipeline(properties))
    assert (step.code, step.flags, step.values) == (32008, h5z.FLAG_OPTIONAL, (0, 2))
