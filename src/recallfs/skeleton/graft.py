"""Putting recomputed bulk data back into a skeleton, so that the original file stands again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
from blake3 import blake3
from h5py import h5d, h5o, h5p

from recallfs.errors import IntegrityError, InvalidInputError
from recallfs.hdf5.access import (
    HDF5_ERRORS,
    Bytes,
    hdf5_errors,
    open_hdf5,
    read_elements,
    require_filters,
)
from recallfs.hdf5.datatypes import is_fixed_size, same_values
from recallfs.hdf5.encoders import ChunkEncoder, is_lossless
from recallfs.hdf5.extents import stored_chunk
from recallfs.skeleton.anew import Spare, lay_anew
from recallfs.skeleton.container import damaged
from recallfs.skeleton.format import Skeleton, SkeletonDataset
from recallfs.skeleton.frame import lay_retained, new_file, write_at
from recallfs.skeleton.report import DatasetMismatch, GraftReport
from recallfs.skeleton.residual import Mender, Residual
from recallfs.skeleton.witness import Witness

Progress = Callable[[int], None]
"""Called now and then with the number of bytes done since the last call."""

_LEAST_CACHE_BYTES = 16 * 1024**2
_MOST_CACHE_BYTES = 256 * 1024**2
_HASH_SLOTS = (521, 10_007, 100_003, 1_000_003)  # primes, as HDF5 asks for
_NAMED_IN_MESSAGE = 3


def graft(
    skeleton: Skeleton,
    recomputed: Path,
    target: Path,
    *,
    residual: Residual | None = None,
    witness: Witness | None = None,
    spared: Collection[str] = (),
    progress: Progress | None = None,
) -> GraftReport:
    """Rebuild the original file from its skeleton and a file with the same values.

    Parameters
    ----------
    skeleton : Skeleton
        Of the original.
    recomputed : Path
        An HDF5 file that holds the skeleton's datasets under their paths, in any layout.
    target : Path
        Must not exist; made with mode 0600, and removed again if this fails.
    residual : Residual, optional
        What makes values right that differ in a few bits. It must be for this skeleton.
    witness : Witness, optional
        Is shown each piece whose values differ.
    spared : collection of str
        Reasons (``encoding``, ``values``) for which pieces are laid anew by HDF5 instead of
        refused; then the result is not the original file, and its content is to be checked.
    progress : callable, optional
        Called with increments, in bytes; they add up to the size of the file.

    Returns
    -------
    GraftReport

    Raises
    ------
    IntegrityError
        Kind ``digest-mismatch`` if any piece is not what it was; ``details['objects']`` lists the
        datasets (see `DatasetMismatch`), ``details['expected']`` is the sha256 of the original.
        Kind ``damaged-record`` if the skeleton does not hold together.
    InvalidInputError
        Kind ``not-hdf5`` if `recomputed` is not a sound HDF5 file; kind ``invalid-input`` if a
        filter is missing here.
    ConflictError
        If `target` exists.
    SourceError
        Kind ``no-space``.

    Notes
    -----
    Each piece is compared with its own digests before it is written. The file as a whole is
    neither synced nor digested: the caller does both before anybody may see it. Of the recomputed
    file at most 256 MiB of decoded chunks are held (or one chunk, if that is larger).
    """
    report = progress or (lambda _size: None)
    done: Counter[str] = Counter()
    spares: list[Spare] = []
    with new_file(target) as descriptor:
        lay_retained(skeleton, descriptor, target)
        report(skeleton.retained_bytes)
        with (
            open_hdf5(recomputed) as donor,
            _open_skeleton(target) as mould,
            nullcontext() if residual is None else residual.mending() as mender,
        ):
            work = _Work(
                skeleton=skeleton,
                mender=mender,
                witness=witness,
                mould=mould,
                donor=_Donor(donor, recomputed),
                sink=_Sink(descriptor, target, report),
                done=done,
                spared=frozenset(spared),
                spares=spares,
            )
            differences = [
                difference
                for number in range(len(skeleton.datasets))
                for difference in work.graft_dataset(number)
            ]
        if differences:
            raise _mismatch(skeleton, differences)
        if spares:
            lay_anew(skeleton, recomputed, target, spares)
    return GraftReport(
        pieces_copied=done["copied"],
        pieces_encoded=done["encoded"],
        pieces_laid=done["laid"],
        bulk_bytes=skeleton.bulk_bytes,
        retained_bytes=skeleton.retained_bytes,
        pieces_mended=done["mended"],
        pieces_anew=len(spares),
    )


class _Donor(NamedTuple):
    """The recomputed file."""

    file: h5py.File
    path: Path

    def find(self, path: str) -> Any:
        """Open a dataset; None if there is none at that path."""
        try:
            found = h5o.open(self.file.id, path.encode())
        except HDF5_ERRORS:
            return None
        return found if isinstance(found, h5d.DatasetID) else None


@dataclass(frozen=True)
class _Sink:
    """The file that is being made."""

    descriptor: int
    path: Path
    report: Progress

    def write(self, offset: int, data: Any) -> None:
        write_at(self.descriptor, offset, data, self.path)


class _Regrown(NamedTuple):
    """What came of one piece.

    Parameters
    ----------
    data : bytes-like or None
        Its stored bytes, with the piece's own digest; None if they cannot be made.
    how : str
        ``copied``, ``encoded`` or ``laid``; else the reason.
    values : Bytes, optional
        The recomputed elements; always there if they are the reason.
    is_mended : bool
        Whether the residual was needed.
    """

    data: Any
    how: str
    values: Any = None
    is_mended: bool = False


@dataclass(frozen=True)
class _Pair:
    """A dataset of the original (without its data) and its recomputed counterpart."""

    original: Any
    item_bytes: int
    donor: Any
    donor_path: Path
    encoder: ChunkEncoder | None  # None: contiguous
    same_grid: bool
    mender: Mender | None

    def regrow(
        self, number: int, start: tuple[int, ...], count: tuple[int, ...], piece: Any
    ) -> _Regrown:
        """Make the stored bytes of the piece in that row of the skeleton's table."""
        raw, decoded = piece["raw"].tobytes(), piece["decoded"].tobytes()
        mask = int(piece["filter_mask"])
        if self.same_grid:
            found = stored_chunk(self.donor, start)
            if found is not None and found[0] == mask and blake3(found[1]).digest() == raw:
                return _Regrown(found[1], "copied")
        values = self._read(start, count)
        right = values
        equal = blake3(values.data).digest() == decoded
        is_mended = False
        if not equal and self.mender is not None:
            mended = self.mender.mend(number, values, self.item_bytes)
            is_mended = mended is not None and blake3(mended.data).digest() == decoded
            if mended is not None and is_mended:
                right, equal = mended, True
        if self.encoder is None:
            if equal and decoded == raw:
                return _Regrown(right, "laid", values, is_mended)
            return _Regrown(None, "values", values)
        if not equal and is_lossless(self.encoder.steps):
            return _Regrown(None, "values", values)
        # Through a lossy filter other values may well become the original's bytes.
        encoded = self.encoder.encode(right, count, mask)
        if encoded is not None and piece["skip"]:
            skip = int(piece["skip"])
            encoded = encoded[skip : skip + int(piece["size"])]
        if encoded is not None and blake3(encoded).digest() == raw:
            return _Regrown(encoded, "encoded", values, is_mended)
        return _Regrown(None, "encoding" if equal else "values", values)

    def _read(self, start: tuple[int, ...], count: tuple[int, ...]) -> Bytes:
        with hdf5_errors(self.donor_path):
            return read_elements(self.donor, self.original.get_type(), start, count)


