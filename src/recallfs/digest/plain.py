"""One hash of a file's bytes, as others name them; several at once: `recallfs.digest.stream`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from recallfs.values import BLOCK_BYTES


def hash_file(path: Path, name: str) -> str:
    """Return the hash `name`, such as ``md5``, of a file's bytes, in hex; it secures nothing.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    hasher = hashlib.new(name, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()
