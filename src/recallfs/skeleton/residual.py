"""The bits in which recomputed values differ from the original's, and their form, ``rsd1``."""

from __future__ import annotations

import re
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import zstandard
from blake3 import blake3

from recallfs.atomic import open_record, said_if_full
from recallfs.hdf5.access import Bytes
from recallfs.skeleton import container
from recallfs.skeleton.container import damaged, tables_fit

MAGIC = b"\x89RSD\r\n\x1a\n"
"""The first bytes of a residual; as in PNG, a transfer that mends line ends breaks them."""

VERSION = 1

_ROW_BYTES = 48
"""What the tables take per piece."""

_COMPRESSION_LEVEL = 1  # higher ones gain nothing on the low bytes of noise
_SLACK_BYTES = 1024  # more than what a frame adds to what cannot be compressed
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class Residual:
    """What turns the values of one derivation, in one environment, into the original's.

    Parameters
    ----------
    path : Path
        Of the ``rsd1`` record, which holds the frames: per piece the exclusive or of both
        elements' bytes, shuffled, as one zstd frame.
    sha256 : str
        Of the original file.
    skeleton : str
        BLAKE3 of the ``rsk1`` record whose pieces are meant, hexadecimal.
    derivation_id : str
        Of the derivation that gave the recomputed values.
    pieces : ndarray of uint64, shape (n_pieces,)
        Row numbers in `Skeleton.pieces`, ascending.
    recomputed : ndarray of uint8, shape (n_pieces, 32)
        BLAKE3 of the recomputed elements: those of another run are left alone.
    sizes : ndarray of uint64, shape (n_pieces,)
        Lengths of the frames, in bytes.
    """

    path: Path
    sha256: str
    skeleton: str
    derivation_id: str
    pieces: npt.NDArray[np.uint64] = field(repr=False)
    recomputed: npt.NDArray[np.uint8] = field(repr=False)
    sizes: npt.NDArray[np.uint64] = field(repr=False)
    _record: container.Record = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> Residual:
        """Read the tables of an ``rsd1`` record, after checking its digest.

        Raises
        ------
        IntegrityError
            Kind ``damaged-record``.
        SchemaVersionError
            If a newer recallfs wrote it.

        Notes
        -----
        Holds 48 bytes a piece, and nothing of the frames.
        """
        with open_record(path) as file:
            record = container.Record.read(MAGIC, VERSION, file)
            with tables_fit():
                digests = record.section(file, "recomputed-digests")
                residual = cls(
                    path=path,
                    sha256=str(record.header["sha256"]),
                    skeleton=str(record.header["skeleton"]),
                    derivation_id=str(record.header["derivation_id"]),
                    pieces=np.frombuffer(record.section(file, "pieces"), dtype="<u8"),
                    recomputed=np.frombuffer(digests, np.uint8).reshape(-1, 32),
                    sizes=np.frombuffer(record.section(file, "frame-sizes"), dtype="<u8"),
                    _record=record,
                )
                residual.check()
        return residual

    @contextmanager
    def mending(self) -> Iterator[Mender]:
        """Open the frames; see `Mender`."""
        with open_record(self.path) as file:
            yield Mender(self, file)

    def check(self) -> None:
        """Check that the tables fit together.

        Raises
        ------
        IntegrityError
            Kind ``damaged-record``.
        """
        if not (_SHA256.fullmatch(self.sha256) and _SHA256.fullmatch(self.skeleton)):
            raise damaged("it does not say which file it belongs to")
        if not len(self.pieces) == len(self.recomputed) == len(self.sizes):
            raise damaged("its tables are not of one length")
        if (self.pieces[1:] <= self.pieces[:-1]).any():
            raise damaged("its pieces are not in order")
        if self.sizes.sum(dtype=object) != self._record.places["frames"].plain_bytes:
            raise damaged("its frames are not of the length they should be")


