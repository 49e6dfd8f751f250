"""One form for types and values of HDF5, whatever the file's byte order, padding or layout.

The byte-level page is docs/reference/formats/h5c1.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5r, h5s, h5t

from recallfs.errors import InvalidInputError
from recallfs.hdf5.access import Bytes
from recallfs.hdf5.datatypes import is_fixed_size
from recallfs.hdf5.objects import ObjectNames, readable

_COMPLEX = getattr(h5t, "COMPLEX", None)
_CHARACTER_SETS = {h5t.CSET_ASCII: "ascii", h5t.CSET_UTF8: "utf8"}


@dataclass(frozen=True)
class CanonicalType:
    """A type, as text, and how its elements are brought into their one form.

    Parameters
    ----------
    text : str
        Equal for equal types; says nothing of byte order, padding or where members lie.
    item_bytes : int
        Size of an element as the file's type has it; 0 if its elements vary in size.
    """

    text: str
    item_bytes: int
    _convert: Callable[[Bytes], Bytes] | None = None
    _encode: Callable[[Any, ObjectNames], bytes] | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether an element's bytes hold its whole value; else it is read as an object."""
        return self._encode is None

    def bytes_of(self, elements: Bytes) -> Bytes:
        """Bring elements of a fixed size, as the file has them, into their one form.

        Parameters
        ----------
        elements : Bytes
            ``n * item_bytes`` bytes.
        """
        if self._convert is None or not len(elements):
            return elements
        return self._convert(elements.reshape(-1, self.item_bytes)).reshape(-1)

    def encoded(self, elements: Iterable[Any], names: ObjectNames) -> bytes:
        """Bring elements that vary in size, as h5py gives them, into their one form."""
        encode = self._encode
        if encode is None:
            raise AssertionError("elements of a fixed size are bytes already")
        return b"".join(encode(element, names) for element in elements)


def canonical_type(datatype: Any) -> CanonicalType:
    """Return the one form of an HDF5 type.

    Parameters
    ----------
    datatype : h5py.h5t.TypeID

    Raises
    ------
    InvalidInputError
        If it is of a class that is not known here.
    """
    if is_fixed_size(datatype) or _is_complex(datatype):
        return _fixed(datatype)
    return _varying(datatype)


def _is_complex(datatype: Any) -> bool:
    return _COMPLEX is not None and datatype.get_class() == _COMPLEX


