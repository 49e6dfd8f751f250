"""The digest of a folder ``fdm1``: its files by path, each by its content where that is known.

The byte-level page is docs/reference/formats/fdm1.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from recallfs.digest.arrays import array_digest, open_npy, open_npz
from recallfs.digest.documents import NAMES, read_document
from recallfs.digest.hdf5 import content_digest
from recallfs.digest.listing import list_folder
from recallfs.digest.plain import hash_file
from recallfs.digest.rules import KNOWN, Rules
from recallfs.errors import ConflictError
from recallfs.hdf5.access import has_signature
from recallfs.values import Identity, canonical_json

SCHEME = "fdm1"


@dataclass(frozen=True)
class FileDigest:
    """What a folder holds under one path.

    Parameters
    ----------
    kind : {"json", "npy", "npz", "hdf5", "bytes"}
        How it was read.
    digest : str
        Hexadecimal; of ``bytes`` the sha256.
    """

    kind: str
    digest: str


@dataclass(frozen=True)
class FolderDigest:
    """The content of a folder as digests.

    Parameters
    ----------
    rules, digest : str
        As of `recallfs.digest.hdf5.ContentDigest`.
    files : Mapping of str to FileDigest
        By path below the folder, in the order of the digest.
    """

    rules: str
    digest: str
    files: Mapping[str, FileDigest]

    def __str__(self) -> str:
        return f"{SCHEME}:{self.rules}:{self.digest}"


def folder_digest(
    folder: Path,
    rules: Rules = KNOWN["strict"],
    *,
    progress: Callable[[int], None] | None = None,
) -> FolderDigest:
    """Digest the content of a folder.

    Parameters
    ----------
    folder : Path
    rules : Rules
        What is left out of HDF5 and JSON files.
    progress : callable, optional
        Called with the number of bytes of files read since the last call.

    Raises
    ------
    InvalidInputError
        Something in it is no regular file, an array of Python objects, or damaged HDF5.
    ConflictError
        Kind ``in-use``: a file was changed while it was read, or one came or went.
    """
    files: dict[str, FileDigest] = {}
    whole = blake3()
    listed = list_folder(folder)
    for name, path in listed.items():
        try:
            before = Identity.from_stat(path.stat())
            files[name] = found = file_digest(path, rules)
            is_same = Identity.from_stat(path.stat()) == before
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise _changed(path)
        whole.update(canonical_json([name, found.kind, found.digest]) + b"\n")
        if progress is not None:
            progress(before.size_bytes)
    if list(list_folder(folder)) != list(listed):
        raise _changed(folder)
    return FolderDigest(rules.label, whole.hexdigest(), files)


def file_digest(path: Path, rules: Rules) -> FileDigest:
    """Digest a file by its content, or by its bytes where nothing is known of that."""
    kind, content = read_file(path, rules)
    if kind == "hdf5":
        return FileDigest(kind, content_digest(path, rules).digest)
    if kind == "json":
        return FileDigest(kind, blake3(content[1]).hexdigest())
    if kind == "npy":
        return FileDigest(kind, array_digest(content))
    if kind == "npz":
        whole = blake3()
        for name, member in content.items():
            if isinstance(member, bytes):
                line = [name, "bytes", hashlib.sha256(member).hexdigest()]
            else:
                line = [name, "npy", array_digest(member)]
            whole.update(canonical_json(line) + b"\n")
        return FileDigest(kind, whole.hexdigest())
    return FileDigest("bytes", hash_file(path, "sha256"))


def read_file(path: Path, rules: Rules) -> tuple[str, Any]:
    """Find out what a file is, and open what is small or mapped.

    Returns
    -------
    kind : str
        As of `FileDigest`.
    content : Any
        Of JSON its value and canonical form, of NumPy's files the array or the members, else None.
    """
    name = path.name.lower()
    found: Any = None
    if name.endswith(NAMES) and (found := read_document(path, rules.keys)) is not None:
        return "json", found
    if name.endswith(".npy") and (found := open_npy(path)) is not None:
        return "npy", found
    if name.endswith(".npz") and (found := open_npz(path)) is not None:
        return "npz", found
    return ("hdf5" if has_signature(path) else "bytes"), None


def _changed(path: Path) -> ConflictError:
    return ConflictError(
        f"{path} was changed while it was read; try again when nobody writes to it.",
        kind="in-use",
        details={"path": str(path)},
    )
