"""Which HDF5 types may be bulk, and which two hold the same values in another byte order."""

from __future__ import annotations

from typing import Any

from h5py import h5t

_PLAIN_CLASSES = frozenset(
    {h5t.INTEGER, h5t.FLOAT, h5t.BITFIELD, h5t.OPAQUE, h5t.ENUM}
)  # their elements are their bytes


def is_fixed_size(datatype: Any) -> bool:
    """Tell whether an element's bytes hold the whole value.

    Parameters
    ----------
    datatype : h5py.h5t.TypeID
        A file type.

    Returns
    -------
    bool
        False for anything that contains a variable-length part or a reference: what is stored
        there is an address inside that very file. False too for classes not known here.
    """
    kind = datatype.get_class()
    if kind in _PLAIN_CLASSES:
        return True
    if kind == h5t.STRING:
        return not datatype.is_variable_str()
    if kind == h5t.ARRAY:
        return is_fixed_size(datatype.get_super())
    if kind == h5t.COMPOUND:
        members = range(datatype.get_nmembers())
        return all(is_fixed_size(datatype.get_member_type(index)) for index in members)
    return False


def same_values(one: Any, other: Any) -> bool:
    """Tell whether two types differ in byte order at most, so that conversion loses nothing.

    Parameters
    ----------
    one, other : h5py.h5t.TypeID
        Types for which `is_fixed_size` is true.

    Notes
    -----
    Compound types may also differ in where their members lie. An integer of another width is
    another type: HDF5 would clip it without a word.
    """
    if one.equal(other):
        return True
    kind = one.get_class()
    if kind != other.get_class():
        return False
    if kind == h5t.COMPOUND:
        return _same_members(one, other)
    if kind == h5t.ARRAY:
        same_shape = one.get_array_dims() == other.get_array_dims()
        return same_shape and same_values(one.get_super(), other.get_super())
    if one.get_size() != other.get_size():
        return False
    if kind == h5t.ENUM:
        return _same_names(one, other) and same_values(one.get_super(), other.get_super())
    if kind == h5t.INTEGER:
        same_sign = one.get_sign() == other.get_sign()
        return bool(same_sign and one.get_precision() == other.get_precision())
    if kind == h5t.FLOAT:
        same_fields = one.get_fields() == other.get_fields()
        return bool(same_fields and one.get_ebias() == other.get_ebias())
    if kind == h5t.STRING:
        both_fixed = not (one.is_variable_str() or other.is_variable_str())
        return bool(both_fixed and one.get_strpad() == other.get_strpad())
    return False


def _same_members(one: Any, other: Any) -> bool:
    """Compare compound types member by member, in order."""
    count = one.get_nmembers()
    if count != other.get_nmembers():
        return False
    return all(
        one.get_member_name(index) == other.get_member_name(index)
        and same_values(one.get_member_type(index), other.get_member_type(index))
        for index in range(count)
    )


def _same_names(one: Any, other: Any) -> bool:
    """Compare the names and values of two enumerations."""
    count = one.get_nmembers()
    if count != other.get_nmembers():
        return False
    return all(
        one.get_member_name(index) == other.get_member_name(index)
        and one.get_member_value(index) == other.get_member_value(index)
        for index in range(count)
    )
