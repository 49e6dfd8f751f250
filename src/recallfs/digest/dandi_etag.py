"""DANDI's etag: the md5 of the md5s of a file's parts, cut by DANDI's own rule.

Files of zarr assets are uploaded whole: their etag is the plain md5 of their bytes.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from recallfs.digest.plain import hash_file
from recallfs.errors import InvalidInputError
from recallfs.values import BLOCK_BYTES

ETAG = re.compile(r"[0-9a-f]{32}(-[0-9]{1,5})?")
"""``<32 hex>-<number of parts>`` of an asset's blob, ``<32 hex>`` of a file in a zarr asset."""

DEFAULT_PART_BYTES = 64 * 1024**2
MAX_PARTS = 10_000
MAX_FILE_BYTES = 5 * 1024**4
"""The largest object that S3 stores, hence DANDI: 5 TiB."""


def part_bytes(size_bytes: int) -> int:
    """Return the length of the parts of a file, in bytes; its last part may be shorter.

    Parameters
    ----------
    size_bytes : int
        Length of the file.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-input``, above 5 TiB: DANDI has no etag for such a file.

    Notes
    -----
    Parts are 64 MiB as long as that makes fewer than 10,000 of them, else a ten-thousandth of
    the file. The rule compares with ``>=``, so parts are slightly *shorter* than 64 MiB for
    files just above 9,999 x 64 MiB; DANDI's stored etags depend on it.

    References
    ----------
    ``dandischema.digests.dandietag.PartGenerator`` (dandischema).
    """
    if size_bytes > MAX_FILE_BYTES:
        raise InvalidInputError(
            f"a file of {size_bytes} bytes has no dandi-etag: DANDI takes at most 5 TiB.",
            details={"size_bytes": size_bytes, "limit_bytes": MAX_FILE_BYTES},
        )
    if -(-size_bytes // DEFAULT_PART_BYTES) >= MAX_PARTS:
        return -(-size_bytes // MAX_PARTS)
    return DEFAULT_PART_BYTES


class DandiEtag:
    """Digest of bytes that arrive in order, in pieces of any length.

    Parameters
    ----------
    size_bytes : int
        Length of the whole file; the part length follows from it.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-input``, above 5 TiB.
    """

    def __init__(self, size_bytes: int) -> None:
        self._part_bytes = part_bytes(size_bytes)
        self._part_digests: list[bytes] = []
        self._part = hashlib.md5(usedforsecurity=False)
        self._filled_bytes = 0

    def update(self, data: memoryview) -> None:
        """Take the next bytes of the file."""
        while data:
            piece = data[: self._part_bytes - self._filled_bytes]
            self._part.update(piece)
            self._filled_bytes += len(piece)
            data = data[len(piece) :]
            if self._filled_bytes == self._part_bytes:
                self._end_part()

    def text(self) -> str:
        """Return ``<32 hex>-<number of parts>`` for all bytes taken; call it once, at the end."""
        if self._filled_bytes:
            self._end_part()
        parts = hashlib.md5(b"".join(self._part_digests), usedforsecurity=False)
        return f"{parts.hexdigest()}-{len(self._part_digests)}"

    def _end_part(self) -> None:
        self._part_digests.append(self._part.digest())
        self._part = hashlib.md5(usedforsecurity=False)
        self._filled_bytes = 0


def etag_of(path: Path, like: str) -> str:
    """Return a file's etag in the form of another one: in parts, or the plain md5.

    Parameters
    ----------
    like : str
        An etag; only its form matters.
    """
    if "-" not in like:
        return hash_file(path, "md5")
    parts = DandiEtag(path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            parts.update(memoryview(block))
    return parts.text()
