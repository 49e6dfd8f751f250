"""Opening files in parts: what is known of them, where their parts are kept, who may read them."""

from __future__ import annotations

import bisect
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallfs.cache.cache import Cache
from recallfs.catalog import records
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.errors import ConflictError, IntegrityError, InvalidInputError, RecallError
from recallfs.partial.blocks import BlockFile, find_blocks, key_of, open_blocks
from recallfs.partial.index import (
    BLOCKS,
    CHUNKS,
    PAGES,
    Index,
    of_blocks,
    of_pages,
    of_skeleton,
)
from recallfs.partial.other_process import recall_by_another
from recallfs.partial.peers import Peers
from recallfs.partial.policy import Choice, Facts, choose
from recallfs.partial.quiet import holds_h5py
from recallfs.partial.ranges import Ranges
from recallfs.partial.reading import CHECKS, PartialFile
from recallfs.resolve.access import check_reader
from recallfs.resolve.caching import cache_for, may_share
from recallfs.resolve.chain import chain_for, plan_for
from recallfs.resolve.presence import observe, settle
from recallfs.resolve.recall import recall
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.resolve.wish import Wish
from recallfs.skeleton.vault import load_skeleton
from recallfs.sources.remote import DownloadingSource
from recallfs.values import Entry, State

if TYPE_CHECKING:
    import h5py


@dataclass(frozen=True)
class Here:
    """What the caller's cache has of a file that is read in parts.

    Parameters
    ----------
    size_bytes : int
    check : str
        How they were verified, in words.
    is_verified : bool
        Whether they were.
    """

    size_bytes: int
    check: str
    is_verified: bool


