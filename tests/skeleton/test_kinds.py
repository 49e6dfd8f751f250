"""Each kind of HDF5 file: made, dropped to its skeleton, and rebuilt from another layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from skeleton.released import Release, Writing

RNG = np.random.default_rng(3)
WALK = np.cumsum(RNG.integers(-9, 10, (20_000, 32)), axis=0).astype("<i2")
LIMIT = 0.05
"""Above this part of a file a skeleton is refused unless it is asked for."""


def share(released: Any) -> float:
    """Return how much is kept of a file."""
    return float(released.skeleton.stored_bytes / released.skeleton.size_bytes)


def assert_x_alone_is_bulk(writing: Writing, folder: Path, release: Release, **layout: Any) -> None:
    """Release a file that holds `WALK` as ``x``; rebuild it from that alone, in another layout."""
    released = release(folder / "a.h5")
    assert released.bulk_paths == ["/x"]
    with writing("again.h5") as file:
        file.create_dataset("x", data=WALK, **layout)
    released.restore(folder / "again.h5")


def append(path: Path, series: dict[str, Any], times: int, **options: Any) -> None:
    """Write several datasets in equal parts, opening the file anew for each."""
    for number in range(times):
        with h5py.File(path, "a") as file:
            for name, values in series.items():
                step, rest = len(values) // times, values.shape[1:]
                if number == 0:
                    shape, most = (0, *rest), (None, *rest)
                    file.create_dataset(name, shape, values.dtype, maxshape=most, **options)
                file[name].resize((number + 1) * step, axis=0)
                file[name][number * step :] = values[number * step : (number + 1) * step]


def used_bytes(path: Path) -> int:
    """Return what the datasets of a file store."""
    with h5py.File(path) as file:
        return sum(int(dataset.id.get_storage_size()) for dataset in file.values())


PIPELINES: dict[str, dict[str, Any]] = {
    "gzip": {"compression": 4},
    "shuffle": {"compression": 1, "shuffle": True},
    "checksum": {"compression": 4, "fletcher32": True},
    "all": {"compression": 9, "shuffle": True, "fletcher32": True, "fillvalue": -1},
}


@pytest.mark.parametrize("options", PIPELINES.values(), ids=PIPELINES.keys())
def test_a_file_appended_to_ten_times(
    writing: Writing, tmp_path: Path, release: Release, options: dict[str, Any]
) -> None:
    """Chunks that grew left their old selves behind; these are made again, not kept."""
    series = {name: WALK[:18_000] + number for number, name in enumerate("abc")}
    append(tmp_path / "a.h5", series, 10, chunks=(1500, 32), **options)
    used = used_bytes(tmp_path / "a.h5")
    released = release(tmp_path / "a.h5")
    assert used < 0.85 * released.skeleton.size_bytes
    assert share(released) < LIMIT
    with writing("again.h5") as file:
        for name, values in series.items():
            file.create_dataset(name, data=values, chunks=(777, 9), compression="lzf")
    released.restore(tmp_path / "again.h5")


def test_a_series_and_its_times_appended_together(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """Chunks of several types are told apart, also where others took over their beginnings."""
    times = np.cumsum(RNG.random(18_000))
    series = {"times": times, "events": times.astype("f4"), "walk": WALK[:18_000, 0]}
    append(tmp_path / "a.h5", series, 9, chunks=(3100,), compression=4)
    used = used_bytes(tmp_path / "a.h5")
    released = release(tmp_path / "a.h5")
    assert used < 0.85 * released.skeleton.size_bytes
    assert released.skeleton.pieces["skip"].any()
    assert share(released) < LIMIT
    with writing("again.h5") as file:
        for name, values in series.items():
            file[name] = values
    released.restore(tmp_path / "again.h5")


def test_what_was_overwritten_is_not_taken_for_what_is_there(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """A stale chunk of other values is kept; nothing of it is put together from the new ones."""
    series = {"a": WALK[:6000], "b": WALK[6000:12_000]}
    append(tmp_path / "a.h5", series, 1, chunks=(3000, 32), compression=4)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["a"][:] = RNG.integers(-999, 999, (6000, 32))
        now = file["a"][:]
    released = release(tmp_path / "a.h5")
    assert released.skeleton.datasets[0].n_pieces == 2
    assert share(released) > LIMIT
    with writing("again.h5") as file:
        file["a"], file["b"] = now, series["b"]
    released.restore(tmp_path / "again.h5")


def test_space_of_something_deleted_is_kept(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """Bytes of a dataset that is gone come from the skeleton, whose size then says so."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("gone", data=WALK[::-1], chunks=(2000, 32), compression=4)
        file.create_dataset("x", data=WALK, chunks=(2000, 32), compression=4)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["gone"]
    released = release(tmp_path / "a.h5")
    assert share(released) > LIMIT
    with writing("again.h5") as file:
        file["x"] = WALK
    released.restore(tmp_path / "again.h5")