class Mender:
    """Applies a residual's frames, of which one at a time is held.

    Parameters
    ----------
    residual : Residual
    file : binary file
        Its record.

    Notes
    -----
    Quick where pieces are asked for in ascending order; to go back is to read from the beginning.
    """

    def __init__(self, residual: Residual, file: IO[bytes]) -> None:
        self._residual = residual
        self._file = file
        self._starts = np.cumsum(residual.sizes, dtype=np.uint64) - residual.sizes
        self._stream: Any = None
        self._decompressor = zstandard.ZstdDecompressor()

    def mend(self, number: int, recomputed: Bytes, item_bytes: int) -> Bytes | None:
        """Turn the recomputed elements of a piece into the original's.

        Parameters
        ----------
        number : int
            The piece's row in `Skeleton.pieces`.
        recomputed : Bytes
            As the original's own type has them.
        item_bytes : int
            Size of an element.

        Returns
        -------
        Bytes or None
            None if nothing is kept of the piece, or these are not the elements it was kept for.
        """
        kept = self._residual
        row = int(np.searchsorted(kept.pieces, np.uint64(number)))
        if row == len(kept.pieces) or kept.pieces[row] != number:
            return None
        if blake3(recomputed.data).digest() != kept.recomputed[row].tobytes():
            return None
        size = int(kept.sizes[row])
        # What a frame or a table says must not decide how much memory is asked for.
        if size > len(recomputed) + len(recomputed) // 64 + _SLACK_BYTES:
            raise damaged("a frame is longer than its piece can need")
        try:
            frame = self._frame(int(self._starts[row]), size)
            if zstandard.frame_content_size(frame) != len(recomputed):
                raise damaged("a piece is not as long as its elements")
            difference = np.frombuffer(self._decompressor.decompress(frame), np.uint8)
        except zstandard.ZstdError as error:
            raise damaged(f"a piece cannot be read ({error})") from error
        return recomputed ^ difference.reshape(item_bytes, -1).T.reshape(-1)

    def _frame(self, start: int, size: int) -> bytes:
        if self._stream is None or self._stream.tell() > start:
            self._stream = self._residual._record.stream(self._file, "frames")
        self._stream.seek(start)
        return bytes(self._stream.read(size))


class ResidualWriter:
    """Collects a residual piece by piece, and gives up keeping it once it is too large.

    Parameters
    ----------
    max_fraction : float
        Largest size, as a fraction of the bytes that the pieces concerned take in the file.
    file_bytes : int
        Size of the file: what exceeds that fraction even of it is not kept.
    folder : Path
        Private. Frames are written to it, in a file without a name.

    Attributes
    ----------
    concerned_bytes : int
        What the pieces concerned take in the file.
    size_bytes : int
        What the residual takes, about.

    Notes
    -----
    Holds a few pieces, and 48 bytes of each piece taken in. Close it.
    """

    def __init__(self, max_fraction: float, file_bytes: int, folder: Path) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL, write_checksum=False)
        self._budget = int(max_fraction * file_bytes)
        self._is_kept = True
        self._max_fraction = max_fraction
        self._folder = folder
        self._pieces = array("Q")
        self._sizes = array("Q")
        self._digests = bytearray()
        self._frames = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self.concerned_bytes = 0
        self.size_bytes = 0

    def close(self) -> None:
        """Throw the frames away."""
        self._frames.close()

    @property
    def is_too_large(self) -> bool:
        """Whether what would be kept exceeds the limit."""
        return not self._is_kept or self.size_bytes > self._max_fraction * self.concerned_bytes

    def add(
        self,
        number: int,
        original: Bytes,
        recomputed: Bytes,
        *,
        stored_bytes: int,
        item_bytes: int,
    ) -> None:
        """Take in the next piece.

        Parameters
        ----------
        number : int
            Its row in the skeleton; rows come in ascending order.
        original, recomputed : Bytes
            Its elements, both of the original's type.
        stored_bytes : int
            What it takes in the file.
        item_bytes : int
            Size of an element.

        Raises
        ------
        SourceError
            Kind ``no-space``.
        """
        shuffled = np.ascontiguousarray((original ^ recomputed).reshape(-1, item_bytes).T)
        frame = self._compressor.compress(shuffled.data)
        self._pieces.append(number)
        self._digests += blake3(recomputed.data).digest()
        self._sizes.append(len(frame))
        self.concerned_bytes += stored_bytes
        self.size_bytes += len(frame) + _ROW_BYTES
        if self.size_bytes > self._budget:
            # Too large whatever follows; from now on only its size is of interest.
            self._is_kept = False
            self._frames.truncate(0)
        else:
            with said_if_full(self._folder):
                self._frames.write(frame)

    def finish(self, path: Path, *, sha256: str, skeleton: str, derivation_id: str) -> Residual:
        """Write the residual as an ``rsd1`` record.

        Parameters
        ----------
        path : Path
            Of the record; must not exist.
        sha256 : str
            Of the original.
        skeleton : str
            BLAKE3 of the skeleton's record, hexadecimal.
        derivation_id : str

        Raises
        ------
        SourceError
            Kind ``no-space``.
        """
        if self.is_too_large:
            raise AssertionError("a residual above its limit is not kept")
        header = {
            "format": "rsd1",
            "requires": [],
            "sha256": sha256,
            "skeleton": skeleton,
            "derivation_id": derivation_id,
        }
        sections: dict[str, bytes | IO[bytes]] = {
            "pieces": np.array(self._pieces, dtype="<u8").tobytes(),
            "recomputed-digests": bytes(self._digests),
            "frame-sizes": np.array(self._sizes, dtype="<u8").tobytes(),
            "frames": self._frames,
        }
        with said_if_full(self._folder), path.open("xb") as target:
            container.write(target, MAGIC, VERSION, header, sections, folder=self._folder)
        return Residual.open(path)
