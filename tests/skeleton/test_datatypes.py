"""Which types may be bulk, and which two may be read as each other."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5t

from recallfs.hdf5.datatypes import is_fixed_size, same_values

FIXED = [
    np.dtype("i1"),
    np.dtype(">u8"),
    np.dtype("f2"),
    np.dtype("bool"),
    np.dtype("c16"),
    np.dtype("S7"),
    np.dtype("V9"),
    np.dtype(("<i4", (2, 3))),
    np.dtype([("a", "i2"), ("b", "f8"), ("c", [("d", "S3")])], align=True),
    h5py.enum_dtype({"rest": 0, "run": 5}, basetype="i2"),
]
VARIABLE = [
    h5py.string_dtype(),
    h5py.vlen_dtype(np.dtype("i4")),
    h5py.ref_dtype,
    h5py.regionref_dtype,
    np.dtype([("n", "i4"), ("name", h5py.string_dtype())]),
    np.dtype([("deep", [("object", h5py.ref_dtype)])]),
    np.dtype([("several", h5py.string_dtype(), (3,))]),
]


@pytest.mark.parametrize("dtype", FIXED, ids=str)
def test_types_whose_bytes_are_the_value_may_be_bulk(dtype: np.dtype[np.void]) -> None:
    """Numbers, enumerations, fixed strings, opaque bytes and compounds of these are bulk."""
    assert is_fixed_size(h5t.py_create(dtype, logical=True))


@pytest.mark.parametrize("dtype", VARIABLE, ids=str)
def test_types_that_hold_an_address_are_never_bulk(dtype: np.dtype[np.void]) -> None:
    """A variable-length part or a reference anywhere inside keeps a type out of the bulk."""
    assert not is_fixed_size(h5t.py_create(dtype, logical=True))


def _type(dtype: Any) -> h5t.TypeID:
    return h5t.py_create(np.dtype(dtype), logical=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<i4", ">i4"),
        ("<f8", ">f8"),
        (("<i2", (3,)), (">i2", (3,))),
        ([("a", "<i2"), ("b", "<f4")], [("a", ">i2"), ("b", ">f4")]),
        ([("a", "i1"), ("b", "i8")], np.dtype([("a", "i1"), ("b", "i8")], align=True)),
        (
            h5py.enum_dtype({"x": 1}, basetype="<i2"),
            h5py.enum_dtype({"x": 1}, basetype=">i2"),
        ),
        ("S4", "S4"),
    ],
    ids=str,
)
def test_byte_order_alone_makes_no_other_type(one: object, other: object) -> None:
    """Types that differ in byte order or padding hold the same values."""
    assert same_values(_type(one), _type(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("i4", "i8"),
        ("i4", "u4"),
        ("f4", "i4"),
        ("f4", "f8"),
        ("S4", "S5"),
        ("V4", "i4"),
        (("i2", (3,)), ("i2", (4,))),
        ([("a", "i2")], [("b", "i2")]),
        ([("a", "i2")], [("a", "i2"), ("b", "i2")]),
        (h5py.enum_dtype({"x": 1}, basetype="i2"), h5py.enum_dtype({"x": 2}, basetype="i2")),
        (h5py.enum_dtype({"x": 1}, basetype="i2"), h5py.enum_dtype({"y": 1}, basetype="i2")),
        ("bool", "i1"),
        ("S4", h5py.string_dtype()),
    ],
    ids=str,
)
def test_other_width_sign_or_names_make_another_type(one: object, other: object) -> None:
    """HDF5 would convert between these and clip; they are refused as another type."""
    assert not same_values(_type(one), _type(other))
