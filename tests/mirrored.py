"""Files that were released because a mirror holds a copy: quicker to make than proved ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

from conftest import Lab

CONTENT = b"a recording " * 4000


def configure_mirror(lab: Lab, url: str | None = None) -> Path:
    """Give the lab a mirror, by default a folder that counts as another disk."""
    folder = lab.base / "mirror"
    folder.mkdir(exist_ok=True)
    lab.write_config(
        f'[[sources.mirror]]\nname = "copies"\nurl = "{url or folder.as_uri()}"\n'
        'layout = "sha256"\nfailure_domain = "elsewhere"\n\n[release]\ncopies = 1\n'
    )
    return folder


def released_file(lab: Lab, path: str, content: bytes = CONTENT, *, hold: str = "0s") -> str:
    """Write, catalog, mirror and release a file; return its sha256."""
    folder = configure_mirror(lab)
    lab.add(path, content)
    digest = hashlib.sha256(content).hexdigest()
    copy = folder / "sha256" / digest[:2] / digest[2:4] / digest
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(content)
    lab.release(path, hold=hold)
    return digest


def released_hdf5(lab: Lab, path: str) -> str:
    """Release an HDF5 file with 5000 numbers in ``group/data``; return its sha256."""
    import h5py
    import numpy as np

    made = lab.base / "made.h5"
    with h5py.File(made, "w") as file:
        file["group/data"] = np.arange(5000)
    content = made.read_bytes()
    made.unlink()
    return released_file(lab, path, content)
