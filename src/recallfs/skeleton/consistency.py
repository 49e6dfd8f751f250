"""Marks that HDF5 writers leave in a file's superblock, and files that differ in nothing else.

A writer marks the superblock 'open for writing' when it opens a file, and clears the mark when it
closes it. One that is killed leaves it, and with it a file of another sha256, which HDF5 refuses to
open, though no data was touched.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass

from blake3 import blake3

from recallfs.values import BLOCK_BYTES

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FLAGS_V0 = slice(20, 24)
_FLAG_V2 = 11
# Closed; open for writing; open for writing with readers (SWMR). What a recorded file may have.
_CANDIDATES = (0, 1, 5)
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Restoration:
    """A superblock with the marks that were recorded.

    Parameters
    ----------
    offset : int
        Where the superblock begins, in bytes from the start of the file.
    found, superblock : bytes
        As it is, and as it was recorded; of equal length.
    sha256 : str
        Of the file with `superblock` in place.
    """

    offset: int
    found: bytes
    superblock: bytes
    sha256: str


def find_restoration(
    descriptor: int, accepted: Collection[str], blocks: bytes = b""
) -> Restoration | None:
    """Tell whether a file differs from an accepted one in its consistency marks alone.

    Parameters
    ----------
    descriptor : int
        Of the file, open for reading.
    accepted : collection of str
        sha256 digests that the file may have.
    blocks : bytes
        ``b3b1`` digests of the original, if known: they tell which marks it had.

    Returns
    -------
    Restoration or None
        None if anything else differs, or if it is no HDF5 file.

    Notes
    -----
    Reads the file at most once for each of the marks that the original may have had, once where
    `blocks` is given; holds 4 MiB.
    """
    place = _superblock(descriptor)
    if place is None:
        return None
    offset, found = place
    for flags in _CANDIDATES:
        superblock = _with_flags(found, flags)
        if superblock == found or not _may_be(descriptor, offset, superblock, blocks):
            continue
        sha256 = _digest_with(descriptor, offset, superblock)
        if sha256 in accepted:
            return Restoration(offset, found, superblock, sha256)
    return None


def _superblock(descriptor: int) -> tuple[int, bytes] | None:
    """Find the superblock: at 0, or after a user block of 512, 1024, 2048… bytes."""
    size = os.fstat(descriptor).st_size
    offset = 0
    while offset < size:
        head = os.pread(descriptor, 128, offset)
        if head.startswith(_SIGNATURE):
            length = _length(head)
            return None if length is None or len(head) < length else (offset, head[:length])
        offset = offset * 2 or 512
    return None


def _length(head: bytes) -> int | None:
    """Return how much of the superblock the marks, and what depends on them, take."""
    if len(head) < 24:
        return None
    version = head[8]
    if version in (0, 1):
        return _FLAGS_V0.stop
    if version in (2, 3):
        return 12 + 4 * head[9] + 4
    return None


def _with_flags(superblock: bytes, flags: int) -> bytes:
    changed = bytearray(superblock)
    if superblock[8] in (0, 1):
        changed[_FLAGS_V0] = flags.to_bytes(4, "little")
    else:
        changed[_FLAG_V2] = flags
        changed[-4:] = lookup3(bytes(changed[:-4])).to_bytes(4, "little")
    return bytes(changed)


def _may_be(descriptor: int, offset: int, superblock: bytes, blocks: bytes) -> bool:
    """Ask the digest of the block that holds the superblock, where it is known."""
    number = offset // BLOCK_BYTES
    expected = blocks[32 * number : 32 * number + 32]
    if len(expected) < 32:
        return True
    start = number * BLOCK_BYTES
    block = bytearray(os.pread(descriptor, BLOCK_BYTES, start))
    block[offset - start : offset - start + len(superblock)] = superblock
    return blake3(block).digest() == expected


def _digest_with(descriptor: int, offset: int, superblock: bytes) -> str:
    digest = hashlib.sha256()
    position = 0
    while data := os.pread(descriptor, BLOCK_BYTES, position):
        end = position + len(data)
        if position < offset + len(superblock) and offset < end:
            patched = bytearray(data)
            for index, value in enumerate(superblock, start=offset - position):
                if 0 <= index < len(patched):
                    patched[index] = value
            data = bytes(patched)
        digest.update(data)
        position = end
    return digest.hexdigest()


def lookup3(data: bytes) -> int:
    """Return the checksum that HDF5 keeps of its metadata: Bob Jenkins' lookup3, seed 0.

    References
    ----------
    HDF5 File Format Specification 3.0, "Disk Format: Level 0A"; http://burtleburtle.net/bob/c/lookup3.c
    """
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c
    whole = (len(data) - 1) // 12 * 12
    for start in range(0, whole, 12):
        a, b, c = (
            (value + int.from_bytes(data[start + at : start + at + 4], "little")) & _MASK
            for value, at in ((a, 0), (b, 4), (c, 8))
        )
        a, b, c = _mix(a, b, c)
    tail = data[whole:].ljust(12, b"\0")
    a = (a + int.from_bytes(tail[0:4], "little")) & _MASK
    b = (b + int.from_bytes(tail[4:8], "little")) & _MASK
    c = (c + int.from_bytes(tail[8:12], "little")) & _MASK
    return _final(a, b, c)


def _rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = ((a - c) & _MASK) ^ _rotate(c, 4)
    c = (c + b) & _MASK
    b = ((b - a) & _MASK) ^ _rotate(a, 6)
    a = (a + c) & _MASK
    c = ((c - b) & _MASK) ^ _rotate(b, 8)
    b = (b + a) & _MASK
    a = ((a - c) & _MASK) ^ _rotate(c, 16)
    c = (c + b) & _MASK
    b = ((b - a) & _MASK) ^ _rotate(a, 19)
    a = (a + c) & _MASK
    c = ((c - b) & _MASK) ^ _rotate(b, 4)
    b = (b + a) & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = ((c ^ b) - _rotate(b, 14)) & _MASK
    a = ((a ^ c) - _rotate(c, 11)) & _MASK
    b = ((b ^ a) - _rotate(a, 25)) & _MASK
    c = ((c ^ b) - _rotate(b, 16)) & _MASK
    a = ((a ^ c) - _rotate(c, 4)) & _MASK
    b = ((b ^ a) - _rotate(a, 14)) & _MASK
    return ((c ^ b) - _rotate(b, 24)) & _MASK
