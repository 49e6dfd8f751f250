"""Backends: NWB files are written with the chunks, compression and buffers that were decided."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdmf
import numpy as np
import pytest
from hdmf.backends.hdf5.h5_utils import H5DataIO
from hdmf.data_utils import DataChunkIterator, GenericDataChunkIterator
from hypothesis import given, settings
from hypothesis import strategies as st
from pynwb import NWBHDF5IO, NWBFile
from pynwb.base import Images
from pynwb.ecephys import LFP, ElectricalSeries
from pynwb.image import GrayscaleImage
from pynwb.ophys import OpticalChannel, PlaneSegmentation

from nwb_files import RATE, add_series, new_file
from recallfs.recipes.backend import Backend
from recallfs.recipes.backend.iterators import Gathered
from recallfs.recipes.backend.shapes import (
    default_buffer_shape,
    default_chunk_shape,
    given_buffer_shape,
)


def add_electrical(nwbfile: NWBFile, data: Any, name: str = "lfp") -> ElectricalSeries:
    """Put a series into a processing module, as derived data is."""
    device = nwbfile.create_device(name="probe")
    group = nwbfile.create_electrode_group(
        name="shank", description="", location="CA1", device=device
    )
    for _ in range(data.shape[1]):
        nwbfile.add_electrode(group=group, location="CA1")
    region = nwbfile.create_electrode_table_region(list(range(data.shape[1])), "all")
    series = ElectricalSeries(name=name, data=data, electrodes=region, rate=RATE)
    module = nwbfile.create_processing_module(name="ecephys", description="")
    lfp = LFP()
    module.add(lfp)
    lfp.add_electrical_series(series)
    return series


def write(nwbfile: NWBFile, path: Path) -> h5py.File:
    with NWBHDF5IO(path, "w") as io:
        io.write(nwbfile)
    return h5py.File(path, "r")


def layout(dataset: h5py.Dataset) -> tuple[Any, ...]:
    return dataset.chunks, dataset.compression, dataset.compression_opts, dataset.shuffle


class Ramp(GenericDataChunkIterator):
    """Numbers that are made as they are asked for."""

    def __init__(self, rows: int, **options: Any) -> None:
        self.rows = rows
        super().__init__(**options)

    def _get_data(self, selection: tuple[slice, ...]) -> Any:
        return np.arange(self.rows * 4, dtype="f8").reshape(-1, 4)[selection]

    def _get_maxshape(self) -> tuple[int, int]:
        return self.rows, 4

    def _get_dtype(self) -> np.dtype[Any]:
        return np.dtype("f8")


def test_all_kinds_of_data_are_written_as_decided(tmp_path: Path) -> None:
    """Series, ragged columns, iterators, images and masks have their chunks and gzip 4, and values.

    What cannot be compressed is left as it is, with the reason.
    """
    nwbfile = new_file()
    traces = np.random.default_rng(1).integers(-900, 900, (4000, 70), dtype="i2")
    add_electrical(nwbfile, traces)
    stamps = np.arange(500) / RATE
    original = add_series(nwbfile, "stamped", stamps * 2, timestamps=stamps)
    add_series(nwbfile, "linked", stamps * 3, timestamps=original)
    add_series(nwbfile, "rows", DataChunkIterator(row for row in np.ones((900, 3))))
    add_series(nwbfile, "ramp", Ramp(600, chunk_shape=(100, 4), buffer_shape=(200, 4)))
    add_series(nwbfile, "wrapped", H5DataIO(np.arange(300), compression="gzip"))
    add_series(nwbfile, "listed", [float(value) for value in range(400)])
    add_series(nwbfile, "none", np.zeros((0, 2)))
    nwbfile.add_unit_column(name="quality", description="a word")
    for unit in range(6):
        nwbfile.add_unit(spike_times=np.arange(100.0) + unit, quality="good")
    image = GrayscaleImage(name="mask", data=np.eye(80))
    nwbfile.add_acquisition(Images(name="images", images=[image]))
    configuration = Backend().apply(nwbfile)

    by_location = {item.location: item for item in configuration.datasets}
    assert by_location["processing/ecephys/LFP/lfp/data"].chunk_shape == (4000, 64)
    assert configuration.left == {
        "acquisition/linked/timestamps": "linked to stamped",
        "acquisition/none/data": "empty",
        "acquisition/wrapped/data": "wrapped already",
        "electrodes/group/data": "references",
        "electrodes/group_name/data": "text or references, which are not compressed",
        "electrodes/location/data": "text or references, which are not compressed",
        "units/quality/data": "text or references, which are not compressed",
    }
    usual = ("gzip", 4, True)
    with write(nwbfile, tmp_path / "made.nwb") as file:
        for location, chunk, values in (
            ("processing/ecephys/LFP/lfp/data", (4000, 64), traces),
            ("acquisition/stamped/data", (500,), stamps * 2),
            ("acquisition/stamped/timestamps", (500,), stamps),
            ("acquisition/linked/data", (500,), stamps * 3),
            ("acquisition/rows/data", (416666, 3), np.ones((900, 3))),
            ("acquisition/ramp/data", (100, 4), np.arange(2400.0).reshape(-1, 4)),
            ("acquisition/listed/data", (400,), np.arange(400.0)),
            ("units/spike_times", (600,), np.concatenate([np.arange(100) + n for n in range(6)])),
            ("acquisition/images/mask", (80, 80), np.eye(80)),
        ):
            assert layout(file[location]) == (chunk, *usual), location
            np.testing.assert_array_equal(file[location][:], values)
        assert layout(file["units/spike_times_index"])[1:3] == usual[:2]
        assert (
            file["acquisition/linked"]
            .get("timestamps", getlink=True)
            .path.endswith("stamped/timestamps")
        )
        assert list(file["units/quality"].asstr()) == ["good"] * 6

    assert Backend().apply(nwbfile).datasets == ()


def test_masks_of_pixels(tmp_path: Path) -> None:
    """Ragged masks, lists of tuples in memory, are chunked as the records that are written."""
    nwbfile = new_file()
    device = nwbfile.create_device(name="scope")
    plane = nwbfile.create_imaging_plane(
        name="plane",
        optical_channel=OpticalChannel(name="green", description="", emission_lambda=500.0),
        description="",
        device=device,
        excitation_lambda=600.0,
        indicator="GFP",
        location="V1",
    )
    table = PlaneSegmentation(name="cells", description="", imaging_plane=plane)
    for cell in range(20):
        table.add_roi(pixel_mask=[(x, cell, 0.5) for x in range(30)])
    nwbfile.create_processing_module(name="ophys", description="").add(table)
    Backend().apply(nwbfile)
    with write(nwbfile, tmp_path / "made.nwb") as file:
        masks = file["processing/ophys/cells/pixel_mask"]
        if not hdmf.__version__.startswith("3."):  # which writes records without settings
            assert layout(masks) == ((600,), "gzip", 4, True)
        assert masks[599].tolist() == (29, 19, 0.5)


def test_settings_of_one_dataset(tmp_path: Path) -> None:
    """Chunk, buffer, compression and checksum hold for the dataset they are given for."""
    nwbfile = new_file()
    add_series(nwbfile, "wide", np.ones((500, 8)))
    add_series(nwbfile, "plain", np.ones(500))
    add_series(nwbfile, "ramp", Ramp(600, chunk_shape=(100, 4), buffer_shape=(200, 4)))
    backend = Backend(
        compression="lzf",
        datasets={
            "acquisition/wide/data": {
                "chunk_shape": [5000, 2],
                "compression": "gzip",
                "options": {"level": 9},
                "shuffle": False,
                "fletcher32": True,
            },
            "acquisition/plain/data": {"compression": None},
            "acquisition/ramp/data": {"chunk_shape": [64, 2], "buffer_shape": [128, 4]},
        },
    )
    with pytest.warns(UserWarning, match="lzf"):
        backend.apply(nwbfile)
    with write(nwbfile, tmp_path / "made.nwb") as file:
        wide = file["acquisition/wide/data"]
        assert (*layout(wide), wide.fletcher32) == ((500, 2), "gzip", 9, False, True)
        assert layout(file["acquisition/plain/data"]) == ((500,), None, None, False)
        ramp = file["acquisition/ramp/data"]
        assert layout(ramp) == ((64, 2), "lzf", None, True)
        np.testing.assert_array_equal(ramp[:], np.arange(2400.0).reshape(-1, 4))


def test_filters_of_hdf5plugin(tmp_path: Path) -> None:
    """A filter of hdf5plugin is applied, without a shuffle where it shuffles itself."""
    import hdf5plugin  # noqa: F401 - registers the filters for the reader

    for name, options, codes in (
        ("Zstd", {"clevel": 7}, ["32015", "shuffle"]),
        ("Blosc", {"cname": "zstd"}, ["32001"]),
        ("Bitshuffle", {}, ["32008"]),
        ("Blosc2", {}, ["32026"]),
        ("LZ4", {}, ["32004", "shuffle"]),
        ("BZip2", {}, ["307", "shuffle"]),
    ):
        nwbfile = new_file()
        add_series(nwbfile, "x", np.arange(3000))
        with pytest.warns(UserWarning, match="compression may not be available"):
            Backend(compression=name, options=options).apply(nwbfile)
        with write(nwbfile, tmp_path / f"{name}.nwb") as file:
            data = file["acquisition/x/data"]
            assert sorted(data._filters) == codes, name
            np.testing.assert_array_equal(data[:], np.arange(3000))


def peak_of_writing(nwbfile: NWBFile, path: Path) -> int:
    """Write a file and return how much memory that took, in bytes."""
    tracemalloc.start()
    try:
        write(nwbfile, path).close()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_rows_are_gathered_into_whole_chunks(tmp_path: Path) -> None:
    """Single rows from a generator are written in whole chunks, with no more memory than that."""
    rows, width = 4000, 1024

    def made() -> Iterator[Any]:
        generator = np.random.default_rng(2)
        for _ in range(rows):
            yield generator.integers(0, 9, width).astype("i2")

    nwbfile = new_file()
    add_series(nwbfile, "x", DataChunkIterator(made(), buffer_size=7))
    backend = Backend(chunk_mb=1.5, buffer_mb=1.5)
    assert "? x 1,024" in str(backend.configure(nwbfile))
    backend.apply(nwbfile)
    write(new_file(), tmp_path / "first.nwb").close()  # whose schema stays in memory
    usual = peak_of_writing(new_file(), tmp_path / "empty.nwb")
    peak = peak_of_writing(nwbfile, tmp_path / "made.nwb")
    assert peak < usual + 6_000_000  # the data is 8.2 MB
    with h5py.File(tmp_path / "made.nwb", "r") as file:
        data = file["acquisition/x/data"]
        assert data.shape == (rows, width)
        assert data.chunks == (732, width)
        values = data[:]
        assert all((row == expected).all() for row, expected in zip(values, made(), strict=True))
        bulk = data.id.get_storage_size()
    overhead = (tmp_path / "empty.nwb").stat().st_size
    assert (tmp_path / "made.nwb").stat().st_size - bulk < overhead + 50_000


def test_gathered_buffers() -> None:
    """Each piece is a buffer of whole chunks, whatever the iterator gives; the last is the rest."""
    rows = np.arange(310).reshape(-1, 2)
    source = DataChunkIterator(iter(rows), maxshape=(None, 2), buffer_size=7)
    pieces = list(Gathered(source, (10, 2), (40, 2)))
    assert [(piece.selection[0].start, piece.selection[0].stop) for piece in pieces] == [
        (0, 40),
        (40, 80),
        (80, 120),
        (120, 155),
    ]
    np.testing.assert_array_equal(np.concatenate([piece.data for piece in pieces]), rows)


def test_gaps_of_an_iterator(tmp_path: Path) -> None:
    """Rows that an iterator leaves out stay empty, and the others are where they belong."""
    parts = [np.full(2, 1.0), np.full(2, 2.0), None, None, np.full(2, 3.0)]
    nwbfile = new_file()
    source = DataChunkIterator(iter(parts), maxshape=(None, 2), dtype=np.dtype("f8"))
    add_series(nwbfile, "x", source)
    Backend().apply(nwbfile)
    with write(nwbfile, tmp_path / "made.nwb") as file:
        assert file["acquisition/x/data"][:, 0].tolist() == [1.0, 2.0, 0.0, 0.0, 3.0]


def test_data_of_another_file_is_written_and_not_linked(tmp_path: Path) -> None:
    """A dataset of another file is copied buffer by buffer, with our chunks."""
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["x"] = np.arange(2_000_000, dtype="f8").reshape(-1, 4)
    with h5py.File(tmp_path / "source.h5", "r") as source:
        nwbfile = new_file()
        add_series(nwbfile, "x", source["x"])
        Backend(chunk_mb=0.1, buffer_mb=1).apply(nwbfile)
        usual = peak_of_writing(new_file(), tmp_path / "empty.nwb")
        peak = peak_of_writing(nwbfile, tmp_path / "made.nwb")
    assert peak < usual + 5_000_000  # the data is 16 MB
    with h5py.File(tmp_path / "made.nwb", "r") as file:
        assert isinstance(file["acquisition/x"].get("data", getlink=True), h5py.HardLink)
        assert file["acquisition/x/data"].chunks == (3125, 4)
        assert file["acquisition/x/data"][499_999].tolist() == [1999996.0 + n for n in range(4)]


def test_appending(tmp_path: Path) -> None:
    """What is in a file already is left alone when more is added to it."""
    nwbfile = new_file()
    add_series(nwbfile, "old", np.arange(100.0))
    write(nwbfile, tmp_path / "made.nwb").close()
    with NWBHDF5IO(tmp_path / "made.nwb", "a") as io:
        nwbfile = io.read()
        add_series(nwbfile, "new", np.arange(100.0))
        configuration = Backend().apply(nwbfile)
        assert [item.location for item in configuration.datasets] == ["acquisition/new/data"]
        assert configuration.left["acquisition/old/data"] == "in the file already"
        io.write(nwbfile)
    with h5py.File(tmp_path / "made.nwb", "r") as file:
        assert layout(file["acquisition/new/data"]) == ((100,), "gzip", 4, True)
        assert file["acquisition/old/data"].compression is None


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5000), min_size=1, max_size=4),
    itemsize=st.sampled_from([1, 2, 4, 8, 12]),
    limits=st.tuples(st.integers(1, 10**6), st.integers(1, 20)),
    is_electrical=st.booleans(),
)
def test_shapes(
    shape: list[int], itemsize: int, limits: tuple[int, int], is_electrical: bool
) -> None:
    """Chunks and buffers fit the data and their limits, and a buffer is made of whole chunks."""
    limit = limits[0]
    chunk = default_chunk_shape(shape, itemsize, limit, is_electrical=is_electrical)
    assert all(1 <= part <= extent for part, extent in zip(chunk, shape, strict=True))
    assert math.prod(chunk) * itemsize <= max(limit, itemsize)
    buffer = default_buffer_shape(shape, chunk, itemsize, limit * limits[1])
    assert given_buffer_shape("x", buffer, shape, chunk) == buffer
    assert buffer == chunk or math.prod(buffer) * itemsize <= limit * limits[1]