def _fixed(datatype: Any) -> CanonicalType:
    kind, size = datatype.get_class(), datatype.get_size()
    if kind in (h5t.INTEGER, h5t.BITFIELD):
        return _integer(datatype)
    if kind == h5t.FLOAT:
        return _float(datatype)
    if kind == h5t.ENUM:
        base = _fixed(datatype.get_super())
        members = sorted(
            (int(datatype.get_member_value(i)), datatype.get_member_name(i))
            for i in range(datatype.get_nmembers())
        )
        text = ",".join(f"{_quoted(name)}={value}" for value, name in members)
        return CanonicalType(f"enum({base.text};{text})", size, base._convert)
    if kind == h5t.OPAQUE:
        return CanonicalType(f"opaque({size};{_quoted(datatype.get_tag())})", size)
    if kind == h5t.STRING:
        return _fixed_string(datatype)
    if kind == h5t.ARRAY:
        base = _fixed(datatype.get_super())
        dims = ",".join(map(str, datatype.get_array_dims()))
        return CanonicalType(
            f"array({base.text};{dims})", size, base._convert and _repeated(base, size)
        )
    if kind == h5t.COMPOUND:
        return _fixed_compound(datatype)
    if _is_complex(datatype):
        half = _swapped(size // 2) if datatype.get_order() == h5t.ORDER_BE else None
        base = CanonicalType("", size // 2, half)
        return CanonicalType(f"complex({size * 4})", size, half and _repeated(base, size))
    raise _unknown(kind)


def _integer(datatype: Any) -> CanonicalType:
    size, precision, offset = datatype.get_size(), datatype.get_precision(), datatype.get_offset()
    if datatype.get_class() == h5t.BITFIELD:
        letter = "bits"
    else:
        letter = "int" if datatype.get_sign() == h5t.SGN_2 else "uint"
    text = f"{letter}{size * 8}"
    if precision != size * 8:
        text += f"({precision}@{offset})"
    return CanonicalType(text, size, _bits(datatype, precision, offset))


def _float(datatype: Any) -> CanonicalType:
    size, precision, offset = datatype.get_size(), datatype.get_precision(), datatype.get_offset()
    fields, bias = tuple(datatype.get_fields()), datatype.get_ebias()
    text = f"float{size * 8}"
    if (size, fields, bias, precision) not in _IEEE:
        text += f"({precision}@{offset};{','.join(map(str, fields))};{bias};{datatype.get_norm()})"
    return CanonicalType(text, size, _bits(datatype, precision, offset))


_IEEE = {
    (2, (15, 10, 5, 0, 10), 15, 16),
    (4, (31, 23, 8, 0, 23), 127, 32),
    (8, (63, 52, 11, 0, 52), 1023, 64),
    (16, (127, 112, 15, 0, 112), 16383, 128),
}
"""Size, fields, bias and precision of the IEEE 754 binary formats."""


def _bits(datatype: Any, precision: int, offset: int) -> Callable[[Bytes], Bytes] | None:
    """Return what brings a number into little-endian order and clears the bits that pad it."""
    size, order = datatype.get_size(), datatype.get_order()
    if order == h5t.ORDER_VAX:
        raise _unknown("numbers in VAX order")
    swap = _swapped(size) if order == h5t.ORDER_BE and size > 1 else None
    if precision == size * 8:
        return swap
    mask = np.frombuffer(
        (((1 << precision) - 1) << offset).to_bytes(size, "little"), dtype=np.uint8
    )
    return lambda elements: (elements if swap is None else swap(elements)) & mask


def _swapped(size: int) -> Callable[[Bytes], Bytes]:
    if size in (2, 4, 8):
        return lambda elements: (
            np.ascontiguousarray(elements).view(f"u{size}").byteswap().view(np.uint8)
        ).reshape(-1, size)
    return lambda elements: elements[:, ::-1]


def _fixed_string(datatype: Any) -> CanonicalType:
    size, padding = datatype.get_size(), datatype.get_strpad()
    text = f"string({size};{_character_set(datatype)})"

    def cleared(elements: Bytes) -> Bytes:
        if padding == h5t.STR_NULLTERM:
            ended = np.logical_or.accumulate(elements == 0, axis=1)
        else:
            pad = 0 if padding == h5t.STR_NULLPAD else 0x20
            ended = np.logical_and.accumulate((elements == pad)[:, ::-1], axis=1)[:, ::-1]
        return np.where(ended, np.uint8(0), elements)

    return CanonicalType(text, size, cleared)


def _repeated(base: CanonicalType, size: int) -> Callable[[Bytes], Bytes]:
    def convert(elements: Bytes) -> Bytes:
        return base.bytes_of(np.ascontiguousarray(elements).reshape(-1)).reshape(
            -1, size // base.item_bytes * base.item_bytes
        )

    return convert


def _fixed_compound(datatype: Any) -> CanonicalType:
    members = [
        (
            datatype.get_member_name(i),
            datatype.get_member_offset(i),
            _fixed(datatype.get_member_type(i)),
        )
        for i in range(datatype.get_nmembers())
    ]
    text = ";".join(f"{_quoted(name)}:{member.text}" for name, _, member in members)
    size = datatype.get_size()
    end, is_packed = 0, True
    for _, offset, member in members:
        is_packed = is_packed and offset == end and member._convert is None
        end = offset + member.item_bytes

    def convert(elements: Bytes) -> Bytes:
        parts = []
        for _, offset, member in members:
            part = np.ascontiguousarray(elements[:, offset : offset + member.item_bytes])
            parts.append(member.bytes_of(part.reshape(-1)).reshape(len(elements), -1))
        return np.concatenate(parts, axis=1)

    unchanged = is_packed and end == size
    return CanonicalType(f"compound({text})", size, None if unchanged else convert)


def _varying(datatype: Any) -> CanonicalType:
    """Return the form of a type that holds variable-length parts or references."""
    kind = datatype.get_class()
    if kind == h5t.STRING:
        return CanonicalType(f"string(*;{_character_set(datatype)})", 0, None, _encode_text)
    if kind == h5t.REFERENCE:
        is_region = datatype.equal(h5t.STD_REF_DSETREG)
        if not is_region and not datatype.equal(h5t.STD_REF_OBJ):
            raise _unknown("references of HDF5 1.12's new kind")
        return CanonicalType(
            "region" if is_region else "reference",
            0,
            None,
            _encode_region if is_region else _encode_reference,
        )
    if kind == h5t.VLEN:
        base = canonical_type(datatype.get_super())
        item = _item_encoder(base, datatype.get_super())

        def encode_list(value: Any, names: ObjectNames) -> bytes:
            items = np.asarray(value if value is not None else [])
            return struct.pack("<Q", items.size) + item(items.reshape(-1), names)

        return CanonicalType(f"list({base.text})", 0, None, encode_list)
    if kind == h5t.ARRAY:
        base = canonical_type(datatype.get_super())
        item = _item_encoder(base, datatype.get_super())
        dims = ",".join(map(str, datatype.get_array_dims()))
        return CanonicalType(
            f"array({base.text};{dims})",
            0,
            None,
            lambda value, names: item(np.asarray(value).reshape(-1), names),
        )
    if kind == h5t.COMPOUND:
        return _varying_compound(datatype)
    raise _unknown(kind)


def _varying_compound(datatype: Any) -> CanonicalType:
    members = []
    for index in range(datatype.get_nmembers()):
        member = datatype.get_member_type(index)
        form = canonical_type(member)
        members.append((datatype.get_member_name(index), form, _item_encoder(form, member)))
    text = ";".join(f"{_quoted(name)}:{form.text}" for name, form, _ in members)

    def encode(value: Any, names: ObjectNames) -> bytes:
        # By place: h5py may have to change names that NumPy does not take.
        parts = (item(_as_array(value[index]), names) for index, (_, _, item) in enumerate(members))
        return b"".join(parts)

    return CanonicalType(f"compound({text})", 0, None, encode)


def _as_array(value: Any) -> npt.NDArray[Any]:
    """Wrap one value so that an object which is itself an array is not taken apart."""
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        return np.asarray(value).reshape(-1)
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


def _item_encoder(
    form: CanonicalType, datatype: Any
) -> Callable[[npt.NDArray[Any], ObjectNames], bytes]:
    """Return what encodes NumPy values, as h5py gives them, of some type inside another."""
    if not form.is_fixed:
        return form.encoded
    dtype = datatype.dtype

    def encode(values: npt.NDArray[Any], _names: ObjectNames) -> bytes:
        # A member that is an array comes without its own dtype; by bytes it is one again.
        raw = np.ascontiguousarray(values)
        if dtype.subdtype is None and raw.dtype != dtype:
            raw = raw.astype(dtype)
        return form.bytes_of(np.frombuffer(raw.tobytes(), dtype=np.uint8)).tobytes()

    return encode


def _encode_text(value: Any, _names: ObjectNames) -> bytes:
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    text = bytes(value or b"")
    return struct.pack("<Q", len(text)) + text


def _encode_path(path: str) -> bytes:
    name = path.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(name)) + name


def _encode_reference(value: Any, names: ObjectNames) -> bytes:
    return _encode_path(names.target_of(value) if value else "")


def _encode_region(value: Any, names: ObjectNames) -> bytes:
    if not value:
        return _encode_path("") + struct.pack("<Q", 0)
    path = names.target_of(value)
    selected = _selection(value, names)
    return _encode_path(path) + struct.pack("<Q", selected.size) + selected.tobytes()


def _selection(value: Any, names: ObjectNames) -> npt.NDArray[np.int64]:
    """Return the points of a region, or the corners of its blocks, as little-endian int64."""
    space = h5r.get_region(value, names.file.id)
    kind = space.get_select_type()
    if kind == h5s.SEL_POINTS:
        return np.asarray(space.get_select_elem_pointlist(), dtype="<i8").reshape(-1)
    if kind == h5s.SEL_HYPERSLABS:
        blocks = np.asarray(space.get_select_hyper_blocklist(), dtype="<i8")
        blocks = blocks.reshape(len(blocks), -1)
        return blocks[np.lexsort(blocks.T[::-1])].reshape(-1)
    if kind == h5s.SEL_ALL:
        return np.asarray([[0] * space.rank, space.shape], dtype="<i8").reshape(-1)
    return np.empty(0, dtype="<i8")


def _character_set(datatype: Any) -> str:
    return _CHARACTER_SETS.get(datatype.get_cset(), str(datatype.get_cset()))


def _quoted(name: bytes) -> str:
    """Spell a name so that no punctuation in it is taken for ours."""
    return '"' + readable(name).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unknown(what: Any) -> InvalidInputError:
    return InvalidInputError(
        f"an HDF5 type is of a class that this recallfs cannot read ({what}; HDF5 "
        f"{h5py.version.hdf5_version}).",
        kind="not-hdf5",
    )
