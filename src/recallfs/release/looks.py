"""Looking at many files, beside what else is to be found out about them."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, cast

MANY = 20_000
"""Of fewer files a process of its own takes longer to start than it saves."""

_FORM = "=IQQQqqqdd"
_CODE = f"""
import os, struct, sys
pack, look = struct.Struct({_FORM!r}).pack, os.lstat
os.chdir(sys.argv[1])
answers = []
for path in sys.stdin.buffer.read().split(b"\\0"):
    try:
        s = look(path)
    except OSError:
        answers.append(pack(*[0] * 9))
        continue
    answers.append(pack(s.st_mode, s.st_dev, s.st_ino, s.st_nlink, s.st_size, s.st_mtime_ns,
                        s.st_ctime_ns, s.st_atime, s.st_ctime))
sys.stdout.buffer.write(b"".join(answers))
"""


class Look(NamedTuple):
    """What `os.lstat` says of a file, as far as a release asks."""

    st_mode: int
    st_dev: int
    st_ino: int
    st_nlink: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_atime: float
    st_ctime: float


Status = os.stat_result | Look
"""What was seen of a file."""


class Looks:
    """A look at each of several files; of many it begins at once, in a process of its own.

    Parameters
    ----------
    paths : sequence of str
        Relative to the root.
    is_beside : bool, optional
        Whether a process of its own looks; by default where there are `MANY`. If that fails, this
        one does.

    Notes
    -----
    A thread would not do: it would wait for this one after each look.
    """

    def __init__(self, root: Path, paths: Sequence[str], *, is_beside: bool | None = None) -> None:
        self._root, self._paths = root, paths
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: IO[bytes] | None = None
        if (len(paths) >= MANY) if is_beside is None else is_beside:
            with contextlib.suppress(OSError):
                self._start()

    def __enter__(self) -> Looks:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._answers is not None:
            self._answers.close()

    def __iter__(self) -> Iterator[Status | None]:
        """Iterate over what was seen of each file: None if that is not there."""
        answers = self._finish()
        if answers is None:
            return map(look, map(f"{self._root}/".__add__, self._paths))
        # What `Look` does, of which there is one call for each of so many files.
        new = tuple.__new__
        return (new(Look, values) if values[0] else None for values in answers)

    def _start(self) -> None:
        if not sys.executable or getattr(sys, "frozen", False):
            return  # what runs is not Python itself
        # Files, as a pipe is full after a few hundred.
        self._answers = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        with tempfile.TemporaryFile() as asked:
            asked.write(os.fsencode("\0".join(self._paths)))
            asked.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _CODE, self._root],
                stdin=asked,
                stdout=self._answers,
                stderr=subprocess.DEVNULL,
            )

    def _finish(self) -> Iterator[tuple[int, ...]] | None:
        """Return the answers, once they are all there; None if they never will be."""
        if self._process is None or self._answers is None or self._process.wait():
            return None
        self._answers.seek(0)
        content = self._answers.read()
        if len(content) != len(self._paths) * struct.calcsize(_FORM):
            return None
        return cast("Iterator[tuple[int, ...]]", struct.iter_unpack(_FORM, content))


def look_of(status: Status) -> Look:
    """Return what matters here of what `os.lstat` said."""
    return Look._make(getattr(status, name) for name in Look._fields)


def look(path: str) -> os.stat_result | None:
    """Return what `os.lstat` says of a file; None if it is not there."""
    try:
        return os.lstat(path)
    except OSError:
        return None