@dataclass(frozen=True)
class Parts:
    """An entry, looked at for reading it in parts.

    Parameters
    ----------
    stores : Stores
    store : Store
    entry : Entry
    """

    stores: Stores
    store: Store
    entry: Entry

    @cached_property
    def record(self) -> Record:
        """All that is known of the entry."""
        return records.load(self.store, self.entry.id)

    @cached_property
    def cache(self) -> Cache:
        """Where parts are kept."""
        return cache_for(self.stores, self.store)

    @property
    def url(self) -> str:
        """Address of the file."""
        return self.store.url(self.entry.path)

    @cached_property
    def kind(self) -> str:
        """How parts can be verified."""
        record = self.record
        if record.skeleton is not None and record.entry.sha256 and self._has_chunks:
            return CHUNKS
        return BLOCKS if record.blocks else PAGES

    @property
    def key(self) -> str:
        """Under which its parts are kept."""
        record = self.record
        if self.kind == CHUNKS:
            return self._chunks_key
        if self.kind == BLOCKS:
            return key_of(BLOCKS, record.entry.sha256, str(record.entry.size_bytes))
        identity = record.entry.sha256 or record.dandi_etag
        return key_of(PAGES, record.entry.id, identity, str(record.entry.size_bytes))

    @property
    def _chunks_key(self) -> str:
        skeleton = self.record.skeleton
        assert skeleton is not None  # noqa: S101 - asked only then
        return key_of(CHUNKS, self.record.entry.sha256, skeleton.digest)

    @property
    def _has_chunks(self) -> bool:
        """Whether the skeleton is whole, or was when the file was last opened."""
        shelves = self.cache.block_shelves()
        if any(shelf.path_of(self._chunks_key).is_dir() for shelf in shelves):
            return True
        try:
            return self._skeleton is not None
        except IntegrityError:
            return False  # doctor says so; the file can be read without it

    @cached_property
    def outline(self) -> BlockFile | None:
        """The parts that `recall warm --metadata` has fetched of a file without digests."""
        if self.kind != PAGES:
            return None
        found = find_blocks(self.cache, self.key)
        if found is not None and not found.index.notes.get("outline"):
            found.close()
            return None
        return found

    @cached_property
    def neighbour(self) -> str:
        """What it takes from other files, as far as its metadata tell without a request."""
        if self.kind != CHUNKS:
            return str(self.outline.index.notes.get("neighbour", "")) if self.outline else ""
        found = find_blocks(self.cache, self.key)
        if found is not None:
            try:
                if "neighbour" in found.index.notes:
                    return str(found.index.notes["neighbour"])
            finally:
                found.close()
        return self._neighbour_in_skeleton()

    def here(self) -> Here | None:
        """Tell which parts are here; None if there are none."""
        try:
            blocks = find_blocks(self.cache, self.key)
        except IntegrityError:
            return None  # what is on record is damaged, which `verify` says
        if blocks is None:
            return None
        with contextlib.closing(blocks):
            kind = blocks.index.kind
            return Here(blocks.here_bytes, CHECKS[kind], kind != PAGES)

    def facts(self) -> Facts:
        """Gather what the choice is made from."""
        plan = plan_for(self.stores, self.store, self.entry)
        is_gone = plan.action == "recall"
        is_outlined = is_gone and self.outline is not None
        neighbour = self.neighbour if is_gone and (self.kind == CHUNKS or is_outlined) else ""
        return Facts(plan, self.kind, is_outlined, neighbour)

    def choice(self, wanted: bool | str | None = None) -> Choice:
        """Decide how the file is opened; see `recallfs.partial.policy.choose`."""
        try:
            return self._choice(wanted)
        except IntegrityError:
            # Perhaps it is just being forgotten or written over. A recall finds out, and says so.
            return Choice(False, "Its record cannot be read.")

    def _choice(self, wanted: bool | str | None) -> Choice:
        settings = self.stores.config.readers
        if wanted is None and settings.partial == "never":
            return Choice(False, "readers.partial is 'never'.")
        is_small = self.entry.size_bytes < settings.partial_above
        if wanted is None and settings.partial == "auto" and is_small:
            # The usual case, and told without looking at more.
            return choose(
                Facts(plan_for(self.stores, self.store, self.entry), BLOCKS), settings, None
            )
        return choose(self.facts(), settings, wanted)

    def open(
        self,
        wish: Wish | None = None,
        *,
        for_hdf5: bool = False,
        blocks: BlockFile | None = None,
    ) -> PartialFile:
        """Open it; nothing is asked of any source.

        Parameters
        ----------
        wish : Wish, optional
            For a recall of the whole file, should it come to that.
        for_hdf5 : bool
            Whether HDF5 itself is the reader; see `PartialFile`.
        blocks : BlockFile, optional
            Where parts are kept instead of the usual place.

        Raises
        ------
        AccessError
            The caller could not have read the file.
        IntegrityError
            Kind ``damaged-record``: its skeleton is not whole.
        """
        check_reader(self.store, self.entry)
        if os.environ.get("RECALLFS_WORKER"):
            raise InvalidInputError(
                f"{self.url} is not here, and a recipe cannot fetch files while it runs; declare "
                "it as an input, then it is there before the recipe starts.",
                details={"path": self.entry.path},
            )
        state = settle(self.store, self.entry)
        chain = chain_for(self.stores, self.store, self.entry, state)
        if blocks is not None:
            index, retained = blocks.index, None
        else:
            blocks, index, retained = self._material()
        pinned = index.kind == PAGES
        ranges = Ranges(
            self.stores,
            self.store,
            self.record,
            chain.sources,
            size_bytes=index.size_bytes,
            is_pinned=pinned,
            validator=index.notes.get("validator") if pinned else None,
        )
        return PartialFile(
            str(self.store.root / self.entry.path),
            index,
            ranges,
            blocks=blocks,
            bring_whole=self._bringing(wish or Wish(), ranges),
            retained=retained,
            peers=Peers(self.cache, self.key) if self.cache.has_others else None,
            for_hdf5=for_hdf5,
        )

    def _material(self) -> tuple[BlockFile | None, Index, Callable[[int], bytes] | None]:
        """Open what is kept of the file, or make it."""
        if self.kind == PAGES and self.outline is not None:
            return self.outline, self.outline.index, None
        found = find_blocks(self.cache, self.key)
        if found is not None:
            return found, found.index, self._retained if self.kind == CHUNKS else None
        if self.kind == PAGES:
            return None, of_pages(self.entry.size_bytes), None
        share = may_share(self.stores, self.store, self.entry)
        if self.kind == BLOCKS:
            index = of_blocks(self.entry.size_bytes, self.record.blocks)
            return open_blocks(self.cache, self.key, index, share=share), index, None
        index = self._index.with_notes(neighbour=self.neighbour)
        blocks = open_blocks(self.cache, self.key, index, self._skeleton, share=share)
        return blocks, index if blocks is None else blocks.index, self._retained

    @cached_property
    def _skeleton(self) -> Any:
        skeleton = load_skeleton(self.store, self.record)
        if skeleton is None or skeleton.sha256 != self.record.entry.sha256:
            raise IntegrityError(
                f"the skeleton of {self.url} is of another file; `recall prove` makes a new one "
                "while the file is here.",
                kind="damaged-record",
                details={"path": self.entry.path},
            )
        return skeleton

    @cached_property
    def _index(self) -> Index:
        return of_skeleton(self._skeleton)

    def _neighbour_in_skeleton(self) -> str:
        """Look at the links of the file by what its skeleton retains."""
        import h5py

        from recallfs.skeleton.neighbours import any_neighbour

        nothing = Ranges(self.stores, self.store, self.record, (), size_bytes=self.entry.size_bytes)
        file = PartialFile(self.url, self._index, nothing, retained=self._retained, for_hdf5=True)
        try:
            with h5py.File(file, "r") as opened:
                return any_neighbour(opened) or ""
        except OSError as error:
            return f"what it holds cannot be looked at: {error}"
        finally:
            file.close()

    def _retained(self, unit: int) -> bytes:
        """Return a unit's bytes from the skeleton."""
        index = self._index
        start, stop = index.start_of(unit), index.stop_of(unit)
        offsets, begins = self._extents
        number = bisect.bisect_right(offsets, start) - 1
        if number < 0 or stop > offsets[number] + begins[number + 1] - begins[number]:
            raise IntegrityError(f"the skeleton of {self.url} has no {index.name_of(unit)}.")
        begin = begins[number] + start - offsets[number]
        return bytes(memoryview(self._skeleton.retained)[begin : begin + stop - start])

    @cached_property
    def _extents(self) -> tuple[list[int], list[int]]:
        """Where in the file each retained part begins, and where in what is retained."""
        extents = self._skeleton.extents
        sizes = extents["size"].astype(int)
        return extents["offset"].tolist(), [0, *sizes.cumsum().tolist()]

    def _bringing(self, wish: Wish, ranges: Ranges) -> Callable[[RecallError], Path]:
        def bring_whole(failure: RecallError) -> Path:
            state = settle(self.store, self.entry)
            chain = chain_for(self.stores, self.store, self.entry, state)
            asked = all(isinstance(source, DownloadingSource) for source in chain.sources)
            if state is not State.RESIDENT and asked and not ranges.has_whole_only:
                # They were all asked for the parts: the whole would be the same bytes.
                raise failure
            if holds_h5py():
                if wish.announce is not None:
                    wish.announce(f"{self.url} is brought back whole: its parts cannot be had.")
                place, sha256 = recall_by_another(self.store, self.entry.path)
            else:
                done = recall(self.stores, self.store, self.entry.path, wish)
                place, sha256 = done.path, done.sha256
            if self.entry.sha256 and sha256 != self.entry.sha256:
                raise ConflictError(
                    f"{self.url} came back with equal content and other bytes; open it anew.",
                    details={"expected": self.entry.sha256, "actual": sha256},
                )
            return place

        return bring_whole


