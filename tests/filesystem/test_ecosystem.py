"""pandas, xarray, zarr and dask read and write ``recall://`` URLs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from conftest import Lab, sha256
from mirrored import released_file
from recallfs.errors import NotRecallableError, SourceError
from recallfs.filesystem import RecallFileSystem

# These packages leave files to the garbage collector, and warn of each other's changes.
pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

needs_zarr_3 = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="zarr 3 is not made for Python 3.10"
)
TABLE = pd.DataFrame({"unit": range(6), "rate": [0.5, 1, 2.5, 3, 4, 5.5]})


def release(lab: Lab, *paths: str) -> None:
    """Release files that are in the store, having put copies of them on a mirror."""
    for path in paths:
        place = lab.root / path
        content = place.read_bytes()
        released_file(lab, path, content)


def released_below(lab: Lab, folder: str) -> list[str]:
    """Release every file below a folder; return their paths in the store."""
    place = lab.root / folder
    paths = [str(file.relative_to(lab.root)) for file in place.rglob("*") if file.is_file()]
    assert paths
    release(lab, *paths)
    return paths


def lose(lab: Lab, path: str) -> None:
    """Release a file, then lose its only copy."""
    digest = sha256(lab.root / path)
    release(lab, path)
    (lab.base / "mirror/sha256" / digest[:2] / digest[2:4] / digest).unlink()


# -- pandas -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "t.json"])
def test_pandas_tables(lab: Lab, name: str) -> None:
    """A table that pandas wrote to a URL is read from it, also after its file was released."""
    url = f"recall://lab/{name}"
    kind = name.split(".")[1]
    getattr(TABLE, f"to_{kind}")(url, **({"index": False} if kind == "csv" else {}))
    release(lab, name)
    assert not (lab.root / name).exists()
    pd.testing.assert_frame_equal(getattr(pd, f"read_{kind}")(url), TABLE, check_dtype=False)


def test_pandas_hdf_by_its_native_path(lab: Lab, fs: RecallFileSystem) -> None:
    """PyTables takes paths only; `open_local` gives it one, having brought the file back."""
    local = lab.base / "t.h5"
    TABLE.to_hdf(local, key="table")
    fs.put(str(local), "lab/t.h5")
    release(lab, "t.h5")
    path = fsspec.open_local("recall://lab/t.h5")
    pd.testing.assert_frame_equal(pd.read_hdf(path, "table"), TABLE)


# -- zarr ---------------------------------------------------------------------------------------


@needs_zarr_3
def test_zarr_group_comes_back(lab: Lab, fs: RecallFileSystem) -> None:
    """A group with its array is written, released whole, and read back with nothing lost."""
    import zarr

    group = zarr.open_group("recall://lab/g.zarr", mode="w")
    array = group.create_array("a", shape=(10,), chunks=(4,), dtype="i4")
    array[:] = np.arange(1, 11)
    zarr.consolidate_metadata(group.store)
    paths = released_below(lab, "g.zarr")
    assert len(paths) >= 5
    read = zarr.open_consolidated("recall://lab/g.zarr", mode="r")
    assert "a" in read
    np.testing.assert_array_equal(read["a"][:], np.arange(1, 11))
    assert fs.info("lab/g.zarr/a/c/0")["state"] == "resident"


@needs_zarr_3
def test_zarr_store_wraps_the_filesystem(lab: Lab, fs: RecallFileSystem) -> None:
    """`FsspecStore` makes the filesystem asynchronous; keys, ranges and deletion go through."""
    import zarr
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
    from zarr.storage import FsspecStore

    store = FsspecStore.from_url("recall://lab/a.zarr")
    assert isinstance(store.fs, AsyncFileSystemWrapper)
    array = zarr.create_array(store, shape=(64,), chunks=(8,), shards=(32,), dtype="f8")
    array[:] = np.arange(64)
    released_below(lab, "a.zarr")
    # A part of a shard is a read of a range.
    np.testing.assert_array_equal(zarr.open_array(store, mode="r")[40:44], np.arange(40, 44))
    array[0:32] = 0
    assert not fs.exists("lab/a.zarr/c/0")
    assert zarr.open_array("recall://lab/a.zarr", mode="r")[3] == 0


@needs_zarr_3
def test_missing_chunk_is_filled_and_a_lost_one_is_not(lab: Lab, fs: RecallFileSystem) -> None:
    """Only a chunk that never was is read as fill values; a lost one is an error."""
    import zarr

    array = zarr.create_array(
        "recall://lab/a.zarr", shape=(8,), chunks=(4,), dtype="i4", fill_value=-1
    )
    array[:4] = 7
    np.testing.assert_array_equal(array[:], [7] * 4 + [-1] * 4)
    lose(lab, "a.zarr/c/0")
    with pytest.raises(NotRecallableError, match=r"a\.zarr/c/0"):
        zarr.open_array("recall://lab/a.zarr", mode="r")[:]
    with pytest.raises(NotRecallableError):
        fsspec.get_mapper("recall://lab/a.zarr")["c/0"]
    assert fs.exists("lab/a.zarr/c/0")


@needs_zarr_3
def test_chunk_that_vanished_is_not_filled(lab: Lab) -> None:
    """A chunk that somebody deleted behind our back is on record, and so an error too."""
    import zarr

    zarr.create_array("recall://lab/a.zarr", shape=(4,), chunks=(4,), dtype="i4")[:] = 7
    (lab.root / "a.zarr/c/0").unlink()
    with pytest.raises(NotRecallableError):
        zarr.open_array("recall://lab/a.zarr", mode="r")[:]


@needs_zarr_3
def test_outage_and_mismatch_are_not_filled(lab: Lab) -> None:
    """With the mirror unreachable, or giving other bytes, reading a chunk raises."""
    import zarr

    zarr.create_array("recall://lab/a.zarr", shape=(4,), chunks=(4,), dtype="i4")[:] = 7
    digest = sha256(lab.root / "a.zarr/c/0")
    release(lab, "a.zarr/c/0")
    copy = lab.base / "mirror/sha256" / digest[:2] / digest[2:4] / digest
    right = copy.read_bytes()
    copy.write_bytes(bytes(len(right)))
    with pytest.raises(OSError, match=r"a\.zarr/c/0"):
        zarr.open_array("recall://lab/a.zarr", mode="r")[:]
    copy.write_bytes(right)
    lab.write_config('[[sources.mirror]]\nname = "copies"\nurl = "nosuch://x"\nlayout = "sha256"\n')
    with pytest.raises(SourceError):
        zarr.open_array("recall://lab/a.zarr", mode="r")[:]


# -- xarray -------------------------------------------------------------------------------------


def dataset() -> xr.Dataset:
    """Make a small data set with a coordinate."""
    values = np.arange(12.0).reshape(3, 4)
    return xr.Dataset({"v": (("time", "site"), values)}, coords={"time": [0.0, 0.5, 1.0]})


@needs_zarr_3
def test_xarray_with_zarr(lab: Lab) -> None:
    """A data set written as zarr is read back after all its files were released."""
    dataset().to_zarr("recall://lab/ds.zarr", consolidated=True, zarr_format=2)
    released_below(lab, "ds.zarr")
    with xr.open_zarr("recall://lab/ds.zarr", consolidated=True) as read:
        xr.testing.assert_identical(read.load(), dataset())


def test_xarray_with_h5netcdf(lab: Lab, fs: RecallFileSystem, tmp_path: Path) -> None:
    """A netCDF file is read from an open file and by its native path."""
    local = tmp_path / "ds.nc"
    dataset().to_netcdf(local, engine="h5netcdf")
    fs.put(str(local), "lab/ds.nc")
    release(lab, "ds.nc")
    with fs.open("lab/ds.nc") as file, xr.open_dataset(file, engine="h5netcdf") as read:
        xr.testing.assert_identical(read.load(), dataset())
    release(lab, "ds.nc")
    with xr.open_dataset(fs.open_local("lab/ds.nc"), engine="h5netcdf") as read:
        xr.testing.assert_identical(read.load(), dataset())


# -- dask ---------------------------------------------------------------------------------------


def test_dask_dataframe(lab: Lab) -> None:
    """Parts of a table are written and read, in blocks of a file too, released ones among them."""
    frame = dd.from_pandas(TABLE, npartitions=2)
    frame.to_csv("recall://lab/csv/*.csv", index=False)
    frame.to_parquet("recall://lab/t.parquet")
    released_below(lab, "csv")
    released_below(lab, "t.parquet")
    for blocksize in (None, 16):
        read = dd.read_csv("recall://lab/csv/*.csv", blocksize=blocksize).compute()
        pd.testing.assert_frame_equal(read.reset_index(drop=True), TABLE, check_dtype=False)
    read = dd.read_parquet("recall://lab/t.parquet").compute()
    pd.testing.assert_frame_equal(read, TABLE, check_dtype=False, check_names=False)


def test_dask_bag(lab: Lab) -> None:
    """Lines are written and read, compressed ones too."""
    bag = db.from_sequence(["a", "b", "c"], npartitions=2)
    for suffix in ("txt", "txt.gz"):
        with dask.config.set(scheduler="threads"):
            bag.to_textfiles(f"recall://lab/{suffix}/*.{suffix}")
            released_below(lab, suffix)
            read = db.read_text(f"recall://lab/{suffix}/*.{suffix}").compute()
        assert [line.strip() for line in read] == ["a", "b", "c"]


@needs_zarr_3
def test_dask_array(lab: Lab) -> None:
    """An array is written by threads and read back after its release."""
    array = da.arange(20, chunks=5)
    array.to_zarr("recall://lab/d.zarr")
    released_below(lab, "d.zarr")
    np.testing.assert_array_equal(da.from_zarr("recall://lab/d.zarr").compute(), np.arange(20))


def _read(open_file: Any) -> bytes:
    with open_file as file:
        return bytes(file.read())


def _write(open_file: Any, content: bytes) -> None:
    with open_file as file:
        file.write(content)


def test_dask_delayed_in_processes(lab: Lab, fs: RecallFileSystem) -> None:
    """Open files travel to worker processes, which write them, recall them and read them."""
    names = [f"lab/p/{i}" for i in range(3)]
    with dask.config.set({"scheduler": "processes", "num_workers": 2}):
        targets = fsspec.open_files([f"recall://{name}" for name in names], "wb")
        dask.compute(*(dask.delayed(_write)(target, b"%d" % i) for i, target in enumerate(targets)))
        released_below(lab, "p")
        sources = fsspec.open_files("recall://lab/p/*", "rb")
        read = dask.compute(*(dask.delayed(_read)(source) for source in sources))
    assert read == (b"0", b"1", b"2")
    assert {fs.info(name)["state"] for name in names} == {"resident"}
