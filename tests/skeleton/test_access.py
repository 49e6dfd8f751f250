"""Opening HDF5 files and reading elements as raw bytes."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5p, h5t, h5z

from recallfs.errors import ConflictError, InvalidInputError
from recallfs.hdf5.access import missing_filters, open_hdf5, read_elements
from skeleton.released import Writing


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all" * 1000, b"\x89HDF\r\n\x1a\n" * 4])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """What is not HDF5 gives an error of ours, not h5py's."""
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="not an HDF5 file") as caught, open_hdf5(path):
        pass
    assert caught.value.kind == "not-hdf5"


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_path_without_a_file_is_refused(tmp_path: Path, is_folder: bool) -> None:
    """A missing file is no 'file not found' here: that would mean an absent original."""
    if is_folder:
        (tmp_path / "x").mkdir()
    with pytest.raises(InvalidInputError) as caught, open_hdf5(tmp_path / "x"):
        pass
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("locking", [True, False])
def test_a_file_that_is_open_here_can_be_read(
    writing: Writing, tmp_path: Path, locking: bool
) -> None:
    """Whatever another reader in this process decided about locks, the file opens."""
    with writing("a.h5") as file:
        file["x"] = np.arange(5)
    options: dict[str, Any] = {} if locking else {"locking": False}
    with h5py.File(tmp_path / "a.h5", "r", **options) as other:
        with open_hdf5(tmp_path / "a.h5") as file:
            assert file["x"][3] == 3
        assert other["x"][4] == 4


def test_a_lock_of_another_process_does_not_matter(writing: Writing, tmp_path: Path) -> None:
    """No lock is asked for, so a writer elsewhere does not stop us."""
    with writing("a.h5") as file:
        file["x"] = np.arange(5)
    with (tmp_path / "a.h5").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open_hdf5(tmp_path / "a.h5") as file:
            assert file["x"][3] == 3


def test_a_killed_writers_file_is_in_use(writing: Writing, tmp_path: Path) -> None:
    """A writer's mark that was left behind is told apart from damage."""
    with writing("a.h5", libver="latest") as file:
        file["x"] = np.arange(5)
        file.flush()
        (tmp_path / "left.h5").write_bytes((tmp_path / "a.h5").read_bytes())
    with pytest.raises(ConflictError) as caught, open_hdf5(tmp_path / "left.h5"):
        pass
    assert caught.value.kind == "in-use"


def test_elements_come_out_as_the_file_has_them(writing: Writing, tmp_path: Path) -> None:
    """Byte order, compound padding and values outside an enumeration are not touched."""
    padded = np.frombuffer(
        bytes(range(64)), dtype=np.dtype([("a", "i1"), ("b", ">i4")], align=True)
    )
    with writing("a.h5") as file:
        file["padded"] = padded
        file["order"] = np.arange(6, dtype=">i2").reshape(2, 3)
        enum = file.create_dataset(
            "enum", (4,), h5py.enum_dtype({"no": 0, "yes": 1}, basetype="u1")
        )
        enum.id.write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.arange(4, dtype="u1"), mtype=enum.id.get_type()
        )
    with open_hdf5(tmp_path / "a.h5") as file:

        def read(name: str, start: tuple[int, ...], count: tuple[int, ...]) -> bytes:
            dataset = file[name].id
            return read_elements(dataset, dataset.get_type(), start, count).tobytes()

        assert read("padded", (1,), (3,)) == bytes(range(8, 32))
        assert read("order", (0, 1), (2, 2)) == bytes([0, 1, 0, 2, 0, 4, 0, 5])
        assert read("enum", (0,), (4,)) == bytes(range(4))
        swapped = read_elements(file["order"].id, h5t.STD_I16LE, (1, 0), (1, 2))
    assert swapped.tobytes() == bytes([3, 0, 4, 0])


def test_missing_filters_are_named() -> None:
    """Filters that are here are not listed; one that is not is named with its number."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((4,))
    properties.set_deflate(4)
    assert missing_filters(properties) == []
    properties.set_filter(31999, h5z.FLAG_OPTIONAL, (1, 2))
    assert [name.split()[0] for name in missing_filters(properties)] == ["31999"]
