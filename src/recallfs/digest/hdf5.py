"""The content digest ``h5c1``: equal for files that hold the same, however they are laid out.

The byte-level page is docs/reference/formats/h5c1.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zstandard
from blake3 import blake3
from h5py import h5a, h5d, h5s

from recallfs.digest.rules import KNOWN, Rules
from recallfs.errors import IntegrityError, InvalidInputError
from recallfs.hdf5.access import Bytes, hdf5_errors, open_hdf5, unchanged
from recallfs.hdf5.canonical import CanonicalType, canonical_type
from recallfs.hdf5.elements import ElementReader
from recallfs.hdf5.extents import contiguous_pieces
from recallfs.hdf5.objects import Link, ObjectNames, readable
from recallfs.values import canonical_json

SCHEME = "h5c1"

_BATCH = 16384
"""Elements of varying size that are read at once."""


@dataclass(frozen=True)
class ObjectDigest:
    """What a file holds under one path.

    Parameters
    ----------
    kind : {"group", "dataset", "datatype", "alias", "soft", "external"}
    target : str
        Of a link.
    type, shape, data : optional
        Of a dataset: its type as text, its shape (None for no data at all), and the BLAKE3 of its
        elements; of a committed datatype its type.
    attributes : Mapping of str to str
        BLAKE3 of each attribute's type, shape and elements.
    """

    kind: str
    target: str = ""
    type: str | None = None
    shape: tuple[int, ...] | None = None
    data: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """BLAKE3 of all of it, hexadecimal."""
        return blake3(canonical_json(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON-able mapping; `ObjectDigest(**mapping)` is the way back."""
        return {**vars(self), "shape": None if self.shape is None else list(self.shape)}


