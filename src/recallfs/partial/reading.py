"""A file that is read without being here: what is read is fetched, verified and kept."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recallfs.errors import InvalidInputError, RecallError, SourceError
from recallfs.partial import selections
from recallfs.partial.blocks import BlockFile
from recallfs.partial.index import BLOCKS, CHUNKS, PAGES, Index
from recallfs.partial.peers import Peers
from recallfs.partial.prefetch import Ahead
from recallfs.partial.quiet import holds_h5py, no_collection
from recallfs.partial.ranges import Ranges

if TYPE_CHECKING:
    import h5py

_LOOSE_BYTES = 64 * 1024 * 1024
"""How much is held in memory where nothing can be kept on the disk."""

_PATIENCE_S, _UNDER_LOCK_S = 60.0, 5.0
"""How long to wait for another who fetches the same; less with h5py's lock held, which that one, as
a thread of this process, might wait for."""

_METADATA_BYTES = 4096
"""The longest read of metadata that HDF5 makes without knowing how long they are."""

_BATCH_BYTES, _COMPLETING_BYTES = 64 * 1024 * 1024, 16 * 1024 * 1024
"""How much is fetched before it is verified and kept: for who reads, and where nobody waits."""

CHECKS = {
    CHUNKS: "verified chunk by chunk",
    BLOCKS: "verified by blocks of 4 MiB",
    PAGES: "unverified: only the ETag tells that it is the same object",
}
"""What is said of each kind of units."""

_open_files: weakref.WeakValueDictionary[bytes, PartialFile] = weakref.WeakValueDictionary()


class PartialFile(io.RawIOBase):
    """A file of which only what is read is fetched; a binary file object for reading.

    Parameters
    ----------
    name : str
        Where the file belongs, or its URL.
    index : Index
    ranges : Ranges
        Where bytes that are not here are fetched.
    blocks : BlockFile, optional
        Where they are kept; without it in memory, as far as they have room.
    bring_whole : callable, optional
        Brings the file back whole where no source gives parts of it, and returns its path; given
        why none does, which it raises if there is nothing else to try.
    retained : callable, optional
        Gives the bytes of a unit that a skeleton retains.
    peers : Peers, optional
        Other users, who may have parts.
    for_hdf5 : bool
        Whether HDF5 itself is the reader. It looks at metadata by reading somewhat more than they
        may be; what is bulk data of that it never looks at, and gets zeros for.

    Attributes
    ----------
    size : int
        Length in bytes.
    check : str
        How bytes are verified, in words.
    is_verified : bool
        Whether they are.
    least_bytes : int
        How much to fetch at least where anything is missing; 0 to begin with.

    Notes
    -----
    Synchronous: no thread of it lives longer than a read. A read gives all that was asked for up
    to the file's end, or raises. For any number of threads, each with a position of its own only
    through `read_at`.
    """

    def __init__(
        self,
        name: str,
        index: Index,
        ranges: Ranges,
        *,
        blocks: BlockFile | None = None,
        bring_whole: Callable[[RecallError], Path] | None = None,
        retained: Callable[[int], bytes] | None = None,
        peers: Peers | None = None,
        for_hdf5: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.size = index.size_bytes
        self.check = CHECKS[index.kind]
        self.is_verified = index.kind != PAGES
        self.index = index
        self.ranges = ranges
        self.blocks = blocks
        self._bring_whole = bring_whole
        self._retained = retained
        self._peers = peers
        self._for_hdf5 = for_hdf5
        self._position = 0
        self._native = -1
        self._loose: dict[int, bytes] = {}
        self._loose_bytes = 0
        self._lock = threading.Lock()
        self._ahead = Ahead()
        self.least_bytes = 0
        self.token = name.encode("ascii", "replace")  # as h5py spells it
        self._is_attached = bool(index.datasets)
        _open_files[self.token] = self
        if self._is_attached:
            selections.attach(_open_files.get)

    def __repr__(self) -> str:
        return self.name  # h5py takes it for the file's name

    # -- the face of a file --------------------------------------------------------------------

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position; it may lie past the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise InvalidInputError(f"{self.name}: a position cannot be negative.")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on; less than it holds only at the file's end."""
        with memoryview(buffer).cast("B") as view:
            count = max(0, min(len(view), self.size - self._position))
            if count < len(view) and self._for_hdf5:
                # HDF5 would take what is missing for zeros.
                raise InvalidInputError(
                    f"{self.name} has {self.size} bytes; bytes up to "
                    f"{self._position + len(view)} were asked for. Is it a whole HDF5 file?",
                    kind="not-hdf5",
                )
            if count:
                known = self._known_bytes(self._position, count) if self._for_hdf5 else count
                self._fill(self._position, view[:known])
                view[known:count] = bytes(count - known)
            self._position += count
            return count

    def read(self, size: int | None = -1) -> bytes:
        """Read from the position on, by default to the end."""
        stop = self.size if size is None or size < 0 else self._position + size
        data = self.read_at(self._position, stop)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        """Read from the position to the end."""
        return self.read()

    def close(self) -> None:
        """Close it; what was fetched is kept for whoever opens the file next."""
        if self.closed:
            return
        super().close()
        if _open_files.get(self.token) is self:
            del _open_files[self.token]
        if self._is_attached:
            selections.detach()
        if self.blocks is not None:
            self.blocks.close()
        if self._native >= 0:
            os.close(self._native)
            self._native = -1
        self._loose.clear()

    # -- reading -------------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self.size

    def read_at(self, start: int, stop: int) -> bytes:
        """Read bytes `start` to `stop` (not included), as far as the file goes.

        Raises
        ------
        IntegrityError
            Bytes are wrong wherever they are; they are named, and not handed out.
        RecallError
            They are nowhere to be had.
        """
        start, stop = max(0, start), min(stop, self.size)
        if stop <= start:
            return b""
        buffer = bytearray(stop - start)
        self._fill(start, memoryview(buffer))
        return bytes(buffer)

    def cat_ranges(self, ranges: Iterable[tuple[int, int]]) -> list[bytes]:
        """Read several ranges with as few requests as it takes."""
        wanted = [(max(0, start), min(stop, self.size)) for start, stop in ranges]
        self.prefetch_ranges(wanted)
        return [self.read_at(start, stop) for start, stop in wanted]

    def prefetch_ranges(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch ranges that will be read next, together."""
        units = [
            np.arange(self.index.unit_at(start), self.index.unit_at(stop - 1) + 1)
            for start, stop in ranges
            if stop > start
        ]
        if units:
            self.prefetch(np.unique(np.concatenate(units)))

    def prefetch(self, units: npt.NDArray[np.int64]) -> None:
        """Fetch units that will be read next, together, as far as they can be held."""
        self._refuse_closed()
        if self._native >= 0:
            return
        missing = self._missing(np.unique(units))
        for batch in self._batches(missing):
            self._bring(batch)
            if self._native >= 0 or self._loose:
                break  # more would only push out what was fetched

    def complete(self) -> None:
        """Fetch all that is missing, as far as it can be kept."""
        self._refuse_closed()
        step = 4096
        for begin in range(0, len(self.index), step):
            missing = self._missing(np.arange(begin, min(begin + step, len(self.index))))
            # By little at once: somebody who reads meanwhile waits for what is being fetched.
            for batch in self._batches(missing, _COMPLETING_BYTES):
                if self._native >= 0 or self._loose:
                    return
                self._bring(batch)

    def _known_bytes(self, start: int, count: int) -> int:
        """Return how many of the bytes that HDF5 asks for it will look at.

        What begins in what a skeleton retains, is short, and runs into a chunk, or into the
        beginning of data in one piece, is metadata: data are read from their own first byte on.
        """
        if count > _METADATA_BYTES or self._native >= 0:
            return count
        first, last = self.index.unit_at(start), self.index.unit_at(start + count - 1)
        if first == last or not self.index.is_retained[first]:
            return count
        for unit in range(first + 1, last + 1):
            if not self.index.is_retained[unit]:
                is_ours = bool(self.index.begins[unit]) and self._here(unit) is None
                return self.index.start_of(unit) - start if is_ours else count
        return count

    def _fill(self, start: int, out: memoryview) -> None:
        """Fill a buffer with bytes of the file, which has as many."""
        self._refuse_closed()
        stop = start + len(out)
        if self._native < 0:
            first, last = self.index.unit_at(start), self.index.unit_at(stop - 1)
            if self.blocks is not None and self.blocks.read_checked(first, last, start, out):
                return
            pending = []
            for unit in range(first, last + 1):
                data = self._here(unit)
                if data is None:
                    pending.append(unit)
                else:
                    self._copy(unit, data, start, out)
            for batch in self._batches(np.array(pending, dtype=np.int64)):
                if self._native >= 0:
                    break
                for unit, fetched in self._bring(batch).items():
                    self._copy(unit, fetched, start, out)
        if self._native >= 0:
            self._read_native(start, out)

    def _copy(self, unit: int, data: bytes | memoryview, start: int, out: memoryview) -> None:
        begin = self.index.start_of(unit)
        low, high = max(begin, start), min(begin + len(data), start + len(out))
        if low < high:
            out[low - start : high - start] = data[low - begin : high - begin]

    def _here(self, unit: int) -> bytes | None:
        """Return a unit that needs not be fetched."""
        data = self._loose.get(unit)
        if data is not None:
            return data
        if self.blocks is not None:
            data = self.blocks.load(unit)
            if data is not None:
                return data
        if self._retained is not None and self.index.is_retained[unit]:
            data = self._retained(unit)
            self._keep({unit: memoryview(data)})
            return data
        return None

    def _missing(self, units: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if self.blocks is not None:
            units = self.blocks.missing(units)
        return units[[unit not in self._loose for unit in units.tolist()]]

    def _batches(
        self, units: npt.NDArray[np.int64], most_bytes: int = _BATCH_BYTES
    ) -> Iterable[npt.NDArray[np.int64]]:
        """Cut units into batches that may be held in memory."""
        begin = total = 0
        for number, unit in enumerate(units.tolist()):
            size = self.index.stop_of(unit) - self.index.start_of(unit)
            if total + size > most_bytes and number > begin:
                yield units[begin:number]
                begin, total = number, 0
            total += size
        if begin < len(units):
            yield units[begin:]

    # -- fetching ------------------------------------------------------------------------------

    def _bring(self, units: npt.NDArray[np.int64]) -> dict[int, memoryview]:
        """Fetch units, ascending, and what is likely to be read next; keep and return them."""
        try:
            with no_collection():
                return self._bring_parts(self._with_more(units))
        except RecallError as error:
            if self._bring_whole is None:
                raise
            self._go_native(self._bring_whole(error))
            return {}

    def _bring_parts(self, wanted: npt.NDArray[np.int64]) -> dict[int, memoryview]:
        if self.blocks is None:
            return self._fetched(wanted)
        brought: dict[int, memoryview] = {}
        with self.blocks.claim(wanted) as mine:
            if len(mine):
                brought = self._fetched(mine)
        left = [unit for unit in wanted.tolist() if unit not in brought]
        if left:
            self.blocks.await_others(left, _UNDER_LOCK_S if holds_h5py() else _PATIENCE_S)
            again = []
            for unit in left:
                data = self._here(unit)
                if data is None:
                    again.append(unit)
                else:
                    brought[unit] = memoryview(data)
            if again:  # whoever fetched them has died, or could not keep them
                brought |= self._fetched(np.array(again, dtype=np.int64))
        return brought

    def _with_more(self, units: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Add units behind those that are wanted, where reads follow one another."""
        first, last = int(units[0]), int(units[-1])
        size = self.index.stop_of(last) - self.index.start_of(first)
        more = max(self._ahead.after(first, last, size), self.least_bytes - size)
        end = last
        stop = self.index.stop_of(last)
        while end + 1 < len(self.index) and self.index.stop_of(end + 1) - stop <= more:
            end += 1
        self._ahead.went(end)
        added = self._missing(np.arange(last + 1, end + 1, dtype=np.int64))
        return np.concatenate((units, added)) if len(added) else units

    def _fetched(self, units: npt.NDArray[np.int64]) -> dict[int, memoryview]:
        """Fetch units and keep them; nothing comes back that was not verified."""
        landed: dict[int, memoryview] = {}

        def land(unit: int, data: memoryview) -> bool:
            if not self.index.is_right(unit, data):
                return False
            landed[unit] = data
            return True

        if self._peers is not None:
            landed.update(self._peers.parts(self.index, units))
        try:
            left = [unit for unit in units.tolist() if unit not in landed]
            if left:
                self.ranges.fetch(self.index, left, land)
        finally:
            self._keep(landed)
        return landed

    def _keep(self, units: dict[int, memoryview]) -> None:
        ordered: Sequence[tuple[int, memoryview]] = sorted(units.items())
        if self.blocks is not None and self.blocks.keep(ordered):
            return
        # No lock: a collection of garbage may begin where one is held, and wait for a reader.
        for unit, data in ordered:
            self._loose[unit] = bytes(data)
            self._loose_bytes += len(data)
        while self._loose_bytes > _LOOSE_BYTES and len(self._loose) > 1:
            with contextlib.suppress(KeyError, RuntimeError, StopIteration):
                self._loose_bytes -= len(self._loose.pop(next(iter(self._loose))))

    def _go_native(self, place: Path) -> None:
        """Read on from the whole file, which was brought back."""
        native = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(native).st_size != self.size:
            os.close(native)
            raise SourceError(
                f"{self.name} came back as other bytes than it was opened with; open it anew.",
            )
        with self._lock:
            if self._native < 0:
                self._native, native = native, -1
        if native >= 0:
            os.close(native)

    def _read_native(self, start: int, out: memoryview) -> None:
        done = 0
        while done < len(out):
            data = os.pread(self._native, len(out) - done, start + done)
            if not data:
                raise SourceError(f"{self.name} ends at byte {start + done}: it was changed.")
            out[done : done + len(data)] = data
            done += len(data)

    def _refuse_closed(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")


def file_of(file: h5py.File) -> PartialFile | None:
    """Return what is read in parts below an `h5py.File`; None if it is a native file."""
    from h5py import h5f, h5fd

    if file.id.get_access_plist().get_driver() != h5fd.fileobj_driver:
        return None
    return _open_files.get(h5f.get_name(file.id))
