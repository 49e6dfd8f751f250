"""A file of named, compressed sections behind a JSON header, closed by its own BLAKE3.

All integers are little-endian. The layout is described in docs/reference/formats/rsk1.md.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import zstandard
from blake3 import blake3

from recallfs.errors import IntegrityError, SchemaVersionError
from recallfs.values import canonical_json

DIGEST_BYTES = 32
_PREFIX = struct.Struct("<8sII")  # magic, version, length of the header
_COMPRESSION_LEVEL = 6


def damaged(what: str) -> IntegrityError:
    """Return the error for a record that does not hold what it must."""
    return IntegrityError(
        f"the record is damaged: {what}. Take its copy from the vault.", kind="damaged-record"
    )


def pack(
    magic: bytes, version: int, header: Mapping[str, Any], sections: Mapping[str, bytes]
) -> bytes:
    """Put a header and sections into one self-digested record.

    Parameters
    ----------
    magic : bytes, length 8
        Names the kind of record.
    version : int
        Of the format.
    header : Mapping
        JSON-able; the key ``sections`` is added.
    sections : Mapping of str to bytes
        Each is compressed with zstd on its own.

    Returns
    -------
    bytes
    """
    compressor = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL, write_checksum=False)
    frames = [compressor.compress(plain) for plain in sections.values()]
    table = [
        {"name": name, "plain_bytes": len(plain), "stored_bytes": len(frame)}
        for (name, plain), frame in zip(sections.items(), frames, strict=True)
    ]
    encoded = canonical_json({**header, "sections": table})
    parts = [_PREFIX.pack(magic, version, len(encoded)), encoded, *frames]
    digest = blake3()
    for part in parts:
        digest.update(part)
    return b"".join((*parts, digest.digest()))


def unpack(
    magic: bytes, version: int, record: bytes, *, known: frozenset[str] = frozenset()
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Take a record apart after checking its digest.

    Parameters
    ----------
    magic, version
        As given to `pack`.
    record : bytes
        What `pack` returned.
    known : frozenset of str
        Features that the caller understands; the header's ``requires`` must name no others.

    Returns
    -------
    header : dict
        With ``sections``.
    sections : dict of str to bytes
        Decompressed; those the caller does not know are to be ignored.

    Raises
    ------
    IntegrityError
        Kind ``damaged-record``.
    SchemaVersionError
        If a newer recallfs wrote it.
    """
    if len(record) < _PREFIX.size + DIGEST_BYTES:
        raise damaged("it is too short")
    # A view, since a record may be hundreds of megabytes.
    body, digest = memoryview(record)[:-DIGEST_BYTES], record[-DIGEST_BYTES:]
    if blake3(body).digest() != digest:
        raise damaged("it fails its own digest")
    found, found_version, header_bytes = _PREFIX.unpack_from(body)
    if found != magic:
        raise damaged(f"it starts with {found!r}, not {magic!r}")
    if found_version > version:
        raise SchemaVersionError(
            f"the record is of version {found_version}; this recallfs reads up to {version}. "
            "Install a newer one."
        )
    start = _PREFIX.size + header_bytes
    try:
        header = json.loads(bytes(body[_PREFIX.size : start]))
        unknown = set(header["requires"]) - known
        sections = {} if unknown else _sections(body[start:], header["sections"])
    except (ValueError, KeyError, TypeError, AttributeError, zstandard.ZstdError) as error:
        raise damaged(f"its header or a section cannot be read ({error})") from error
    if unknown:
        raise SchemaVersionError(
            f"the record needs {', '.join(sorted(map(str, unknown)))}, which this recallfs does "
            "not know. Install a newer one."
        )
    return header, sections


def _sections(body: memoryview, table: list[dict[str, Any]]) -> dict[str, bytes]:
    """Decompress the sections that a header lists; ValueError if the lengths do not add up."""
    decompressor = zstandard.ZstdDecompressor()
    sections: dict[str, bytes] = {}
    position = 0
    for row in table:
        frame = body[position : position + row["stored_bytes"]]
        # The frame's own header would otherwise decide how much memory is asked for.
        if zstandard.frame_content_size(frame) != row["plain_bytes"]:
            raise ValueError(f"section {row['name']!r} is not of the length it should be")
        sections[row["name"]] = decompressor.decompress(frame)
        position += row["stored_bytes"]
    if position != len(body):
        raise ValueError("there are bytes that belong to no section")
    return sections
