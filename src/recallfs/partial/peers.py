"""Parts that other users of this computer have fetched: read, verified anew, and never trusted.

Whatever they wrote may be changed at any moment, and the folders may lead anywhere. So nothing is
mapped or read in place, no symlink is followed, and a byte that fails its digest is not there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from recallfs.cache.cache import Cache
from recallfs.partial.index import Index

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Peers:
    """What other users have of one file.

    Parameters
    ----------
    cache : Cache
    key : str
        Under which its parts are kept.

    Notes
    -----
    Their maps are hints: what they say to be there is looked at, and what is wrong is passed over.
    """

    def __init__(self, cache: Cache, key: str) -> None:
        self._cache = cache
        self._key = key

    def parts(self, index: Index, units: npt.NDArray[np.int64]) -> Iterator[tuple[int, memoryview]]:
        """Iterate over those of the units that anybody has, and their bytes; all are verified."""
        if index.digests is None:
            return
        left = units
        for top in self._cache.peers():
            if not len(left):
                return
            taken = set()
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                data, marks = self._opened(top, index, stack)
                for unit in left.tolist():
                    if os.pread(marks, 1, unit) in (b"", b"\0"):
                        continue
                    start = index.start_of(unit)
                    found = os.pread(data, index.stop_of(unit) - start, start)
                    if index.is_right(unit, found):
                        taken.add(unit)
                        yield unit, memoryview(found)
            left = left[[unit not in taken for unit in left.tolist()]]

    def _opened(self, top: int, index: Index, stack: contextlib.ExitStack) -> tuple[int, int]:
        """Open data and map of a user's folder, going down step by step."""

        def opened(name: str, flags: int, within: int) -> int:
            descriptor = os.open(name, flags, dir_fd=within)
            stack.callback(os.close, descriptor)
            return descriptor

        folder = top
        for name in ("blocks", self._key[:2], self._key):
            folder = opened(name, _FOLDER, folder)
        files = []
        for name, size in (("data", index.size_bytes), ("map", len(index))):
            file = opened(name, _FILE, folder)
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                raise FileNotFoundError(name)
            files.append(file)
        return files[0], files[1]