@dataclass(frozen=True)
class ContentDigest:
    """The content of an HDF5 file as digests.

    Parameters
    ----------
    rules : str
        Label of the rules that said what to leave out.
    digest : str
        Of the whole, hexadecimal.
    objects : Mapping of str to ObjectDigest
        By path, in the order of the digest.
    """

    rules: str
    digest: str
    objects: Mapping[str, ObjectDigest]

    def __str__(self) -> str:
        return f"{SCHEME}:{self.rules}:{self.digest}"

    def under(self, rules: Rules) -> ContentDigest:
        """Leave out more, from what was digested whole: no need to read the file again."""
        kept: dict[str, ObjectDigest] = {}
        left_out = "\0"  # no path begins so
        for path, found in self.objects.items():
            if path.startswith(left_out):
                continue
            if not rules.keeps(path):
                left_out = f"{path}/"
                continue
            attributes = {
                name: digest
                for name, digest in found.attributes.items()
                if rules.keeps_attribute(path, name)
            }
            kept[path] = replace(found, attributes=attributes)
        return ContentDigest(rules.label, _digest_of(kept), kept)

    def to_bytes(self) -> bytes:
        """Encode it; `from_bytes` is the way back."""
        body = {
            "format": SCHEME,
            "rules": self.rules,
            "digest": self.digest,
            "objects": [[path, found.to_json()] for path, found in self.objects.items()],
        }
        return zstandard.compress(canonical_json(body))

    @classmethod
    def from_bytes(cls, content: bytes) -> ContentDigest:
        """Decode what `to_bytes` made.

        Raises
        ------
        IntegrityError
            Kind ``damaged-record``.
        """
        try:
            body = json.loads(zstandard.decompress(content, max_output_size=1 << 31))
            objects = {
                path: ObjectDigest(
                    **{**each, "shape": None if each["shape"] is None else tuple(each["shape"])}
                )
                for path, each in body["objects"]
            }
            is_whole = body["format"] == SCHEME and _digest_of(objects) == body["digest"]
        except (zstandard.ZstdError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise IntegrityError(
                f"kept digests of a file's content are damaged: {error}.", kind="damaged-record"
            ) from error
        if not is_whole:
            raise IntegrityError(
                "kept digests of a file's content are damaged: they do not add up.",
                kind="damaged-record",
            )
        return cls(body["rules"], body["digest"], objects)


def _digest_of(objects: Mapping[str, ObjectDigest]) -> str:
    whole = blake3()
    for path, found in objects.items():
        whole.update(canonical_json([path, found.kind, found.digest]) + b"\n")
    return whole.hexdigest()


def content_digest(
    path: Path,
    rules: Rules = KNOWN["strict"],
    *,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> ContentDigest:
    """Digest the content of an HDF5 file.

    Parameters
    ----------
    path : Path
    rules : Rules
        What is left out.
    threads : int, optional
        That inflate chunks; by default the number of CPUs, 8 at most.
    progress : callable, optional
        Called with the number of bytes of values read since the last call.

    Raises
    ------
    InvalidInputError
        Kind ``not-hdf5``: not HDF5, damaged, or of a kind that cannot be read; or a filter is not
        installed.
    ConflictError
        Kind ``in-use``: open for writing, or changed while it was read.
    """
    with open_hdf5(path) as file, hdf5_errors(path), unchanged(path):
        objects = dict(_digest_objects(file, rules, threads, progress))
    return ContentDigest(rules.label, _digest_of(objects), objects)


def _digest_objects(
    file: h5py.File,
    rules: Rules,
    threads: int | None,
    progress: Callable[[int], None] | None,
) -> Iterator[tuple[str, ObjectDigest]]:
    names = ObjectNames(file)
    left_out = b"\0"  # no path begins so
    with ElementReader(file, threads) as reader:
        for link, opened in names.walk():
            if link.name.startswith(left_out):
                continue
            if not rules.keeps(link.path):
                left_out = link.name + b"/"
                continue
            yield link.path, _digest_link(opened, names, reader, link, rules, progress)


def _digest_link(  # noqa: PLR0917 - one call
    opened: Callable[[], Any],
    names: ObjectNames,
    reader: ElementReader,
    link: Link,
    rules: Rules,
    progress: Callable[[int], None] | None,
) -> ObjectDigest:
    if link.kind in ("alias", "soft", "external", "other"):
        return ObjectDigest(link.kind, link.target)
    found = opened()
    attributes = {
        name: digest
        for name, digest in _attributes(found, names, link.path)
        if rules.keeps_attribute(link.path, name)
    }
    if link.kind == "group":
        return ObjectDigest("group", attributes=attributes)
    if link.kind == "datatype":
        return ObjectDigest("datatype", type=canonical_type(found).text, attributes=attributes)
    form = _form(found.get_type, link.path)
    return ObjectDigest(
        "dataset",
        type=form.text,
        shape=_shape(found.get_space()),
        data=_data(found, form, names, reader, link.path, progress),
        attributes=attributes,
    )


def _data(  # noqa: PLR0917 - one call
    dataset: Any,
    form: CanonicalType,
    names: ObjectNames,
    reader: ElementReader,
    path: str,
    progress: Callable[[int], None] | None,
) -> str | None:
    if dataset.get_space().get_simple_extent_type() == h5s.NULL:
        return None
    hasher = blake3()
    if dataset.get_create_plist().get_layout() == h5d.VIRTUAL:
        # Where its values lie counts, not what is there just now: that may be in other files.
        hasher.update(canonical_json(_sources(dataset)))
    elif form.is_fixed:
        datatype = dataset.get_type()
        for elements in reader.stream(dataset, datatype, path):
            hasher.update(_buffer(form.bytes_of(elements)))
            if progress is not None:
                progress(len(elements))
    else:
        for batch in varying_elements(h5py.Dataset(dataset)):
            hasher.update(form.encoded(batch, names))
    return hasher.hexdigest()


def _buffer(elements: Bytes) -> bytes | memoryview:
    return np.ascontiguousarray(elements).data


def varying_elements(dataset: h5py.Dataset) -> Iterator[Any]:
    """Read elements of varying size in C order, some at a time."""
    kind = dataset.id.get_type().dtype
    shape = dataset.shape
    if not shape:
        values = np.empty((), dtype=kind)
        dataset.id.read(h5s.ALL, h5s.ALL, values)
        yield values.reshape(-1)
        return
    if not np.prod(shape):
        return
    starts, counts = contiguous_pieces(shape, 1, limit_bytes=_BATCH)
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        values = np.empty(count, dtype=kind)
        selection = dataset.id.get_space()
        selection.select_hyperslab(tuple(start), tuple(count))
        dataset.id.read(h5s.create_simple(tuple(count)), selection, values)
        yield values.reshape(-1)


def _attributes(found: Any, names: ObjectNames, path: str) -> Iterator[tuple[str, str]]:
    called: list[bytes] = []
    h5a.iterate(found, lambda name, *_: called.append(name))
    for name in sorted(called):
        attribute = h5a.open(found, name)
        form = _form(attribute.get_type, f"{path}@{readable(name)}")
        space = attribute.get_space()
        head = canonical_json({"type": form.text, "shape": _shape(space)})
        hasher = blake3(head + b"\n")
        if space.get_simple_extent_type() != h5s.NULL:
            elements = attribute_elements(attribute, form)
            if form.is_fixed:
                hasher.update(_buffer(form.bytes_of(elements)))
            else:
                hasher.update(form.encoded(elements, names))
        yield readable(name), hasher.hexdigest()


def attribute_elements(attribute: Any, form: CanonicalType) -> Any:
    """Read an attribute: elements of a fixed size as `Bytes`, others as h5py gives them."""
    count = int(np.prod(attribute.shape, dtype=np.int64))
    if form.is_fixed:
        buffer = np.zeros(count * form.item_bytes, dtype=np.uint8)
        if count:
            attribute.read(buffer, mtype=attribute.get_type())
        return buffer
    values = np.empty(attribute.shape, dtype=attribute.get_type().dtype)
    if count:
        attribute.read(values)
    return values.reshape(-1)


def _form(get_type: Callable[[], Any], where: str) -> CanonicalType:
    try:
        return canonical_type(get_type())
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error.message}", kind=error.kind) from error
    except TypeError as error:
        raise InvalidInputError(
            f"{where} is of an HDF5 type that this h5py cannot read: {error}.", kind="not-hdf5"
        ) from error


def _shape(space: Any) -> tuple[int, ...] | None:
    if space.get_simple_extent_type() == h5s.NULL:
        return None
    return tuple(int(n) for n in space.shape)


def _sources(dataset: Any) -> list[Any]:
    """Describe where the values of a virtual dataset lie."""
    return [
        [
            source.file_name,
            source.dset_name,
            *_selected(source.src_space),
            *_selected(source.vspace),
        ]
        for source in h5py.Dataset(dataset).virtual_sources()
    ]


def _selected(space: Any) -> list[Any]:
    if space.get_select_type() != h5s.SEL_HYPERSLABS:
        return [int(space.get_select_type())]
    if space.is_regular_hyperslab():
        return [[int(n) for n in part] for part in space.get_regular_hyperslab()]
    return [np.asarray(space.get_select_hyper_blocklist()).tolist()]
