"""One hash of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from recallfs.digest.plain import hash_file
from recallfs.values import BLOCK_BYTES


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256"])
@pytest.mark.parametrize("size", [0, 3, BLOCK_BYTES + 1])
def test_it_is_hashlibs(tmp_path: Path, name: str, size: int) -> None:
    """Whatever the length, it is what hashlib says of all bytes."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert hash_file(path, name) == hashlib.new(name, b"x" * size).hexdigest()
