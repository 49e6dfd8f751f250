"""Reading again what is on record: every kept byte against its digest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recallfs.catalog import records
from recallfs.catalog.sidecar import Record, decode
from recallfs.catalog.store import Store
from recallfs.catalog.vaulted import is_behind, vault_place
from recallfs.digest.stream import digest_file
from recallfs.doctor.kept import kept_files
from recallfs.errors import IntegrityError, RecallError
from recallfs.partial.blocks import BlockFile, find_blocks
from recallfs.partial.opening import Parts
from recallfs.resolve.presence import observe
from recallfs.resolve.stores import Stores
from recallfs.values import Entry, State

Progress = Callable[[int], None]

_PARTS = {".rsk1": "skeleton", ".rsd1": "residual"}


@dataclass(frozen=True)
class Mismatch:
    """Something that is not as it is on record.

    Parameters
    ----------
    url : str
        Of the entry that it belongs to.
    part : {"file", "sidecar", "trash", "skeleton", "residual", "environment", "vault", "parts"}
    place : str
        Path of the file that was read.
    expected, actual : str
        What it should hold and what it does.
    """

    url: str
    part: str
    place: str
    expected: str
    actual: str

    def to_json(self) -> dict[str, Any]:
        """Return the mismatch as a JSON-able mapping."""
        return asdict(self)


@dataclass(frozen=True)
class Verified:
    """What was verified of one entry.

    Parameters
    ----------
    read_bytes : int
        Of files and trash; records are not counted.
    """

    url: str
    read_bytes: int
    mismatches: tuple[Mismatch, ...]


def verify_all(
    found: Sequence[tuple[Store, Entry]], *, deep: bool, jobs: int, progress: Progress | None = None
) -> Iterator[Verified]:
    """Verify entries, several at a time.

    Parameters
    ----------
    deep : bool
        Hash every byte: files, trash, skeletons, residuals, environments, and the vault's
        copies. Else only the files' identities, and the digests that records carry themselves.
    jobs : int
        How many files are read at once; each takes 4 MiB of memory.
    progress : callable, optional
        Called with the number of bytes read, or 1 for each entry if not `deep`.
    """
    told = progress or (lambda _size: None)
    window = 4 * jobs
    with ThreadPoolExecutor(jobs, thread_name_prefix="recall-verify") as pool:
        for start in range(0, len(found), window):
            # Not all at once: a million results would wait for the one that is read first.
            part = found[start : start + window]
            yield from pool.map(lambda item: verify(*item, deep=deep, progress=told), part)


def verify(store: Store, entry: Entry, *, deep: bool, progress: Progress) -> Verified:
    """Verify one entry; nothing is changed, and nothing is written down."""
    check = _Check(store, entry, deep, progress)
    check.run()
    return Verified(store.url(entry.path), check.read_bytes, tuple(check.mismatches))


def verify_parts(stores: Stores, store: Store, entry: Entry) -> list[Mismatch]:
    """Verify what the caller's cache has of a file that is read in parts.

    Notes
    -----
    Parts that no digest is known of are left out. What is wrong is no longer marked as here, so
    that the next reader fetches it anew. What was not durable yet when the power was lost is no
    error.
    """
    parts = Parts(stores, store, entry)
    try:
        blocks = find_blocks(parts.cache, parts.key)
    except IntegrityError:
        return []  # what is on record is damaged, which `verify` says
    if blocks is None:
        return []
    with contextlib.closing(blocks):
        return [
            Mismatch(
                parts.url, "parts", str(blocks.folder), blocks.index.name_of(unit), "other bytes"
            )
            for unit, is_durable in _marked(blocks)
            if blocks.load(unit) is None and is_durable
        ]


def _marked(blocks: BlockFile) -> Iterator[tuple[int, bool]]:
    """Iterate over units that are marked, and whether as durable."""
    for unit in np.flatnonzero(blocks.marks).tolist():
        yield unit, blocks.is_durable(unit)


class _Check:
    """The checks of one entry, and what they found."""

    def __init__(self, store: Store, entry: Entry, deep: bool, progress: Progress) -> None:
        self.store = store
        self.entry = entry
        self.deep = deep
        self.progress = progress
        self.read_bytes = 0
        self.mismatches: list[Mismatch] = []

    def run(self) -> None:
        """Do all of them."""
        record = self._sidecar()
        accepted = record.accepted if record else frozenset({self.entry.sha256})
        self._file(accepted)
        if record is not None:
            self._trash(record)
            self._vault_sidecar(record)
            if self.deep:
                self._kept(record)
        if not self.deep:
            self.progress(1)

    def _add(self, part: str, place: Path, expected: str, actual: str) -> None:
        url = self.store.url(self.entry.path)
        self.mismatches.append(Mismatch(url, part, str(place), expected, actual))

    def _sidecar(self) -> Record | None:
        path = self.store.sidecar_path(self.entry.id)
        try:
            return records.load(self.store, self.entry.id)
        except (RecallError, OSError) as error:
            self._add("sidecar", path, "a whole sidecar", str(error))
            return None

    def _file(self, accepted: frozenset[str]) -> None:
        place = self.store.root / self.entry.path
        state = observe(self.store, self.entry)
        if state is State.RELEASED:
            return
        if state in (State.MISSING, State.CONFLICT):
            actual = "nothing" if state is State.MISSING else "something that is no file"
            self._add("file", place, f"sha256 {self.entry.sha256}", actual)
        elif state is None or self.deep:
            self._hash("file", place, accepted)

    def _trash(self, record: Record) -> None:
        place = self.store.trash_path(self.entry.id)
        if record.release is None or record.release.stage != "trashed":
            return
        if self.deep:
            self._hash("trash", place, record.accepted)
            return
        sizes = {incarnation.size_bytes for incarnation in record.incarnations}
        try:
            size = place.lstat().st_size
        except OSError as error:
            self._add("trash", place, "the released bytes", str(error.strerror))
            return
        if size not in sizes:
            self._add("trash", place, f"{self.entry.size_bytes} bytes", f"{size} bytes")

    def _hash(self, part: str, place: Path, accepted: frozenset[str]) -> None:
        expected = f"sha256 {' or '.join(sorted(accepted))}"
        try:
            digests = digest_file(place, progress=self.progress if self.deep else None)
        except RecallError as error:
            self._add(part, place, expected, error.message)
            return
        self.read_bytes += digests.size_bytes
        if digests.sha256 not in accepted:
            self._add(part, place, expected, f"sha256 {digests.sha256}")

    def _vault_sidecar(self, record: Record) -> None:
        path = vault_place(self.store, self.store.sidecar_path(record.entry.id))
        try:
            copy = decode(path.read_bytes(), name=str(path))
            if copy.entry.id != record.entry.id:
                raise IntegrityError(f"it is the record of {copy.entry.id}.")
            if is_behind(copy, record):
                self._add("vault", path, "what the sidecar says", "an earlier state of it")
        except FileNotFoundError:
            if record.release is not None:
                self._add("vault", path, "a copy of the sidecar", "nothing")
        except (RecallError, OSError) as error:
            self._add("vault", path, "a whole sidecar", str(error))

    def _kept(self, record: Record) -> None:
        is_released = record.release is not None
        for path, is_whole in kept_files(self.store, record):
            part = _PARTS.get(path.suffix, "environment")
            for place in (path, vault_place(self.store, path)):
                named = part if place == path else "vault"
                try:
                    whole = is_whole(place)
                except FileNotFoundError:
                    # The vault gets its copies when a file is released.
                    if is_released or place == path:
                        self._add(named, place, f"the {part} {path.stem}", "nothing")
                    continue
                except OSError as error:
                    self._add(
                        named, place, f"the {part} {path.stem}", os.strerror(error.errno or 0)
                    )
                    continue
                if not whole:
                    self._add(named, place, f"the {part} {path.stem}", "other bytes")
