"""Surveying an HDF5 file: which pieces of its datasets a skeleton may leave out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from blake3 import blake3
from h5py import h5o

from recallfs.errors import IntegrityError
from recallfs.hdf5.access import HDF5_ERRORS, hdf5_errors, read_elements
from recallfs.hdf5.encoders import ChunkEncoder, Encoder, is_own
from recallfs.hdf5.extents import BulkDataset, stored_chunk
from recallfs.skeleton.format import PIECE
from recallfs.skeleton.stale import Present, StaleChunk, ZlibStream, find_streams, gzipped_bytes
from recallfs.skeleton.tails import (
    LONGEST_BYTES,
    MOST_CHECKSUMS,
    EndingFinder,
    Grown,
    earlier_checksums,
    is_searched,
)
from recallfs.values import Identity

Progress = Callable[[int], None]
"""Called now and then with the number of bytes done since the last call."""


@dataclass(frozen=True)
class Survey:
    """What was found of a dataset: the pieces that may be left out.

    Parameters
    ----------
    bulk : BulkDataset
    kept : numpy.ndarray, shape (n_kept,)
        Numbers of the pieces in `bulk`.
    pieces : numpy.ndarray of PIECE, shape (n_kept,)
    encoder : Encoder, optional
        What encodes its chunks.
    firsts : dict
        Numbers of pieces by their first element.
    stale : tuple of StaleChunk
        Chunks that the file no longer uses.
    """

    bulk: BulkDataset
    kept: npt.NDArray[np.int64]
    pieces: npt.NDArray[Any]
    encoder: Encoder | None
    firsts: dict[bytes, list[int]]
    stale: tuple[StaleChunk, ...] = ()

    @property
    def plain_bytes(self) -> int | None:
        """What a chunk is to gzip; None if its chunks end in no zlib stream."""
        shape = self.bulk.chunk_shape
        if shape is None or self.encoder is None:
            return None
        return gzipped_bytes(self.encoder.steps, math.prod(shape) * self.bulk.item_bytes)

    def table(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return pieces, starts and counts, with stale chunks, in C order of the starts."""
        starts, counts = self.bulk.starts[self.kept], self.bulk.counts[self.kept]
        if not self.stale:
            return self.pieces, starts, counts
        stale = np.zeros(len(self.stale), dtype=PIECE)
        for row, chunk in zip(stale, self.stale, strict=True):
            row["offset"], row["size"] = chunk.offset, len(chunk.stored)
            row["skip"] = chunk.skip
            row["raw"], row["decoded"] = _digest(chunk.stored), _digest(chunk.values)
        pieces = np.concatenate((self.pieces, stale))
        starts = np.concatenate((starts, [chunk.start for chunk in self.stale]))
        counts = np.concatenate((counts, [chunk.count for chunk in self.stale]))
        order = np.lexsort(starts.T[::-1])
        return pieces[order], starts[order], counts[order]


