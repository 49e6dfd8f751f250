"""External links of HDF5 to released files: HDF5 opens what they name itself, out of our sight."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from recallfs.readers.availability import make_available

GetItem = Callable[..., Any]


def following_links(original: GetItem) -> GetItem:
    """Wrap what gets an item of an `h5py.Group`, so that a file that a link names comes back first.

    Parameters
    ----------
    original : callable
        ``Group._get`` or, in older versions of h5py, ``Group.__getitem__``.
    """

    @functools.wraps(original)
    def getitem(self: Any, name: Any, *more: Any) -> Any:
        try:
            return original(self, name, *more)
        except (KeyError, OSError) as error:
            # Of a link that leads nowhere each version of HDF5 says something else; of what is
            # simply not in the file, all the same.
            if "doesn't exist" in str(error) or not isinstance(name, (str, bytes)):
                raise
            found = _followed(original, self, os.fsdecode(name))
            if found is None:
                raise
            return found

    return getitem


def _followed(getitem: GetItem, group: Any, name: str) -> Any:
    """Return what a name leads to once the file of its first external link is back, or None."""
    import h5py

    parts = PurePosixPath(name).parts
    for count in range(1, len(parts) + 1):
        above = str(PurePosixPath(*parts[:count]))
        if above == "/":
            continue
        link = group.get(above, getlink=True)
        if not isinstance(link, h5py.ExternalLink):
            continue
        rest = "/".join(parts[count:])
        place = _place_brought_back(group, link.filename)
        if place is None:
            # That one is there; then it is a link further on.
            return _followed(getitem, getitem(group, above), rest) if rest else None
        if place == "":
            return getitem(group, name)
        # In the caller's cache, where HDF5 would not look.
        return getitem(h5py.File(place, "r"), f"{link.path}/{rest}".rstrip("/") or "/")
    return None


def _place_brought_back(group: Any, written: str) -> str | None:
    """Bring a link's file back; return where it is if not where the link says, None if no need."""
    beside = os.path.dirname(os.path.realpath(group.file.filename))  # noqa: PTH120 - a text is wanted
    # HDF5's own order: beside the file that has the link, then as it is written.
    for place in dict.fromkeys((os.path.join(beside, written), written)):  # noqa: PTH118 - a text is wanted
        if os.path.lexists(place):
            return None
        with _lock_let_go():
            found = make_available(place)
        if os.path.lexists(place):
            return ""
        if found != place:
            return str(found)
    return None


@contextlib.contextmanager
def _lock_let_go() -> Iterator[None]:
    """Let go of h5py's lock, which going through a group holds, for as long as a recall takes.

    Its threads need h5py to look at what comes, and other threads of the program go on.
    """
    from h5py._objects import phil

    depth = 0
    try:
        with contextlib.suppress(RuntimeError):  # it is not ours, or no longer
            while True:
                phil.release()
                depth += 1
        yield
    finally:
        for _ in range(depth):
            phil.acquire()
