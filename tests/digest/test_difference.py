"""Differences of two HDF5 files: which object, in what, and by how much."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hdf5_files import Content, Layout, everything, mutations
from recallfs.digest.difference import compare_digests, compare_files
from recallfs.digest.hdf5 import content_digest
from recallfs.digest.rules import KNOWN
from recallfs.digest.tally import Tolerance

CONTENT = everything()
MUTATIONS = mutations(CONTENT)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return CONTENT.write(tmp_path / "plain.h5")


def numbers(path: Path, values: object, **options: Any) -> Path:
    """Write one dataset."""
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, **options)
    return path


def test_a_copy_is_identical(plain: Path, tmp_path: Path) -> None:
    """Equal bytes are the first thing that is looked at."""
    copy = tmp_path / "copy.h5"
    shutil.copyfile(plain, copy)
    assert compare_files(plain, copy).verdict == "identical bytes"


def test_another_layout_is_the_same_content(plain: Path, tmp_path: Path) -> None:
    """Other chunks and another compressor are told from another content."""
    other = CONTENT.write(tmp_path / "other.h5", Layout(chunk=2, gzip=9, libver="latest"))
    found = compare_files(plain, other)
    assert found.verdict == "same content, other layout"
    assert found.differing == 0
    assert found.compared > 20


@pytest.mark.parametrize("what", MUTATIONS)
def test_every_change_is_found_and_is_the_only_one(what: str, plain: Path, tmp_path: Path) -> None:
    """What was changed is named, on both sides of the comparison; nothing else is."""
    other = MUTATIONS[what].write(tmp_path / "other.h5", Layout(chunk=3, gzip=1))
    found = compare_files(plain, other)
    assert found.verdict == "different"
    assert 1 <= found.differing <= 5, found.differences
    back = compare_files(other, plain)
    assert {str(item) for item in back.differences} == {str(item) for item in found.differences}
    kept = compare_digests(content_digest(plain), content_digest(other))
    assert kept.differing == found.differing
    assert kept.compared == found.compared


def test_one_sample_one_ulp_off(tmp_path: Path) -> None:
    """A single value that differs in its last bit is found, named and measured."""
    values = np.random.default_rng(0).normal(size=(1000, 30))
    one = numbers(tmp_path / "a.h5", values, chunks=(100, 7), compression="gzip")
    changed = values.copy()
    changed[777, 13] = np.nextafter(values[777, 13], np.inf)
    other = numbers(tmp_path / "b.h5", changed, chunks=(33, 30))
    (found,) = compare_files(one, other).differences
    assert (found.path, found.what) == ("/x", "values")
    assert found.values is not None
    assert found.values.count == found.values.beyond == 1
    assert found.values.total == 30000
    assert found.values.first == (777, 13)
    assert found.values.largest_absolute == abs(changed[777, 13] - values[777, 13])
    assert found.values.examples[0][0] == (777, 13)


@pytest.mark.parametrize(
    ("tolerance", "verdict", "beyond"),
    [
        (Tolerance(), "different", 3),
        (Tolerance(absolute=1e-9), "different", 2),
        (Tolerance(relative=1e-6), "different", 1),
        (Tolerance(absolute=1.0), "within tolerance", 0),
    ],
)
def test_tolerance(tmp_path: Path, tolerance: Tolerance, verdict: str, beyond: int) -> None:
    """Numbers within the bound are counted, and do not make the files different."""
    values = np.array([1.0, 1000.0, 3.0, np.nan, np.inf, -0.0])
    other = values + np.array([1e-10, 1e-5, 0.5, 0, 0, 0])
    found = compare_files(
        numbers(tmp_path / "a.h5", values), numbers(tmp_path / "b.h5", other), tolerance=tolerance
    )
    assert found.verdict == verdict
    (item,) = found.differences
    assert item.values is not None
    assert (item.values.count, item.values.beyond) == (4, beyond + (tolerance.is_exact))


def test_nan_against_a_number_is_never_tolerated(tmp_path: Path) -> None:
    """A value that is missing on one side is infinitely far."""
    one = numbers(tmp_path / "a.h5", np.array([1.0, 2.0]))
    other = numbers(tmp_path / "b.h5", np.array([1.0, np.nan]))
    found = compare_files(one, other, tolerance=Tolerance(1e300, 1e300))
    assert found.verdict == "different"
    assert found.differences[0].values is not None
    assert found.differences[0].values.largest_absolute == np.inf


def test_integers_do_not_wrap(tmp_path: Path) -> None:
    """The distance of large unsigned numbers is their distance."""
    one = numbers(tmp_path / "a.h5", np.array([0], dtype=np.uint64))
    other = numbers(tmp_path / "b.h5", np.array([2**64 - 1], dtype=np.uint64))
    (found,) = compare_files(one, other).differences
    assert found.values is not None
    assert found.values.largest_absolute == float(2**64 - 1)


def test_types_that_differ_are_still_compared_by_value(tmp_path: Path) -> None:
    """int16 against float64: the type is named, and that the values agree is seen."""
    one = numbers(tmp_path / "a.h5", np.arange(5, dtype=np.int16))
    other = numbers(tmp_path / "b.h5", np.arange(5, dtype=np.float64))
    assert [item.what for item in compare_files(one, other).differences] == ["type"]


def test_rules_leave_out_what_always_differs(tmp_path: Path) -> None:
    """Two files that differ in object ids and the day of writing are the same under rules."""
    paths = []
    for number in (1, 2):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            file.attrs["object_id"] = f"id {number}"
            file["file_create_date"] = [f"day {number}"]
            file.create_group("specifications/core")[f"{number}"] = number
            file.create_group("acquisition").attrs["object_id"] = f"inner {number}"
        paths.append(path)
    assert (
        compare_files(paths[0], paths[1], KNOWN["nwb-content"]).verdict
        == "same content, other layout"
    )
    found = compare_files(paths[0], paths[1], KNOWN["nwb"])
    assert [str(item) for item in found.differences] == ["/acquisition@object_id"]
    assert compare_files(paths[0], paths[1]).differing == 5


def test_large_streams_in_pieces_of_different_size(tmp_path: Path) -> None:
    """Two layouts whose pieces never line up are compared element by element all the same."""
    values = np.random.default_rng(3).integers(-9, 9, size=(3_000_000,), dtype=np.int16)
    one = numbers(tmp_path / "a.h5", values, chunks=(77_777,), compression="gzip")
    changed = values.copy()
    changed[[5, 2_999_999]] += 1
    other = numbers(tmp_path / "b.h5", changed)
    (found,) = compare_files(one, other).differences
    assert found.values is not None
    assert found.values.count == 2
    assert [place for place, _, _ in found.values.examples] == [(5,), (2_999_999,)]


def test_contents_may_be_empty(tmp_path: Path) -> None:
    """Files without anything in them are compared too."""
    one, other = (
        Content().write(tmp_path / "a.h5"),
        Content().write(tmp_path / "b.h5", Layout(libver="latest")),
    )
    assert compare_files(one, other).verdict == "same content, other layout"
