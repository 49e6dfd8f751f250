"""HDF5 files that hold one content in many layouts, and contents that differ in one thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

TEXT = h5py.string_dtype("utf-8")
ASCII = h5py.string_dtype("ascii")
LISTS = h5py.vlen_dtype(np.int32)
ENUM = h5py.enum_dtype({"RED": 0, "GREEN": 1, "BLUE": 42}, basetype="i1")
COMPOUND = np.dtype([("id", "i4"), ("x", "f8", (2,)), ("name", "S5")])


@dataclass(frozen=True)
class Layout:
    """How a file is written; nothing of it is content."""

    chunk: int | None = None
    gzip: int | None = None
    shuffle: bool = False
    fletcher32: bool = False
    libver: str = "earliest"
    is_reversed: bool = False
    track_times: bool = False
    is_extendable: bool = False
    big_endian: bool = False
    lzf: bool = False


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Parameters
    ----------
    arrays : Mapping
        Path to array; ``(values, dtype)`` where h5py needs to be told.
    attributes : Mapping
        ``path@name`` to value.
    soft, external, hard : Mapping
        Path to target.
    """

    arrays: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    soft: Mapping[str, str] = field(default_factory=dict)
    external: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    hard: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def write(self, path: Path, layout: Layout = Layout()) -> Path:
        """Write it to a file."""
        order = reversed if layout.is_reversed else list

        with h5py.File(path, "w", libver=layout.libver) as file:
            for name, value in order(list(self.arrays.items())):
                values, dtype = value if isinstance(value, tuple) else (value, None)
                _write(file, name, values, dtype, layout)
            for name, target in order(list(self.hard.items())):
                file[name] = file[target]
            for name, target in order(list(self.soft.items())):
                file[name] = h5py.SoftLink(target)
            for name, (place, target) in order(list(self.external.items())):
                file[name] = h5py.ExternalLink(place, target)
            for name, targets in order(list(self.references.items())):
                refs = [file[target].ref for target in targets]
                file.create_dataset(name, data=refs, dtype=h5py.ref_dtype)
            for name, value in order(list(self.attributes.items())):
                on, _, called = name.rpartition("@")
                file[on or "/"].attrs[called] = value
        return path

    def changed(self, **parts: Any) -> Content:
        """Return it with some parts replaced."""
        return replace(self, **parts)


def _write(file: h5py.File, name: str, values: Any, dtype: Any, layout: Layout) -> None:
    options: dict[str, Any] = {"track_times": layout.track_times}
    array = np.asarray(
        values, dtype=None if dtype is None else object if dtype in (TEXT,) else dtype
    )
    if dtype is None and layout.big_endian and array.dtype.kind in "iuf":
        dtype = array.dtype.newbyteorder(">")
    if array.ndim and array.size and dtype not in (LISTS,):
        if layout.chunk is not None:
            options["chunks"] = tuple(min(n, layout.chunk) for n in array.shape)
        if layout.gzip is not None:
            options |= {"compression": "gzip", "compression_opts": layout.gzip}
        elif layout.lzf:
            options["compression"] = "lzf"
        options |= {"shuffle": layout.shuffle, "fletcher32": layout.fletcher32}
        if layout.is_extendable:
            options["maxshape"] = (None,) * array.ndim
    file.create_dataset(name, data=values, dtype=dtype, **options)


layouts = st.builds(
    Layout,
    chunk=st.none() | st.integers(1, 7),
    gzip=st.none() | st.integers(0, 9),
    shuffle=st.booleans(),
    fletcher32=st.booleans(),
    libver=st.sampled_from(["earliest", "latest"]),
    is_reversed=st.booleans(),
    track_times=st.booleans(),
    is_extendable=st.booleans(),
    big_endian=st.booleans(),
    lzf=st.booleans(),
)