@pytest.mark.parametrize("options", [{}, {"chunks": True, "compression": 4}], ids=str)
def test_many_small_datasets(
    writing: Writing, tmp_path: Path, release: Release, options: dict[str, Any]
) -> None:
    """Spike times of 500 units, 2 kB each: none is large, all together are the file."""
    trains = [np.sort(RNG.random(250)) * 3600 for _ in range(500)]

    def write(name: str, **layout: Any) -> None:
        with writing(name) as file:
            for number, train in enumerate(trains):
                file.create_dataset(f"units/{number:04}", data=train, **layout)

    write("a.h5", **options)
    released = release(tmp_path / "a.h5")
    assert len(released.bulk_paths) > 480
    assert share(released) < LIMIT
    write("again.h5", chunks=(100,), shuffle=True)
    released.restore(tmp_path / "again.h5")


def test_a_few_small_datasets_are_kept(writing: Writing, tmp_path: Path, release: Release) -> None:
    """Beside real bulk, what is small need not be computed again."""
    with writing("a.h5") as file:
        file["x"] = WALK
        file["small"] = np.arange(400)
    assert_x_alone_is_bulk(writing, tmp_path, release)


def test_one_byte_chunks_are_kept(writing: Writing, tmp_path: Path, release: Release) -> None:
    """Chunks smaller than what their digests would take stay where they are."""
    with writing("a.h5") as file:
        file.create_dataset("tiny", data=np.arange(3000, dtype="u1"), chunks=(1,))
        file["x"] = WALK
    assert_x_alone_is_bulk(writing, tmp_path, release)


def test_compact_data_is_kept(writing: Writing, tmp_path: Path, release: Release) -> None:
    """Data inside an object's header is part of what is not bulk."""
    with writing("a.h5") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((7000,))
        made = h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I64LE, space, properties)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(7000))
        file["x"] = WALK
    assert_x_alone_is_bulk(writing, tmp_path, release, chunks=True)
    with h5py.File(tmp_path / "restored.h5") as file:
        assert file["compact"][-1] == 6999


