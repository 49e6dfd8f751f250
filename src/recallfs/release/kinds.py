"""What kind of data a file is, by its name and its neighbours; a few NWB files are looked into."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

CONTROL = "recallfs's own (.recall)"
OTHER = "other"
NWB = "NWB"

_BY_ENDING = {
    ending: kind
    for kind, endings in {
        NWB: "nwb",
        "HDF5": "h5 hdf5 hdf he5 mat73 kwik kwx kwd",
        "SpikeGLX": "ap.bin lf.bin nidq.bin obx.bin",
        "Intan": "rhd rhs",
        "Blackrock": "ns1 ns2 ns3 ns4 ns5 ns6 nev ccf",
        "SpikeGadgets": "rec",
        "Neuralynx": "ncs nse ntt nvt",
        "Plexon": "plx pl2",
        "TDT": "tev tsq tbk sev",
        "Open Ephys": "continuous oebin spikes",
        "Spike2 / CED": "smr smrx",
        "Axon": "abf",
        "MountainSort": "mda",
        "EDF / BDF": "edf bdf",
        "MATLAB": "mat",
        "NumPy": "npy npz",
        "flat binary": "dat bin raw",
        "images": "tif tiff btf sbx isxd czi nd2 lif png jpg jpeg dcm nii nii.gz",
        "video": "avi mp4 mkv mov h264 wmv mpg",
        "tables and text": "csv tsv json txt xml yaml yml md log parquet",
        "archives": "zip tar gz tgz 7z rar bz2 xz zst",
        "code": "py m ipynb r sh pkl pickle",
    }.items()
    for ending in endings.split()
}
_MARKERS = {
    ".zgroup": "Zarr",
    ".zarray": "Zarr",
    ".zmetadata": "Zarr",
    "zarr.json": "Zarr",
    "si_folder.json": "SpikeInterface folder",
    "binary.json": "SpikeInterface folder",
    "spikeinterface_info.json": "SpikeInterface folder",
    "spike_times.npy": "Phy / Kilosort",
}
_LOOKED_AT = 200
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)


def kind_of(name: str) -> str:
    """Return the kind of a file by the ending of its name."""
    name = name.lower()
    _, dot, ending = name.rpartition(".")
    if not dot:
        return OTHER
    # Two-part endings say more, such as that of a SpikeGLX recording.
    return _BY_ENDING.get(".".join(name.split(".")[-2:])) or _BY_ENDING.get(ending, OTHER)


def kind_of_folder(name: str) -> str | None:
    """Return the kind of all that is in a folder, if the folder's name says it."""
    name = name.lower()
    if name == ".recall":
        return CONTROL
    if name.endswith(".nwb.zarr"):
        return "NWB in Zarr"
    return "Zarr" if name.endswith(".zarr") else None


def marked_kind(folder: str, names: set[str]) -> str | None:
    """Return the kind of all that is in a folder, if the markers in it say it."""
    kind = next((_MARKERS[name] for name in sorted(names)), None)
    return "NWB in Zarr" if kind == "Zarr" and folder.lower().endswith(".nwb") else kind


def is_marker(name: str) -> bool:
    """Tell whether a file's name says what the folder around it is."""
    return name in _MARKERS


class Looked(NamedTuple):
    """What an NWB file says of itself.

    Parameters
    ----------
    version : str
        Of the NWB schema.
    writers : tuple of str
        Programs that wrote it, with versions, if it says so.
    types : frozenset of str
        Types of the objects one or two groups deep.
    """

    version: str
    writers: tuple[str, ...]
    types: frozenset[str]


def look_into(path: str) -> Looked | None:
    """Read a few attributes of an NWB file, following no link; None if that cannot be done.

    Its access time stays as it is where the system allows that: on Linux to its owner.
    """
    import h5py

    from recallfs.hdf5.access import HDF5_ERRORS

    try:
        descriptor = open_quietly(path, _READ_FLAGS)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        with os.fdopen(descriptor, "rb") as opened, h5py.File(opened, "r") as file:
            version = _text(file.attrs.get("nwb_version", ""))
            return Looked(version, tuple(_writers(file)), frozenset(_types(file)))
    except HDF5_ERRORS:
        return None


def open_quietly(path: str, flags: int) -> int:
    """Open a file or folder without a new access time, where the system allows that."""
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        # Only the owner may ask for that. Whoever may not read at all is told so now.
        return os.open(path, flags)


def _writers(file: Any) -> Iterator[str]:
    generated = _child(_child(file, "general"), "was_generated_by")
    if generated is not None and getattr(generated, "ndim", 0) == 2 and generated.size <= 100:
        for row in generated.asstr()[()]:
            yield " ".join(map(str, row))


def _types(file: Any) -> Iterator[str]:
    """Walk over the groups that hold data, to a depth of three and a few objects."""
    waiting = [
        (_child(file, name), 1)
        for name in ("acquisition", "processing", "analysis", "stimulus", "intervals", "units")
    ]
    for _ in range(_LOOKED_AT):
        if not waiting:
            return
        item, depth = waiting.pop(0)
        if item is None:
            continue
        found = _text(item.attrs.get("neurodata_type", ""))
        if found:
            yield found
        if depth < 3 and hasattr(item, "keys"):
            waiting += [(_child(item, name), depth + 1) for name in list(item)[:_LOOKED_AT]]


def _child(group: Any, name: str) -> Any:
    """Return an object by a hard link; soft and external links may lead to other files."""
    import h5py

    if group is None or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    return group.get(name)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def folder_flags() -> int:
    """Return the flags that a folder is opened with."""
    return _READ_FLAGS | os.O_DIRECTORY


def shown(path: str | Path) -> str:
    """Return a path as text that any encoding takes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