def find_parts(stores: Stores, store: Store, path: str) -> Parts | None:
    """Return an entry for reading it in parts; None if it is here, or is no entry."""
    entry = store.catalog.entry_at(path)
    if entry is None or observe(store, entry) not in (State.RELEASED, State.MISSING):
        return None
    return Parts(stores, store, entry)


def open_h5(
    url_or_path: str | os.PathLike[str],
    partial: bool | str | None = None,
    *,
    complete: bool = False,
    announce: Callable[[str], None] | None = None,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> h5py.File:
    """Open an HDF5 file for reading, wherever its bytes are.

    Parameters
    ----------
    url_or_path : str or os.PathLike
        A ``recall://`` URL, or any path; one that is in no store is opened as it is.
    partial : bool, "unverified" or None
        Whether only what is read of a file that is not here is fetched. None leaves it to
        ``readers.partial`` of the configuration; "unverified" allows it even where nothing but an
        ETag tells that the parts are right.
    complete : bool
        Whether a process in the background fetches all else, if only parts are fetched here. It
        goes on after this one has ended, as `recall warm --background` does.
    announce, progress : callable, optional
        Told what a recall is about to do, and of its bytes, where the whole file must come back.
    **options
        For `h5py.File`.

    Returns
    -------
    h5py.File
        In mode ``r``; ``filename`` is where the file belongs.

    Raises
    ------
    InvalidInputError
        Parts are asked for, and cannot be had.
    RecallError
        The file is known, and cannot be brought back.

    Examples
    --------
    >>> import recallfs
    >>> with recallfs.open_h5("recall://analysis/sub-1/lfp.nwb") as file:  # doctest: +SKIP
    ...     file["acquisition/e/data"][:30000]
    """
    import h5py

    found = _in_a_store(os.fspath(url_or_path))
    if found is None:
        return h5py.File(url_or_path, "r", **options)
    stores, store, path = found
    wish = Wish(announce=announce, progress=progress)
    parts = find_parts(stores, store, path)
    if parts is not None and parts.choice(partial).is_partial:
        file = open_parts(parts, wish, **options)
        if complete:
            from recallfs.partial.whole import complete_behind  # which needs this module

            complete_behind(stores, ["--", parts.url])
        return file
    entry = store.catalog.entry_at(path)
    place = store.locate(path) if entry is None else recall(stores, store, path, wish).path
    return h5py.File(place, "r", **options)


def open_parts(parts: Parts, wish: Wish | None = None, **options: Any) -> h5py.File:
    """Open an HDF5 file in parts; closing the result closes all."""
    import h5py

    file = hdf5_parts(parts, wish)
    if file is None:
        place = recall(parts.stores, parts.store, parts.entry.path, wish).path
        return h5py.File(place, "r", **options)
    try:
        return h5py.File(file, "r", **options)
    except BaseException:
        file.close()
        raise


def hdf5_parts(parts: Parts, wish: Wish | None = None) -> PartialFile | None:
    """Open a file in parts for HDF5; None if it turns out to need its neighbours."""
    import h5py

    file = parts.open(wish, for_hdf5=True)
    if parts.kind == CHUNKS or parts.outline is not None:
        return file  # known before it was opened
    from recallfs.skeleton.neighbours import any_neighbour

    try:
        with h5py.File(file, "r") as opened:
            neighbour = any_neighbour(opened)
    except BaseException:
        file.close()
        raise
    if neighbour is None:
        return file
    file.close()
    return None


def _in_a_store(text: str) -> tuple[Stores, Store, str] | None:
    stores = stores_in_reach()
    if text.startswith("recall://"):
        return (stores, *stores.resolve(text))
    found = stores.containing(Path(os.path.abspath(text)))  # noqa: PTH100 - keeps symlinks
    return None if found is None else (stores, *found)