def everything() -> Content:
    """Return a content with one of each kind that HDF5 knows and h5py can write."""
    rng = np.random.default_rng(1)
    table = np.zeros(6, dtype=COMPOUND)
    table["id"] = np.arange(6)
    table["x"] = rng.normal(size=(6, 2))
    table["name"] = [b"a", b"bc", b"", b"def", b"x", b"long"]
    lists = np.empty(3, dtype=object)
    lists[:] = [np.arange(n, dtype=np.int32) for n in (0, 3, 1)]
    return Content(
        arrays={
            "i/int16": rng.integers(-99, 99, size=(13, 5), dtype=np.int16),
            "i/uint64": np.array([0, 2**64 - 1, 5], dtype=np.uint64),
            "f/float32": rng.normal(size=(4, 3, 5)).astype(np.float32),
            "f/special": np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324]),
            "f/half": rng.normal(size=9).astype(np.float16),
            "f/long": rng.normal(size=9).astype(np.longdouble),
            "f/complex": rng.normal(size=8).view(np.complex128),
            "b/bool": np.array([True, False, True]),
            "b/enum": (np.array([0, 1, 42], dtype="i1"), ENUM),
            "b/opaque": np.array([b"ab", b"cd"], dtype="V2"),
            "s/fixed": np.array([b"abc", b"d", b""], dtype="S4"),
            "s/text": (["größe", "", "z"], TEXT),
            "s/scalar": ("one text", TEXT),
            "t/table": table,
            "t/lists": (lists, LISTS),
            "n/scalar": np.float64(3.5),
            "n/empty": np.empty((0, 4)),
            "n/null": h5py.Empty("f4"),
        },
        attributes={
            "@title": "a file",
            "i@unit": "µV",
            "i/int16@scale": np.float32(0.195),
            "i/int16@shape": np.array([[1, 2], [3, 4]]),
            "f@names": np.array(["one", "two"], dtype=TEXT),
            "f@null": h5py.Empty("i2"),
            "b/bool@flag": True,
        },
        soft={"link/soft": "/i/int16", "link/nowhere": "/not/there"},
        external={"link/outside": ("other file.h5", "/data")},
        hard={"link/hard": "/i/int16", "link/up": "/"},
        references={"link/references": ("/i/int16", "/f", "/")},
    )


def mutations(content: Content) -> dict[str, Content]:
    """Return contents that differ from one in a single thing each."""
    arrays, attributes = dict(content.arrays), dict(content.attributes)
    found: dict[str, Content] = {}

    def with_array(name: str, change: Callable[[Any], Any]) -> Content:
        return content.changed(arrays={**arrays, name: change(arrays[name])})

    for name, value in arrays.items():
        if isinstance(value, np.ndarray) and value.size and value.dtype.kind in "iufcbVS":
            found[f"a value of {name}"] = with_array(name, _with_one_bit_flipped)
        found[f"{name} is not there"] = content.changed(
            arrays={key: item for key, item in arrays.items() if key != name},
            soft={},
            hard={k: v for k, v in content.hard.items() if v != f"/{name}"},
            references={},
            attributes={k: v for k, v in attributes.items() if not k.startswith(f"{name}@")},
        )
    found["-0.0 became 0.0"] = with_array("f/special", lambda a: np.where(a == 0, 0.0, a))
    found["another type"] = with_array("i/int16", lambda a: a.astype(np.int32))
    found["another sign"] = with_array("i/int16", lambda a: a.view(np.uint16))
    found["another shape"] = with_array("i/int16", lambda a: a.reshape(5, 13))
    found["a longer text"] = with_array("s/text", lambda _: (["größe", "", "zz"], TEXT))
    found["a text moved"] = with_array("s/text", lambda _: (["größ", "e", "z"], TEXT))
    found["a text in ASCII"] = with_array("s/scalar", lambda _: ("one text", ASCII))
    found["a name of an enumeration"] = with_array(
        "b/enum",
        lambda v: (v[0], h5py.enum_dtype({"RED": 0, "GREEN": 1, "BLAU": 42}, basetype="i1")),
    )
    for name, value in attributes.items():
        rest = {key: item for key, item in attributes.items() if key != name}
        found[f"no {name}"] = content.changed(attributes=rest)
        found[f"another {name}"] = content.changed(attributes={**rest, name: "other"})
        if isinstance(value, (np.ndarray, np.floating)) and value.dtype.kind in "if":
            flipped = _with_one_bit_flipped(np.atleast_1d(value)).reshape(value.shape)
            found[f"a value of {name}"] = content.changed(attributes={**rest, name: flipped[()]})
    found["a soft link elsewhere"] = content.changed(soft={**content.soft, "link/soft": "/i"})
    found["an external link elsewhere"] = content.changed(
        external={"link/outside": ("other file.h5", "/dat")}
    )
    found["an external file elsewhere"] = content.changed(
        external={"link/outside": ("other.h5", "/data")}
    )
    found["a hard link elsewhere"] = content.changed(
        hard={**content.hard, "link/hard": "/i/uint64"}
    )
    found["a reference elsewhere"] = content.changed(
        references={"link/references": ("/i/int16", "/i", "/")}
    )
    found["an empty group more"] = content.changed(hard={**content.hard, "link/up2": "/"})
    return found


def _with_one_bit_flipped(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind == "b":
        return np.concatenate([~values[:1], values[1:]])
    copy = values.copy()
    raw = copy.reshape(-1).view(np.uint8)
    item = values.dtype.itemsize
    raw[(values.size // 2) * item] ^= 1
    return copy
