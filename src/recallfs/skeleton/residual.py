"""The bits in which recomputed values differ from the original's, and their form, ``rsd1``."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import zstandard
from blake3 import blake3

from recallfs.errors import IntegrityError
from recallfs.hdf5.access import Bytes
from recallfs.skeleton import container
from recallfs.skeleton.container import damaged

MAGIC = b"\x89RSD\r\n\x1a\n"
"""The first bytes of a residual; as in PNG, a transfer that mends line ends breaks them."""

VERSION = 1

MAXIMUM_BYTES = 1024**3
"""A residual is held in memory; above this a file has none."""

_ROW_BYTES = 48
"""What the tables take per piece."""

_COMPRESSION_LEVEL = 1  # higher ones gain nothing on the low bytes of noise
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class Residual:
    """What turns the values of one derivation, in one environment, into the original's.

    Parameters
    ----------
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
    frames : bytes
        Per piece the exclusive or of both elements' bytes, shuffled, as one zstd frame.
    """

    sha256: str
    skeleton: str
    derivation_id: str
    pieces: npt.NDArray[np.uint64] = field(repr=False)
    recomputed: npt.NDArray[np.uint8] = field(repr=False)
    sizes: npt.NDArray[np.uint64] = field(repr=False)
    frames: bytes = field(repr=False)

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
        row = self._rows.get(number)
        if row is None or blake3(recomputed.data).digest() != self.recomputed[row].tobytes():
            return None
        end = int(self._ends[row])
        frame = memoryview(self.frames)[end - int(self.sizes[row]) : end]
        # The frame's own header would otherwise decide how much memory is asked for.
        if zstandard.frame_content_size(frame) != len(recomputed):
            raise damaged("a piece is not as long as its elements")
        try:
            difference = np.frombuffer(zstandard.ZstdDecompressor().decompress(frame), np.uint8)
        except zstandard.ZstdError as error:
            raise damaged(f"a piece cannot be read ({error})") from error
        return recomputed ^ difference.reshape(item_bytes, -1).T.reshape(-1)

    def to_bytes(self) -> bytes:
        """Encode as an ``rsd1`` record."""
        header = {
            "format": "rsd1",
            "requires": [],
            "sha256": self.sha256,
            "skeleton": self.skeleton,
            "derivation_id": self.derivation_id,
        }
        sections = {
            "pieces": self.pieces.astype("<u8").tobytes(),
            "recomputed-digests": self.recomputed.tobytes(),
            "frame-sizes": self.sizes.astype("<u8").tobytes(),
            "frames": self.frames,
        }
        return container.pack(MAGIC, VERSION, header, sections)

    @classmethod
    def from_bytes(cls, record: bytes) -> Residual:
        """Decode an ``rsd1`` record.

        Raises
        ------
        IntegrityError
            Kind ``damaged-record``.
        SchemaVersionError
            If a newer recallfs wrote it.
        """
        header, sections = container.unpack(MAGIC, VERSION, record)
        try:
            residual = cls(
                sha256=str(header["sha256"]),
                skeleton=str(header["skeleton"]),
                derivation_id=str(header["derivation_id"]),
                pieces=np.frombuffer(sections["pieces"], dtype="<u8"),
                recomputed=np.frombuffer(sections["recomputed-digests"], np.uint8).reshape(-1, 32),
                sizes=np.frombuffer(sections["frame-sizes"], dtype="<u8"),
                frames=sections["frames"],
            )
            residual.check()
        except IntegrityError:
            raise
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise damaged(f"its tables do not fit together ({error!r})") from error
        return residual

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
        if self.sizes.sum(dtype=object) != len(self.frames):
            raise damaged("its frames are not of the length they should be")

    @functools.cached_property
    def _rows(self) -> dict[int, int]:
        return {number: row for row, number in enumerate(self.pieces.tolist())}

    @functools.cached_property
    def _ends(self) -> npt.NDArray[np.uint64]:
        return np.cumsum(self.sizes, dtype=np.uint64)


class ResidualWriter:
    """Collects a residual piece by piece, and gives up holding it once it is too large.

    Parameters
    ----------
    max_fraction : float
        Largest size, as a fraction of the bytes that the pieces concerned take in the file.
    file_bytes : int
        Size of the file: what exceeds that fraction even of it is not held.

    Attributes
    ----------
    concerned_bytes : int
        What the pieces concerned take in the file.
    size_bytes : int
        What the residual takes, about.
    """

    def __init__(self, max_fraction: float, file_bytes: int) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL, write_checksum=False)
        self._budget = min(int(max_fraction * file_bytes), MAXIMUM_BYTES)
        self._is_held = True
        self._max_fraction = max_fraction
        self._pieces: list[int] = []
        self._digests: list[bytes] = []
        self._sizes: list[int] = []
        self._frames: list[bytes] = []
        self.concerned_bytes = 0
        self.size_bytes = 0

    @property
    def is_too_large(self) -> bool:
        """Whether what would be kept exceeds the limit."""
        return not self._is_held or self.size_bytes > self._max_fraction * self.concerned_bytes

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
        """
        shuffled = np.ascontiguousarray((original ^ recomputed).reshape(-1, item_bytes).T)
        # Copied, since what the compressor returns still holds the memory of the worst case.
        frame = bytes(memoryview(self._compressor.compress(shuffled.data)))
        self._pieces.append(number)
        self._digests.append(blake3(recomputed.data).digest())
        self._sizes.append(len(frame))
        self.concerned_bytes += stored_bytes
        self.size_bytes += len(frame) + _ROW_BYTES
        if self.size_bytes > self._budget:
            # Too large whatever follows; from now on only its size is of interest.
            self._is_held = False
            self._frames.clear()
        else:
            self._frames.append(frame)

    def finish(self, *, sha256: str, skeleton: str, derivation_id: str) -> Residual:
        """Return the residual.

        Parameters
        ----------
        sha256 : str
            Of the original.
        skeleton : str
            BLAKE3 of the skeleton's record, hexadecimal.
        derivation_id : str
        """
        if self.is_too_large:
            raise AssertionError("a residual above its limit is not held")
        frames = b"".join(self._frames)
        self._frames.clear()  # not to hold them twice
        return Residual(
            sha256=sha256,
            skeleton=skeleton,
            derivation_id=derivation_id,
            pieces=np.array(self._pieces, dtype=np.uint64),
            recomputed=np.frombuffer(b"".join(self._digests), dtype=np.uint8).reshape(-1, 32),
            sizes=np.array(self._sizes, dtype=np.uint64),
            frames=frames,
        )


_ROW_BYTES = 48
"""What the tables take per piece."""
