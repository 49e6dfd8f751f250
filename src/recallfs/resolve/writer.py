"""Writing through the filesystem: digested as it streams, in place only when closed whole."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

from recallfs.atomic import is_full, no_space
from recallfs.catalog.store import Store
from recallfs.digest.stream import StreamDigester
from recallfs.errors import ConflictError, InvalidInputError
from recallfs.resolve import tree
from recallfs.resolve.commit import commit_new
from recallfs.resolve.presence import has_bytes
from recallfs.values import BLOCK_BYTES, Entry, State, normalise_path


class StagedFile(io.RawIOBase):
    """A file that is being written: digested as it streams, and there only when closed whole.

    Parameters
    ----------
    store : Store
    path : str
        In the store.
    mode : {"wb", "xb", "ab"}
    start : Path, optional
        File whose bytes come first, for ``ab``.
    autocommit : bool
        Whether closing puts the file in place; else `commit` does, as in fsspec's transactions.

    Raises
    ------
    ConflictError
        The path is taken (``xb``), or its entry is pinned or needed by released files.
    """

    def __init__(
        self,
        store: Store,
        path: str,
        mode: str,
        *,
        start: Path | None = None,
        autocommit: bool = True,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.path = f"{store.name}/{path}"
        self._store = store
        self._relative = normalise_path(path)
        self._autocommit = autocommit
        self._is_done = True  # nothing to discard yet, should the checks below refuse
        self._is_abandoned = False
        self._known_error = sys.exc_info()[1]  # we may be opened while one is being handled
        self._size = 0
        target = store.locate(path)
        if target.is_dir():
            raise IsADirectoryError(store.url(path))
        self._refuse_if_needed()
        self._scratch = store.staging()
        self._staged = self._scratch.__enter__() / "data"
        self._digester = StreamDigester()
        self._is_done = False
        try:
            self._file = self._staged.open("xb")
            if start is not None:
                self._copy_from(start)
        except BaseException:
            self.discard()
            raise

    def _refuse_if_needed(self) -> None:
        """Refuse to write where something is that must not be replaced."""
        entry = self._store.catalog.entry_at(self._relative)
        occupied = entry is not None or has_bytes(self._store.locate(self._relative))
        if self.mode == "xb" and occupied:
            raise ConflictError(f"{self._store.url(self._relative)} exists.")
        if entry is not None:
            self._refuse(entry)

    def _refuse(self, entry: Entry) -> None:
        if entry.state is State.RELEASED:
            raise ConflictError(
                f"{self._store.url(self._relative)} is released; what you write would take the "
                "place of something that can come back. `recall forget` it, or `recall get` it "
                "first.",
                details={"path": self._relative},
            )
        tree.refuse_if_needed(self._store, entry)

    def _copy_from(self, place: Path) -> None:
        with place.open("rb") as source:
            while block := source.read(BLOCK_BYTES):
                self.write(block)

    def writable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._size

    def write(self, data: Any) -> int:
        """Write bytes; a full disk is said as such."""
        if self._is_abandoned:
            return len(data)  # what the wrapper had still buffered goes the same way
        if self.closed or self._is_done:
            raise ValueError("write to a closed file")
        view = memoryview(data).cast("B")
        try:
            self._file.write(view)
        except OSError as error:
            if is_full(error):
                self.discard()
                raise no_space(error, self._store.root) from error
            raise
        self._digester.update(bytes(view) if not view.readonly else view)
        self._size += len(view)
        return len(view)

    def flush(self) -> None:
        """Flush nothing: bytes are there when the file is closed."""

    def close(self) -> None:
        """Put the whole file in place, unless a transaction decides that later."""
        if self.closed:
            return
        try:
            if _is_unwinding(self._known_error):
                self.discard()
            elif self._autocommit and not self._is_done:
                self.commit()
        finally:
            super().close()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            self.discard()
        super().__exit__(kind, error, trace)

    def check(self) -> None:
        """Refuse now what `commit` would refuse, so that a transaction fails before it begins.

        Raises
        ------
        InvalidInputError
            If the file is still open: what its writer buffers is not here yet.
        ConflictError
            As for the class.
        """
        if self._is_done:
            return
        if not self.closed:
            raise InvalidInputError(f"{self._store.url(self._relative)} was not closed.")
        self._refuse_if_needed()

    def commit(self) -> None:
        """Give the file its name."""
        if self._is_done:
            return
        try:
            self._file.close()
            digests = self._digester.finish()
            # Looked at again: others may have pinned or written it while we wrote.
            self._refuse_if_needed()
            commit_new(
                self._store,
                self._relative,
                self._staged,
                digests,
                replace_check=None if self.mode == "xb" else self._refuse,
            )
        except OSError as error:
            if is_full(error):
                raise no_space(error, self._store.root) from error
            raise
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop what was written; what stood at the path before stands there still."""
        if self._is_done:
            return
        self._is_done = True
        self._digester.close()
        if hasattr(self, "_file"):
            self._file.close()
        self._scratch.__exit__(None, None, None)

    def __del__(self) -> None:
        # An abandoned writer must not appear as a file: close() would commit it.
        if not self._is_done:
            self.discard()

    def _dealloc_warn(self, source: Any) -> None:
        # A text wrapper that is dropped unclosed, such as fsspec's own, tells the file below in
        # this way before it closes it.
        self._is_abandoned = True
        self.discard()


class StagedText(io.TextIOWrapper):
    """Text on top of a `StagedFile`; it, too, is there only when closed whole."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            self._drop()
        super().__exit__(kind, error, trace)

    def _drop(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.flush()  # else closing would try to, into a file that takes no more
        staged = self.buffer
        assert isinstance(staged, StagedFile)  # noqa: S101 - nothing else is given to it
        staged.discard()


def _is_unwinding(known: BaseException | None) -> bool:
    """Tell whether a ``with`` block around us is being left because of an error.

    fsspec's `OpenFile` closes its file on the way out and does not say why.
    """
    error = sys.exc_info()[1]
    if error is None or error is known:
        return False
    frame = sys._getframe(1)
    for _ in range(6):
        if frame.f_back is None:
            return False
        frame = frame.f_back
        if frame.f_code.co_name == "__exit__":
            return True
    return False
