"""The links of an HDF5 file, in one order, and the one path by which each object is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
from h5py import h5g, h5l, h5o, h5r

from recallfs.hdf5.access import HDF5_ERRORS

_KINDS = {
    h5o.TYPE_GROUP: "group",
    h5o.TYPE_DATASET: "dataset",
    h5o.TYPE_NAMED_DATATYPE: "datatype",
}


@dataclass(frozen=True)
class Link:
    """A link of a file, or the root group.

    Parameters
    ----------
    name : bytes
        Absolute path, as HDF5 takes it.
    kind : {"group", "dataset", "datatype", "alias", "soft", "external", "other"}
        What it leads to. An *alias* is a further hard link to an object that has a path already.
    target : str
        Of an alias the object's path, of a soft link its text, of an external link file and path;
        else empty.
    """

    name: bytes
    kind: str
    target: str = ""

    @property
    def path(self) -> str:
        """The path as text."""
        return readable(self.name)


class ObjectNames:
    """All links of a file.

    Parameters
    ----------
    file : h5py.File

    Notes
    -----
    The order is depth first, in each group by the bytes of the names. An object's path is the first
    that leads to it in this order, whatever the order in which the links were made; so a cycle of
    hard links ends at its first turn. Soft and external links are not followed.

    Raises
    ------
    OSError, RuntimeError, KeyError, ValueError, TypeError
        Of h5py, if the file is damaged; the caller maps them.
    """

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self._paths: dict[tuple[int, int], str] = {}
        self.links = list(self._walk())

    def target_of(self, reference: Any) -> str:
        """Return the path of the object that a reference leads to; ``?`` if to none of the file."""
        try:
            found = h5r.dereference(reference, self.file.id)
            if found is None:
                return "?"
            info = h5o.get_info(found)
        except HDF5_ERRORS:
            return "?"
        return self._paths.get((info.fileno, info.addr), "?")

    def _walk(self) -> Iterator[Link]:
        root = h5o.get_info(self.file.id, b"/")
        self._paths[info_key(root)] = "/"
        yield Link(b"/", "group")
        waiting = [iter(_children(self.file, b"/"))]
        while waiting:
            child = next(waiting[-1], None)
            if child is None:
                waiting.pop()
                continue
            link = self._seen(*child)
            yield link
            if link.kind == "group":
                waiting.append(iter(_children(self.file, link.name)))

    def _seen(self, name: bytes, link_type: int) -> Link:
        if link_type == h5l.TYPE_SOFT:
            return Link(name, "soft", readable(self.file.id.links.get_val(name)))
        if link_type == h5l.TYPE_EXTERNAL:
            place, path = self.file.id.links.get_val(name)
            return Link(name, "external", f"{readable(place)}\0{readable(path)}")
        if link_type != h5l.TYPE_HARD:
            return Link(name, "other", str(link_type))
        info = h5o.get_info(self.file.id, name)
        known = self._paths.get(info_key(info))
        if known is not None:
            return Link(name, "alias", known)
        self._paths[info_key(info)] = readable(name)
        return Link(name, _KINDS.get(info.type, "other"))


def info_key(info: Any) -> tuple[int, int]:
    """Return what tells an object from all others."""
    return info.fileno, info.addr


def _children(file: h5py.File, name: bytes) -> list[tuple[bytes, int]]:
    """List the links of a group: absolute name, and type."""
    group = h5g.open(file.id, name)
    found: list[tuple[bytes, int]] = []
    group.links.iterate(lambda child, info: found.append((child, info.type)), info=True)
    prefix = name if name == b"/" else name + b"/"
    return [(prefix + child, link_type) for child, link_type in sorted(found)]


def readable(name: bytes) -> str:
    """Spell a name as text; bytes that are not UTF-8 become U+FFFD and two hexadecimal digits."""
    return "".join(
        f"\N{REPLACEMENT CHARACTER}{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else c
        for c in name.decode("utf-8", "surrogateescape")
    )
