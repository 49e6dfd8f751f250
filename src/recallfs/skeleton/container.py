"""A file of named, compressed sections behind a JSON header, closed by its own BLAKE3.

All integers are little-endian. The layout is described in docs/reference/formats/rsk1.md.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import zstandard
from blake3 import blake3

from recallfs.atomic import open_record
from recallfs.errors import IntegrityError, SchemaVersionError
from recallfs.values import canonical_json

DIGEST_BYTES = 32
_PREFIX = struct.Struct("<8sII")  # magic, version, length of the header
_COMPRESSION_LEVEL = 6
_FRAME_HEADER_BYTES = 18  # at most
_CHUNK_BYTES = 1024**2


def damaged(what: str) -> IntegrityError:
    """Return the error for a record that does not hold what it must."""
    return IntegrityError(
        f"the record is damaged: {what}. Take its copy from the vault.", kind="damaged-record"
    )


@contextmanager
def tables_fit() -> Iterator[None]:
    """Give what cannot be made of a record's header and sections as the error that it is."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise damaged(f"its tables do not fit together ({error!r})") from error


def pack(
    magic: bytes, version: int, header: Mapping[str, Any], sections: Mapping[str, bytes]
) -> bytes:
    """Put a header and sections into one self-digested record; see `write`."""
    with io.BytesIO() as target:
        write(target, magic, version, header, sections)
        return target.getvalue()


def write(
    target: IO[bytes],
    magic: bytes,
    version: int,
    header: Mapping[str, Any],
    sections: Mapping[str, bytes | IO[bytes]],
    *,
    folder: Path | None = None,
) -> None:
    """Write a header and sections as one self-digested record.

    Parameters
    ----------
    target : binary file
        Takes the record.
    magic : bytes, length 8
        Names the kind of record.
    version : int
        Of the format.
    header : Mapping
        JSON-able; the key ``sections`` is added.
    sections : Mapping of str to bytes or binary file
        Each is compressed with zstd on its own. Of a file everything is taken, and a few MiB are
        held in memory.
    folder : Path, optional
        Where files are compressed to first: the header comes before them and tells their lengths.
    """
    compressor = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL, write_checksum=False)
    table: list[dict[str, Any]] = []
    with ExitStack() as stack:
        frames: list[IO[bytes]] = []
        for name, plain in sections.items():
            frame: IO[bytes]
            if isinstance(plain, bytes):
                plain_bytes = len(plain)
                frame = stack.enter_context(io.BytesIO(compressor.compress(plain)))
            else:
                plain_bytes = plain.seek(0, os.SEEK_END)
                plain.seek(0)
                frame = stack.enter_context(tempfile.TemporaryFile(dir=folder))
                compressor.copy_stream(plain, frame, size=plain_bytes)
            stored_bytes = frame.seek(0, os.SEEK_END)
            table.append({"name": name, "plain_bytes": plain_bytes, "stored_bytes": stored_bytes})
            frames.append(frame)
        encoded = canonical_json({**header, "sections": table})
        digest = blake3()
        for part in _parts(_PREFIX.pack(magic, version, len(encoded)) + encoded, frames):
            digest.update(part)
            target.write(part)
        target.write(digest.digest())


def _parts(beginning: bytes, frames: list[IO[bytes]]) -> Iterator[bytes]:
    yield beginning
    for frame in frames:
        frame.seek(0)
        yield from _chunks(frame)