@dataclass(frozen=True)
class _Work:
    """One graft: where pieces come from and go to, and how many came which way."""

    skeleton: Skeleton
    mender: Mender | None
    witness: Witness | None
    mould: h5py.File
    donor: _Donor
    sink: _Sink
    done: Counter[str]
    spared: frozenset[str]
    spares: list[Spare]

    def graft_dataset(self, number: int) -> Iterator[DatasetMismatch]:
        """Put one dataset back; yield what differs."""
        dataset = self.skeleton.datasets[number]
        original = _open_original(self.mould, dataset)
        found = self.donor.find(dataset.path)
        mismatch = _structure_difference(dataset, original, found)
        if mismatch is not None:
            yield mismatch
            return
        with ExitStack() as stack:
            encoder = None
            if dataset.chunk_shape is not None:
                encoder = stack.enter_context(ChunkEncoder(original))
            with hdf5_errors(self.donor.path):
                require_filters(found.get_create_plist(), path=dataset.path)
                _, counts = self.skeleton.places_of(number)
                pair = _Pair(
                    original=original,
                    item_bytes=dataset.item_bytes,
                    donor=_with_cache(self.donor.file, found, dataset, counts),
                    donor_path=self.donor.path,
                    encoder=encoder,
                    same_grid=_has_grid(found, dataset),
                    mender=self.mender,
                )
            failed = self._graft_pieces(number, pair)
            note = _encoder_note(self.skeleton, dataset, encoder) if "encoding" in failed else ""
        for reason, places in failed.items():
            values = None
            if reason == "values" and self.witness is not None:
                values = self.witness.difference(dataset.path)
            yield DatasetMismatch(
                dataset.path,
                reason,
                pieces=len(places),
                of=dataset.n_pieces,
                first=places[0] if values is None else values.first,
                note=note if reason == "encoding" else "",
                values=values,
            )

    def _graft_pieces(self, number: int, pair: _Pair) -> dict[str, list[tuple[int, ...]]]:
        """Write the pieces of one dataset; return the starts of those that failed, by reason."""
        dataset = self.skeleton.datasets[number]
        starts, counts = self.skeleton.places_of(number)
        pieces = self.skeleton.pieces_of(number)
        first = self.skeleton.first_piece_of(number)
        failed: dict[str, list[tuple[int, ...]]] = {}
        rows = zip(starts.tolist(), counts.tolist(), pieces, strict=True)
        for row, (start, count, piece) in enumerate(rows, first):
            regrown = pair.regrow(row, tuple(start), tuple(count), piece)
            if regrown.data is None and regrown.how in self.spared:
                self.spares.append(Spare(number, tuple(start), tuple(count), int(piece["offset"])))
            elif regrown.data is None:
                failed.setdefault(regrown.how, []).append(tuple(start))
                if self.witness is not None and regrown.how == "values":
                    self.witness.compare(
                        dataset,
                        regrown.values,
                        number=row,
                        stored_bytes=int(piece["size"]),
                        start=start,
                        count=count,
                    )
            else:
                self.sink.write(int(piece["offset"]), regrown.data)
                self.done[regrown.how] += 1
                self.done["mended"] += regrown.is_mended
            self.sink.report(int(piece["size"]))
        return failed


