"""The links of an HDF5 file, in one order, and the one path by which each object is known."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import h5py
from h5py import h5g, h5l, h5o, h5r

from recallfs.errors import InvalidInputError
from recallfs.hdf5.access import HDF5_ERRORS
from recallfs.values import format_size

_KINDS = {
    h5o.TYPE_GROUP: "group",
    h5o.TYPE_DATASET: "dataset",
    h5o.TYPE_NAMED_DATATYPE: "datatype",
}

MOST_PATH_BYTES = 256 * 1024**2
"""All paths of a file are held; nested deeply enough, a small file has paths without end."""


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

    @property
    def is_text(self) -> bool:
        """Whether the path is UTF-8, so that the object is found by it again."""
        return self.path.encode() == self.name


class ObjectNames:
    """The one path by which each object of a file is known.

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
    InvalidInputError
        If the paths take more than `MOST_PATH_BYTES`.
    """

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self._path_bytes = 0
        self._paths: dict[tuple[int, int], str] = {}
        self._is_complete = False

    def target_of(self, reference: Any) -> str:
        """Return the path of the object that a reference leads to; ``?`` if to none of the file."""
        if not self._is_complete:
            for _ in self.walk():
                pass  # what it meets it notes
            self._is_complete = True
        try:
            found = h5r.dereference(reference, self.file.id)
            if found is None:
                return "?"
            info = h5o.get_info(found)
        except HDF5_ERRORS:
            return "?"
        return self._paths.get((info.fileno, info.addr), "?")

    def walk(self) -> Iterator[tuple[Link, Callable[[], Any]]]:
        """Iterate over all links, each with what opens its object.

        An object can be opened until the next one is asked for. It is opened from its group, since
        HDF5 goes a whole path step by step.
        """
        root = h5g.open(self.file.id, b"/")
        info = h5o.get_info(root)
        self._paths.setdefault((info.fileno, info.addr), "/")
        yield Link(b"/", "group"), lambda: root
        waiting = [(root, b"", _children(root))]
        while waiting:
            group, prefix, children = waiting[-1]
            if not children:
                waiting.pop()
                continue
            leaf, link_type = children.pop()
            link = self._seen(group, leaf, prefix + b"/" + leaf, link_type)
            yield link, functools.partial(h5o.open, group, leaf)
            if link.kind == "group":
                below = h5g.open(group, leaf)
                waiting.append((below, link.name, _children(below)))

    def _seen(self, group: Any, leaf: bytes, name: bytes, link_type: int) -> Link:
        if link_type == h5l.TYPE_SOFT:
            return Link(name, "soft", readable(group.links.get_val(leaf)))
        if link_type == h5l.TYPE_EXTERNAL:
            place, path = group.links.get_val(leaf)
            return Link(name, "external", f"{readable(place)}\0{readable(path)}")
        if link_type != h5l.TYPE_HARD:
            return Link(name, "other", str(link_type))
        info = h5o.get_info(group, leaf)
        path = readable(name)
        known = self._paths.setdefault((info.fileno, info.addr), path)
        if known != path:
            return Link(name, "alias", known)
        self._path_bytes += len(name)
        if self._path_bytes > MOST_PATH_BYTES:
            raise InvalidInputError(
                f"{self.file.filename} nests its groups too deeply: the paths of its objects take "
                f"more than {format_size(MOST_PATH_BYTES)}.",
                details={"path": str(self.file.filename)},
            )
        return Link(name, _KINDS.get(info.type, "other"))


def _children(group: Any) -> list[tuple[bytes, int]]:
    """List the links of a group, name and type, the first one last."""
    found: list[tuple[bytes, int]] = []
    group.links.iterate(lambda child, info: found.append((child, info.type)), info=True)
    return sorted(found, reverse=True)


def readable(name: bytes) -> str:
    """Spell a name as text; bytes that are not UTF-8 become U+FFFD and two hexadecimal digits."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return "".join(
            f"\ufffd{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else c
            for c in name.decode("utf-8", "surrogateescape")
        )