def unpack(
    magic: bytes, version: int, record: bytes, *, known: frozenset[str] = frozenset()
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Take a record apart after checking its digest; see `Record`.

    Returns
    -------
    header : dict
        With ``sections``.
    sections : dict of str to bytes
        Decompressed; those the caller does not know are to be ignored.
    """
    with io.BytesIO(record) as file:
        found = Record.read(magic, version, file, known=known)
        return found.header, {name: found.section(file, name) for name in found.places}


class _Place(NamedTuple):
    """Where a section is in its record."""

    offset: int
    stored_bytes: int
    plain_bytes: int


@dataclass(frozen=True)
class Record:
    """What a record says of itself; its sections are read when they are asked for.

    Parameters
    ----------
    header : dict
        With ``sections``.
    places : dict of str to tuple
        Where each section is.
    """

    header: dict[str, Any]
    places: dict[str, _Place]

    @classmethod
    def read(
        cls, magic: bytes, version: int, file: IO[bytes], *, known: frozenset[str] = frozenset()
    ) -> Record:
        """Check a record's digest and read its header.

        Parameters
        ----------
        magic, version
            As given to `write`.
        file : binary file
            Read once from end to end, a MiB at a time.
        known : frozenset of str
            Features that the caller understands; the header's ``requires`` must name no others.

        Raises
        ------
        IntegrityError
            Kind ``damaged-record``.
        SchemaVersionError
            If a newer recallfs wrote it.
        """
        body_bytes = file.seek(0, os.SEEK_END) - DIGEST_BYTES
        if body_bytes < _PREFIX.size:
            raise damaged("it is too short")
        file.seek(0)
        digest = blake3()
        for part in _chunks(file, body_bytes):
            digest.update(part)
        if file.read() != digest.digest():
            raise damaged("it fails its own digest")
        file.seek(0)
        found, found_version, header_bytes = _PREFIX.unpack(file.read(_PREFIX.size))
        if found != magic:
            raise damaged(f"it starts with {found!r}, not {magic!r}")
        if found_version > version:
            raise SchemaVersionError(
                f"the record is of version {found_version}; this recallfs reads up to {version}. "
                "Install a newer one."
            )
        try:
            header = json.loads(file.read(header_bytes))
            unknown = set(header["requires"]) - known
            places = {}
            if not unknown:
                places = _places(header["sections"], _PREFIX.size + header_bytes, body_bytes)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(error) from error
        if unknown:
            raise SchemaVersionError(
                f"the record needs {', '.join(sorted(map(str, unknown)))}, which this recallfs "
                "does not know. Install a newer one."
            )
        return cls(header, places)

    def section(self, file: IO[bytes], name: str) -> bytes:
        """Decompress a section whole; KeyError if there is none of that name."""
        with self.stream(file, name) as stream:
            try:
                content = bytes(stream.read(self.places[name].plain_bytes))
            except zstandard.ZstdError as error:
                raise _unreadable(error) from error
        if len(content) != self.places[name].plain_bytes:
            raise _unreadable(ValueError(f"section {name!r} ends too early"))
        return content

    def stream(self, file: IO[bytes], name: str) -> zstandard.ZstdDecompressionReader:
        """Decompress a section from its beginning on as it is read."""
        place = self.places[name]
        file.seek(place.offset)
        beginning = file.read(min(_FRAME_HEADER_BYTES, place.stored_bytes))
        # The frame's own header would otherwise decide how much memory is asked for.
        try:
            plain_bytes = zstandard.frame_content_size(beginning)
        except zstandard.ZstdError as error:
            raise _unreadable(error) from error
        if plain_bytes != place.plain_bytes:
            raise _unreadable(ValueError(f"section {name!r} is not of the length it should be"))
        file.seek(place.offset)
        return zstandard.ZstdDecompressor().stream_reader(file, closefd=False)


def record_digest(path: Path) -> str:
    """Return the BLAKE3, hexadecimal, of a whole record: what names it. A MiB is held."""
    digest = blake3()
    with open_record(path) as file:
        for part in _chunks(file):
            digest.update(part)
    return digest.hexdigest()


def _places(table: list[dict[str, Any]], offset: int, end: int) -> dict[str, _Place]:
    """Work out where sections are; ValueError if the lengths do not add up."""
    places = {}
    for row in table:
        lengths = row["stored_bytes"], row["plain_bytes"]
        if not all(isinstance(each, int) and each >= 0 for each in lengths):
            raise ValueError(f"section {row['name']!r} cannot be of that length")
        place = _Place(offset, *lengths)
        places[str(row["name"])] = place
        offset += place.stored_bytes
    if offset != end:
        raise ValueError("there are bytes that belong to no section")
    return places


def _unreadable(error: Exception) -> IntegrityError:
    return damaged(f"its header or a section cannot be read ({error})")


def _chunks(file: IO[bytes], size_bytes: int | None = None) -> Iterator[bytes]:
    """Read on, up to the end or that many bytes."""
    rest = size_bytes
    while part := file.read(_CHUNK_BYTES if rest is None else min(rest, _CHUNK_BYTES)):
        yield part
        rest = None if rest is None else rest - len(part)
