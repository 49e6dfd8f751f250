"""Making the skeleton of an HDF5 file, in one pass over its bulk data."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from blake3 import blake3
from h5py import h5o

from recallfs.errors import AccessError, ConflictError, IntegrityError
from recallfs.hdf5.access import (
    HDF5_ERRORS,
    hdf5_errors,
    open_hdf5,
    read_elements,
    require_filters,
)
from recallfs.hdf5.encoders import ChunkEncoder, Encoder, is_own, versions
from recallfs.hdf5.extents import BulkDataset, list_bulk, stored_chunk
from recallfs.skeleton.format import EXTENT, PIECE, Skeleton, SkeletonDataset
from recallfs.skeleton.stale import Present, StaleChunk, ZlibStream, find_streams, gzipped_bytes
from recallfs.skeleton.tails import (
    LONGEST_BYTES,
    MOST_CHECKSUMS,
    EndingFinder,
    Grown,
    earlier_checksums,
    is_searched,
)
from recallfs.values import Identity, format_size

MINIMUM_DATASET_BYTES = 4096
"""A dataset that stores less may stay in the skeleton."""

_SMALL_SHARE = 0.01
"""Which part of a file small datasets may be that are retained though they need not; and above
which part of it space that is no longer used is looked at."""

MAXIMUM_RETAINED_BYTES = 1024**3
"""What is retained is held in memory; above this a file has no skeleton."""

Progress = Callable[[int], None]
"""Called now and then with the number of bytes done since the last call."""


def build_skeleton(
    path: Path,
    *,
    sha256: str,
    size_bytes: int,
    max_retained_bytes: int = MAXIMUM_RETAINED_BYTES,
    minimum_bytes: int = MINIMUM_DATASET_BYTES,
    progress: Progress | None = None,
) -> Skeleton:
    """Make the skeleton of an HDF5 file.

    Parameters
    ----------
    path : Path
        The original. Opened without locks and never written to.
    sha256 : str
        Of the whole file, lower-case hexadecimal; taken as given.
    size_bytes : int
        Of the file when `sha256` was taken.
    max_retained_bytes : int
        Refuse if more must be retained; checked from the chunk index before data is read, and
        again when all pieces were verified.
    minimum_bytes : int
        Datasets that store less are retained, the smallest first, as long as all of these together
        are at most 1% of the file: they cost little, and what is retained need not be computed
        again.
    progress : callable, optional
        Called with increments, in bytes; they add up to `size_bytes`, or to a
        little more where pieces turn out to be unfit.

    Returns
    -------
    Skeleton

    Raises
    ------
    InvalidInputError
        Kind ``not-hdf5`` if the file is not HDF5 or is damaged; kind ``invalid-input`` if a filter
        is not available here.
    ConflictError
        Kind ``skeleton-too-large``.
    IntegrityError
        Kind ``digest-mismatch`` if the file is not of that size, or changed meanwhile.
    AccessError
        If the file may not be read.

    Notes
    -----
    Reads and decodes all bulk data once (edge chunks twice), a chunk at a time; a few chunks are
    held in memory. A piece is left out only if its bytes were found in the file where HDF5 says
    they are, and if it can be decoded; an edge chunk moreover only if HDF5's own padding is in it,
    and a chunk of a filter that is not HDF5's own only if encoding it again gives the same bytes.
    """
    report = progress or (lambda _size: None)
    with open_hdf5(path) as file:
        descriptor = _open(path)
        try:
            identity = Identity.from_stat(os.fstat(descriptor))
            _check_size(path, size_bytes, identity)
            with hdf5_errors(path):
                candidates = _worth_it(list(list_bulk(file)), size_bytes, minimum_bytes)
                _check_filters(file, candidates)
            claimed = sum(one.stored_bytes for one in candidates)
            _check_retained(path, size_bytes - claimed, max_retained_bytes)
            original = _Original(path, descriptor, size_bytes, file)
            surveys = _without_overlaps(original.survey(one, report) for one in candidates)
            extents = _complement(surveys, size_bytes)
            if int(extents["size"].sum()) > _SMALL_SHARE * size_bytes:
                surveys = original.with_stale_chunks(surveys, extents)
                extents = _complement(surveys, size_bytes)
                surveys = original.with_stale_ends(surveys, extents)
                extents = _complement(surveys, size_bytes)
            _check_retained(path, int(extents["size"].sum()), max_retained_bytes)
            retained = original.read_retained(extents, report)
            if identity != Identity.from_stat(path.stat()):
                raise _changed(path, "it changed while it was read")
        finally:
            os.close(descriptor)
    return _assemble(sha256, size_bytes, surveys, extents, retained)


def _worth_it(
    candidates: list[BulkDataset], size_bytes: int, minimum_bytes: int
) -> list[BulkDataset]:
    """Leave out the smallest datasets, as long as they are little of the file in all."""
    room = _SMALL_SHARE * size_bytes
    chosen = set()
    for number, one in sorted(enumerate(candidates), key=lambda item: item[1].stored_bytes):
        room -= one.stored_bytes
        if one.stored_bytes >= minimum_bytes or room < 0:
            chosen.add(number)
    return [one for number, one in enumerate(candidates) if number in chosen]


@dataclass(frozen=True)
class _Survey:
    """What was found of a dataset: the pieces that may be left out."""

    bulk: BulkDataset
    kept: npt.NDArray[np.int64]  # numbers of the pieces in bulk, shape (n_kept,)
    pieces: npt.NDArray[Any]  # of PIECE, shape (n_kept,)
    encoder: Encoder | None
    firsts: dict[bytes, list[int]]  # numbers of pieces by their first element
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
class _Original:
    """The file, open both as HDF5 and as bytes."""

    path: Path
    descriptor: int
    size_bytes: int
    file: h5py.File
    fingerprints: dict[tuple[Any, bytes], str | None] = field(default_factory=dict)

    def survey(self, bulk: BulkDataset, report: Progress) -> _Survey:
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
        return _Survey(bulk, chosen, pieces[chosen], fingerprint, firsts)

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

    def with_stale_chunks(self, surveys: list[_Survey], extents: npt.NDArray[Any]) -> list[_Survey]:
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
        self, survey: _Survey, streams: list[ZlibStream], begins: dict[Any, bytes]
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

    def with_stale_ends(self, surveys: list[_Survey], extents: npt.NDArray[Any]) -> list[_Survey]:
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

    def _grown(self, owner: int, survey: _Survey) -> Iterator[Grown]:
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
    def _present(self, survey: _Survey) -> Iterator[Present]:
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


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except PermissionError as error:
        raise AccessError(f"{path} may not be read: {error}.") from error


def _changed(path: Path, what: str) -> IntegrityError:
    return IntegrityError(
        f"{path} is not the file that was digested: {what}.", details={"path": str(path)}
    )


def _check_size(path: Path, size_bytes: int, identity: Identity) -> None:
    if identity.size_bytes != size_bytes:
        raise IntegrityError(
            f"{path} has {identity.size_bytes} bytes, but had {size_bytes} when it was digested.",
            details={"path": str(path), "expected": size_bytes, "actual": identity.size_bytes},
        )


def _check_filters(file: h5py.File, candidates: Iterable[BulkDataset]) -> None:
    for one in candidates:
        dataset = h5o.open(file.id, one.path.encode())
        require_filters(dataset.get_create_plist(), path=one.path)


def _check_retained(path: Path, retained_bytes: int, limit_bytes: int) -> None:
    if retained_bytes > limit_bytes:
        raise ConflictError(
            f"{path} has {format_size(retained_bytes)} that are not bulk data; at most "
            f"{format_size(limit_bytes)} may be kept in a skeleton.",
            kind="skeleton-too-large",
            details={"path": str(path), "retained_bytes": retained_bytes, "limit": limit_bytes},
        )


def _without_overlaps(surveys: Iterable[_Survey]) -> list[_Survey]:
    """Leave out datasets of which a piece shares bytes with another: one of the two is wrong."""
    found = [one for one in surveys if len(one.kept)]
    while found:
        pieces = np.concatenate([one.pieces for one in found])
        owners = np.repeat(np.arange(len(found)), [len(one.kept) for one in found])
        order = np.argsort(pieces["offset"], kind="stable")
        ends = np.maximum.accumulate((pieces["offset"] + pieces["size"])[order])
        clash = pieces["offset"][order][1:] < ends[:-1]
        if not clash.any():
            break
        suspects = {*owners[order][1:][clash].tolist(), *owners[order][:-1][clash].tolist()}
        found = [one for number, one in enumerate(found) if number not in suspects]
    return found


def _complement(surveys: list[_Survey], size_bytes: int) -> npt.NDArray[Any]:
    """Return the extents of the file that no piece covers."""
    pieces = np.concatenate([np.zeros(0, dtype=PIECE), *(one.table()[0] for one in surveys)])
    order = np.argsort(pieces["offset"], kind="stable")
    starts = pieces["offset"][order]
    ends = starts + pieces["size"][order]
    gap_starts = np.concatenate((np.zeros(1, dtype=np.uint64), ends))
    gap_ends = np.concatenate((starts, np.array([size_bytes], dtype=np.uint64)))
    gaps = gap_ends > gap_starts
    extents = np.zeros(int(gaps.sum()), dtype=EXTENT)
    extents["offset"] = gap_starts[gaps]
    extents["size"] = (gap_ends - gap_starts)[gaps]
    return extents


def _assemble(
    sha256: str,
    size_bytes: int,
    surveys: list[_Survey],
    extents: npt.NDArray[Any],
    retained: bytes,
) -> Skeleton:
    encoders: dict[Encoder, int] = {}
    datasets, coordinates = [], [np.zeros(0, dtype=np.uint64)]
    tables = []
    for number, one in enumerate(surveys):
        pieces, starts, counts = one.table()
        pieces["dataset"] = number
        tables.append(pieces)
        encoder = None
        if one.encoder is not None:
            encoder = encoders.setdefault(one.encoder, len(encoders))
        datasets.append(
            SkeletonDataset(
                path=one.bulk.path,
                shape=one.bulk.shape,
                chunk_shape=one.bulk.chunk_shape,
                item_bytes=one.bulk.item_bytes,
                n_pieces=len(pieces),
                encoder=encoder,
            )
        )
        coordinates += [table.astype(np.uint64).ravel() for table in (starts, counts)]
    skeleton = Skeleton(
        size_bytes=size_bytes,
        sha256=sha256,
        extents=extents,
        retained=retained,
        datasets=tuple(datasets),
        pieces=np.concatenate([np.zeros(0, dtype=PIECE), *tables]),
        coordinates=np.concatenate(coordinates),
        encoders=tuple(encoders),
        written_with=versions(),
    )
    skeleton.check()
    return skeleton