@dataclass(frozen=True)
class Original:
    """The file, open both as HDF5 and as bytes.

    Parameters
    ----------
    path : Path
    descriptor : int
        For its bytes.
    size_bytes : int
    file : h5py.File
    fingerprints : dict
        Of encoders that were tried out.
    """

    path: Path
    descriptor: int
    size_bytes: int
    file: h5py.File
    fingerprints: dict[tuple[Any, bytes], str | None] = field(default_factory=dict)

    def survey(self, bulk: BulkDataset, report: Progress) -> Survey:
        """Digest the pieces of a dataset; those that cannot be relied on are not in the result."""
        with hdf5_errors(self.path):
            dataset = h5o.open(self.file.id, bulk.path.encode())
            user_block = self.file.id.get_create_plist().get_userblock()
        pieces = np.zeros(len(bulk.sizes), dtype=PIECE)
        pieces["filter_mask"] = bulk.filter_masks
        pieces["size"] = bulk.sizes
        # Some HDF5 versions leave the user block out of the offsets, so both are tried.
        shifts = {0, user_block}
        kept = []
        firsts: dict[bytes, list[int]] = {}
        encoder = ChunkEncoder(dataset) if bulk.chunk_shape is not None else None
        try:
            for number in range(len(pieces)):
                stored = self._digest_piece(
                    dataset, bulk, encoder, pieces[number], number, firsts=firsts
                )
                if stored is not None:
                    kept.append(number)
                    offset = int(bulk.offsets[number])
                    shifts = {s for s in shifts if self._is_at(offset + s, stored)}
                if not shifts:
                    break
                report(int(bulk.sizes[number]) if stored is not None else 0)
            fingerprint = self._encoder_of(encoder, bulk.item_bytes)
        finally:
            if encoder is not None:
                encoder.close()
        chosen = np.array(kept if shifts else [], dtype=np.int64)
        pieces["offset"] = bulk.offsets + (min(shifts) if shifts else 0)
        return Survey(bulk, chosen, pieces[chosen], fingerprint, firsts)

    def _digest_piece(
        self,
        dataset: Any,
        bulk: BulkDataset,
        encoder: ChunkEncoder | None,
        piece: Any,
        number: int,
        *,
        firsts: dict[bytes, list[int]],
    ) -> Any:
        """Fill in the digests of a piece; return its stored bytes, or None to retain it."""
        start, count = tuple(bulk.starts[number].tolist()), tuple(bulk.counts[number].tolist())
        try:
            values = read_elements(dataset, dataset.get_type(), start, count)
        except HDF5_ERRORS:
            return None  # a damaged chunk: its bytes stay as they are
        firsts.setdefault(values[: bulk.item_bytes].tobytes(), []).append(number)
        stored: Any = values
        if encoder is not None:
            found = stored_chunk(dataset, start)
            if found is None or found[0] != bulk.filter_masks[number]:
                return None
            stored = found[1]
            if not _can_be_encoded(encoder, values, found, count, bulk):
                return None
        piece["raw"] = _digest(stored)
        piece["decoded"] = piece["raw"] if stored is values else _digest(values)
        return stored

    def with_stale_chunks(self, surveys: list[Survey], extents: npt.NDArray[Any]) -> list[Survey]:
        """Add the chunks that the file no longer uses, where they can be made again."""
        lengths = [one.plain_bytes for one in surveys]
        known = frozenset(length for length in lengths if length is not None)
        streams: dict[int, list[ZlibStream]] = {}
        for stream in find_streams(self._contents(extents), known):
            streams.setdefault(stream.plain_bytes, []).append(stream)
        begins: dict[Any, bytes] = {}
        with hdf5_errors(self.path):
            return [
                replace(one, stale=tuple(self._recognised(one, streams[length], begins)))
                if length in streams
                else one
                for one, length in zip(surveys, lengths, strict=True)
            ]

    def _recognised(
        self, survey: Survey, streams: list[ZlibStream], begins: dict[Any, bytes]
    ) -> Iterator[StaleChunk]:
        """Take those streams out of the list that were chunks of a dataset once.

        There may be thousands of datasets, and what a stream begins with is the same to all that
        are of one kind: `begins` keeps it.
        """
        kind = (survey.encoder, survey.bulk.chunk_shape)
        wanted: set[bytes | None] = {None, *survey.firsts}
        likely = [stream for stream in streams if begins.get((kind, stream.offset)) in wanted]
        if not likely:
            return
        with self._present(survey) as present:
            for stream in likely:
                # A checksum may follow the stream.
                size = min(stream.size + 4, stream.room_bytes)
                content = _read_exactly(self.descriptor, stream.offset, size) or b""
                begin, chunk = present.recognise(stream, content)
                begins[kind, stream.offset] = begin
                if chunk:
                    streams.remove(stream)
                    yield chunk

    def with_stale_ends(self, surveys: list[Survey], extents: npt.NDArray[Any]) -> list[Survey]:
        """Add what is left of chunks whose beginnings something else took over."""
        searched = [
            (owner, one)
            for owner, one in enumerate(surveys)
            if one.encoder is not None and is_searched(one.encoder.steps)
        ]
        if sum(int(one.bulk.counts[:, 0].sum()) for _, one in searched) > MOST_CHECKSUMS:
            return surveys
        finder = EndingFinder(
            [chunk for owner, one in searched for chunk in self._grown(owner, one)]
        )
        found: list[list[StaleChunk]] = [[] for _ in surveys]
        for offset, content in self._contents(extents):
            taken = offset  # endings come in ascending order
            for ending in finder.search(offset, content):
                begin = max(taken, ending.offset - LONGEST_BYTES)
                before = content[begin - offset : ending.offset - offset]
                for owner, number, rows in ending.candidates:
                    with self._present(surveys[owner]) as present, hdf5_errors(self.path):
                        chunk = present.recognise_end(number, rows, ending.offset, before)
                    if chunk is not None:
                        found[owner].append(chunk)
                        taken = ending.offset
                        break
        return [
            replace(one, stale=(*one.stale, *chunks))
            for one, chunks in zip(surveys, found, strict=True)
        ]

    def _grown(self, owner: int, survey: Survey) -> Iterator[Grown]:
        """Work out the checksums that the chunks of a dataset had when they were shorter."""
        bulk = survey.bulk
        with self._present(survey) as present, hdf5_errors(self.path):
            fill = present.encoder.fill_value()
            if fill is None or bulk.chunk_shape is None:
                return
            is_shuffled = len(present.encoder.steps) > 1
            for number in survey.kept.tolist():
                start, count = bulk.starts[number].tolist(), tuple(bulk.counts[number].tolist())
                values = read_elements(present.dataset, present.dataset.get_type(), start, count)
                checksums = earlier_checksums(
                    values, fill, count, bulk.chunk_shape, is_shuffled=is_shuffled
                )
                yield Grown(owner, number, checksums)

    @contextmanager
    def _present(self, survey: Survey) -> Iterator[Present]:
        bulk = survey.bulk
        dataset = h5o.open(self.file.id, bulk.path.encode())
        with ChunkEncoder(dataset) as encoder:
            yield Present(dataset, encoder, bulk.starts, bulk.counts, survey.firsts)

    def _contents(self, extents: npt.NDArray[Any]) -> Iterator[tuple[int, bytes]]:
        for offset, size in extents.tolist():
            yield offset, _read_exactly(self.descriptor, offset, size) or b""

    def _encoder_of(self, encoder: ChunkEncoder | None, item_bytes: int) -> Encoder | None:
        """Describe an encoder; equal ones of equal types are tried out once."""
        if encoder is None or not encoder.steps:
            return None
        known = (encoder.steps, encoder.datatype.encode())
        if known not in self.fingerprints:
            self.fingerprints[known] = encoder.fingerprint()
        return Encoder(encoder.steps, item_bytes, self.fingerprints[known])

    def _is_at(self, offset: int, stored: Any) -> bool:
        """Tell whether the file holds these bytes at that offset."""
        if offset < 0 or offset + len(stored) > self.size_bytes:
            return False
        found = _read_exactly(self.descriptor, offset, len(stored))
        # Through NumPy: Python compares a memoryview element by element.
        return found is not None and bool(
            np.array_equal(np.frombuffer(found, np.uint8), np.frombuffer(stored, np.uint8))
        )

    def read_retained(self, extents: npt.NDArray[Any], report: Progress) -> bytes:
        """Read the bytes of all extents."""
        parts = []
        for offset, size in extents.tolist():
            part = _read_exactly(self.descriptor, offset, size)
            if part is None:
                raise _changed(self.path, "it became shorter while it was read")
            parts.append(part)
            report(size)
        return b"".join(parts)

    def check_is(self, identity: Identity) -> None:
        """Fail if the file changed since it had that identity."""
        if identity != Identity.from_stat(self.path.stat()):
            raise _changed(self.path, "it changed while it was read")


def _can_be_encoded(
    encoder: ChunkEncoder,
    values: Any,
    found: tuple[int, bytes],
    count: tuple[int, ...],
    bulk: BulkDataset,
) -> bool:
    """Tell whether a chunk is what its encoder makes of its values, as far as that is in doubt."""
    mask, stored = found
    if not is_own(encoder.steps):
        return encoder.encode(values, count, mask) == stored
    return count == bulk.chunk_shape or encoder.has_usual_padding(stored, count, mask)


def _digest(data: Any) -> npt.NDArray[np.uint8]:
    return np.frombuffer(blake3(data).digest(), dtype=np.uint8)


def _read_exactly(descriptor: int, offset: int, size: int) -> bytes | None:
    """Read a range of a file; None if the file ends before."""
    parts = []
    while size:
        part = os.pread(descriptor, min(size, 1 << 30), offset)
        if not part:
            return None
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)


def _changed(path: Path, what: str) -> IntegrityError:
    return IntegrityError(
        f"{path} is not the file that was digested: {what}.", details={"path": str(path)}
    )
