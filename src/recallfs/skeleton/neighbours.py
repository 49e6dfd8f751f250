"""What an HDF5 file takes from other files beside it; moved away, it would read as other data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
from h5py import h5d, h5g, h5l, h5o

from recallfs.errors import ConflictError, InvalidInputError
from recallfs.hdf5.access import HDF5_ERRORS, open_hdf5


def needed_neighbour(path: Path) -> str | None:
    """Find an object of an HDF5 file that lies in another file, named relative to this one.

    Parameters
    ----------
    path : Path
        Any file.

    Returns
    -------
    str or None
        A phrase that names the first such object; None if there is none, or it is not HDF5.

    Notes
    -----
    From another folder a virtual dataset reads as its fill value, with no error; an external link
    dangles, or leads to a stranger of the same name.
    """
    if not h5py.is_hdf5(path):
        return None
    try:
        with open_hdf5(path) as file:
            return _in_group(h5g.open(file.id, b"/"), "", set(), _is_relative)
    except (InvalidInputError, ConflictError, *HDF5_ERRORS) as error:
        # It may be readable where it belongs: what cannot be checked is not taken for harmless.
        return f"what it holds cannot be looked at: {error}"


def any_neighbour(file: h5py.File) -> str | None:
    """Find an object of an open HDF5 file that lies in another file, wherever that is.

    Returns
    -------
    str or None
        As `needed_neighbour`.
    """
    try:
        return _in_group(h5g.open(file.id, b"/"), "", set(), lambda _: True)
    except (InvalidInputError, ConflictError, *HDF5_ERRORS) as error:
        return f"what it holds cannot be looked at: {error}"


def _in_group(
    group: h5g.GroupID, path: str, seen: set[object], counts: Callable[[str | bytes], bool]
) -> str | None:
    """Look at all links, each object once: groups may hold each other.

    By h5py's low level, as files are looked at so each time that one is opened in parts anew.
    """
    for name in group:
        kind = group.links.get_info(name).type
        where = f"{path}/{name.decode('utf-8', 'surrogateescape')}"
        if kind == h5l.TYPE_EXTERNAL:
            target = os.fsdecode(group.links.get_val(name)[0])
            if counts(target):
                return f"{where} is a link to {target}"
        if kind != h5l.TYPE_HARD:
            continue
        item = h5o.open(group, name)
        if item in seen:
            continue
        seen.add(item)
        found = None
        if isinstance(item, h5g.GroupID):
            found = _in_group(item, where, seen, counts)
        elif isinstance(item, h5d.DatasetID):
            made = item.get_create_plist()
            if made.get_layout() == h5d.VIRTUAL or made.get_external_count():
                found = _in_dataset(h5py.Dataset(item), where, counts)
        if found is not None:
            return found
    return None


def _in_dataset(
    dataset: h5py.Dataset, where: str, counts: Callable[[str | bytes], bool]
) -> str | None:
    if dataset.is_virtual:
        for source in dataset.virtual_sources():
            if source.file_name != "." and counts(source.file_name):
                return f"{where} is a view of {source.file_name}"
    for name, _, _ in dataset.external or ():
        if counts(name):
            return f"{where} has its values in {name}"
    return None


def _is_relative(name: str | bytes) -> bool:
    return not Path(os.fsdecode(name)).is_absolute()