def _structure_difference(
    dataset: SkeletonDataset, original: Any, found: Any
) -> DatasetMismatch | None:
    """Compare shape and type; None if the values can be compared."""

    def difference(reason: str, note: str) -> DatasetMismatch:
        return DatasetMismatch(dataset.path, reason, dataset.n_pieces, dataset.n_pieces, None, note)

    if found is None:
        return difference("missing", "missing")
    shape = tuple(found.shape)
    if shape != dataset.shape:
        return difference("shape", f"shape {shape}, was {dataset.shape}")
    expected, actual = original.get_type(), found.get_type()
    if not is_fixed_size(actual) or not same_values(expected, actual):
        return difference("dtype", f"type {found.dtype}, was {original.dtype}")
    return None


def _has_grid(found: Any, dataset: SkeletonDataset) -> bool:
    """Tell whether a dataset is chunked as the original was."""
    properties = found.get_create_plist()
    if properties.get_layout() != h5d.CHUNKED:
        return False
    return tuple(properties.get_chunk()) == dataset.chunk_shape


def _with_cache(file: h5py.File, found: Any, dataset: SkeletonDataset, counts: Any) -> Any:
    """Open a dataset again with a chunk cache that fits the order in which it will be read.

    Pieces are read in C order. A recomputed chunk is decoded once if the cache holds all chunks
    that a slab of pieces (equal first coordinate) touches.
    """
    properties = found.get_create_plist()
    if properties.get_layout() != h5d.CHUNKED or not len(counts):
        return found
    chunk = tuple(properties.get_chunk())
    item_bytes = found.get_type().get_size()
    spans = [_round_up(int(counts[:, 0].max()), chunk[0]) + chunk[0]]
    spans += [_round_up(n, c) for n, c in zip(dataset.shape[1:], chunk[1:], strict=True)]
    chunk_bytes = math.prod(chunk) * item_bytes
    slab_bytes = math.prod(spans) * item_bytes
    cache_bytes = max(_LEAST_CACHE_BYTES, min(slab_bytes, _MOST_CACHE_BYTES), chunk_bytes)
    wanted = 10 * (cache_bytes // chunk_bytes)
    slots = next((n for n in _HASH_SLOTS if n >= wanted), _HASH_SLOTS[-1])
    access = h5p.create(h5p.DATASET_ACCESS)
    access.set_chunk_cache(slots, cache_bytes, 0.75)
    return h5d.open(file.id, dataset.path.encode(), access)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def _encoder_note(
    skeleton: Skeleton, dataset: SkeletonDataset, encoder: ChunkEncoder | None
) -> str:
    """Say whether the compressor at hand is the one that the skeleton was made with."""
    if encoder is None or dataset.encoder is None:
        return ""
    names = "+".join(step.name for step in encoder.steps)
    if skeleton.encoders[dataset.encoder].fingerprint == encoder.fingerprint():
        return f"; {names} here is the one on record, so other options or another build made them"
    versions = ", ".join(f"{name} {number}" for name, number in skeleton.written_with.items())
    return (
        f"; {names} here is another build than the one on record ({versions or 'unknown'}): "
        "recall it with the Python that proved it, or with one that has these versions"
    )


@contextmanager
def _open_skeleton(target: Path) -> Iterator[h5py.File]:
    """Open the target, of which only metadata is there yet."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_hdf5(target))
        except InvalidInputError as error:
            raise damaged(f"what it retains is not the frame of an HDF5 file ({error})") from error
        yield file


def _open_original(mould: h5py.File, dataset: SkeletonDataset) -> Any:
    """Open a dataset of the original and check that the skeleton's table describes it."""
    try:
        original = h5d.open(mould.id, dataset.path.encode())
        agrees = (
            tuple(original.shape) == dataset.shape
            and original.get_type().get_size() == dataset.item_bytes
            and (dataset.chunk_shape is None or _has_grid(original, dataset))
        )
    except HDF5_ERRORS as error:
        raise damaged(f"{dataset.path} is not in what it retains ({error})") from error
    if not agrees:
        raise damaged(f"{dataset.path} is not what its table says")
    with hdf5_errors(Path(mould.filename)):
        require_filters(original.get_create_plist(), path=dataset.path)
    return original


def _mismatch(skeleton: Skeleton, differences: list[DatasetMismatch]) -> IntegrityError:
    paths = list(dict.fromkeys(one.path for one in differences))
    shown = "; ".join(str(one) for one in differences[:_NAMED_IN_MESSAGE])
    more = len(differences) - _NAMED_IN_MESSAGE
    tail = f"; and {more} more" if more > 0 else ""
    count = len(skeleton.datasets)
    verb = "differs" if len(paths) == 1 else "differ"
    return IntegrityError(
        f"{len(paths)} of {count} bulk datasets {verb}: {shown}{tail}",
        details={
            "expected": skeleton.sha256,
            "objects": [one.to_json() for one in differences],
        },
    )