def test_data_outside_of_the_file_is_left_where_it_is(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """External storage is another file: its name is kept, its bytes are none of ours."""
    outside = tmp_path / "outside.bin"
    with writing("a.h5") as file:
        file.create_dataset("out", data=WALK, external=[(str(outside), 0, h5py.h5f.UNLIMITED)])
        file["x"] = WALK
    before = outside.read_bytes()
    assert_x_alone_is_bulk(writing, tmp_path, release, chunks=(999, 32), compression=4)
    assert outside.read_bytes() == before
    with h5py.File(tmp_path / "restored.h5") as file:
        assert (file["out"][...] == WALK).all()


def test_virtual_datasets_are_references(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """A view holds no data: its mapping is kept, what it shows is put back by its own dataset."""
    with writing("a.h5", libver="latest") as file:
        file.create_dataset("x", data=WALK, chunks=(1000, 32), compression=4)
        layout = h5py.VirtualLayout(shape=(10_000, 32), dtype=WALK.dtype)
        layout[...] = h5py.VirtualSource(".", "x", shape=WALK.shape)[::2]
        file.create_virtual_dataset("view", layout)
    assert_x_alone_is_bulk(writing, tmp_path, release)
    with h5py.File(tmp_path / "restored.h5") as file:
        assert (file["view"][...] == WALK[::2]).all()


def test_a_paged_file_with_its_free_space(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """Pages, and free space that the file itself keeps account of."""
    options = {"fs_strategy": "page", "fs_persist": True, "fs_page_size": 16_384}
    with writing("a.h5", **options) as file:
        file.create_dataset("x", data=WALK, chunks=(1000, 32), compression=4)
        file.create_dataset("gone", data=np.arange(5000))
        file["contiguous"] = WALK
        del file["gone"]
    released = release(tmp_path / "a.h5")
    assert released.bulk_paths == ["/contiguous", "/x"]
    assert share(released) < LIMIT
    with writing("again.h5") as file:
        file.create_dataset("x", data=WALK, chunks=(300, 5))
        file.create_dataset("contiguous", data=WALK, chunks=True, compression=1)
    released.restore(tmp_path / "again.h5")


def test_a_file_written_while_it_was_read(
    writing: Writing, tmp_path: Path, release: Release
) -> None:
    """SWMR: the newest format, flushed again and again while the last chunk filled."""
    with writing("a.h5", libver="latest") as file:
        dataset = file.create_dataset(
            "x", (0, 32), "<i2", maxshape=(None, 32), chunks=(1000, 32), compression=4
        )
        file.swmr_mode = True
        for begin in range(0, 20_000, 700):
            part = WALK[begin : begin + 700]
            dataset.resize(begin + len(part), axis=0)
            dataset[begin:] = part
            dataset.flush()
    released = release(tmp_path / "a.h5")
    with writing("again.h5") as file:
        file["x"] = WALK
    released.restore(tmp_path / "again.h5")
    with h5py.File(tmp_path / "restored.h5", "r", swmr=True) as file:
        assert (file["x"][...] == WALK).all()


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_edges_masks_text_and_references_behind_a_user_block(
    writing: Writing, tmp_path: Path, release: Release, libver: str
) -> None:
    """Everything awkward in one file, in both formats, rebuilt from a plain one."""
    with writing("a.h5", userblock_size=1024, libver=libver) as file:
        chunked = file.create_dataset("x", data=WALK, chunks=(3000, 20), compression=4)
        chunked.id.write_direct_chunk((3000, 0), WALK[3000:6000, :20].tobytes(), 1)
        file["contiguous"] = WALK
        file["text"] = np.array([f"unit {n}" for n in range(900)], dtype=h5py.string_dtype())
        file.create_dataset("refs", data=[chunked.ref] * 90, dtype=h5py.ref_dtype)
        file.create_dataset("ragged", (3,), dtype=h5py.vlen_dtype(np.dtype("i4")))
        file["ragged"][1] = np.arange(500)
    with (tmp_path / "a.h5").open("r+b") as raw:
        raw.write(b"#!/usr/bin/env a-program\n")
    released = release(tmp_path / "a.h5")
    assert released.bulk_paths == ["/contiguous", "/x"]
    assert share(released) < LIMIT
    with writing("again.h5") as file:
        file.create_dataset("x", data=WALK)
        file.create_dataset("contiguous", data=WALK, chunks=(17, 32), shuffle=True)
    released.restore(tmp_path / "again.h5")


def _plugin_filters() -> dict[str, Any]:
    plugin = pytest.importorskip("hdf5plugin")
    return {
        "blosc lz4": plugin.Blosc(cname="lz4", clevel=5),
        "blosc zstd": plugin.Blosc(cname="zstd", clevel=3, shuffle=plugin.Blosc.BITSHUFFLE),
        "blosc2": plugin.Blosc2(cname="zstd", clevel=3),
        "zstd": plugin.Zstd(clevel=3),
        "lz4": plugin.LZ4(),
        "bitshuffle": plugin.Bitshuffle(),
    }


@pytest.mark.parametrize("name", ["blosc lz4", "blosc zstd", "blosc2", "zstd", "lz4", "bitshuffle"])
def test_filters_of_others_are_reproduced(
    writing: Writing,
    tmp_path: Path,
    release: Release,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Where the encoder at hand gives the same bytes again, chunks of plug-ins are bulk too."""
    monkeypatch.setenv("BLOSC_NTHREADS", "1")
    with writing("a.h5") as file:
        file.create_dataset("x", data=WALK, chunks=(3000, 32), **_plugin_filters()[name])
    released = release(tmp_path / "a.h5")
    assert released.bulk_paths == ["/x"]
    assert share(released) < LIMIT
    with writing("again.h5") as file:
        file.create_dataset("x", data=WALK, chunks=(700, 32), compression=1)
    assert released.restore(tmp_path / "again.h5").pieces_encoded == 7
