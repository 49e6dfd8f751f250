"""The contract of a source as tests, to be run on each source, ours or yours.

    class MinePlace(SourcePlace):
        def __init__(self, store): ...
        def hold(self, record, content): ...

    class TestMine(RemoteSourceContract):
        @pytest.fixture
        def place(self, store):
            return MinePlace(store)

What cannot be done to a source (`SourcePlace` says so) is skipped, with the reason. Needs pytest.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from recallfs.catalog import records
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store, create_store
from recallfs.errors import (
    IntegrityError,
    NotRecallableError,
    RecallError,
    RecomputeError,
    SourceError,
)
from recallfs.resolve.commit import add_existing
from recallfs.sources.base import Fetched, Found, RemoteSource, Request, Source
from recallfs.values import BLOCK_BYTES

CONTENT = b"what a probe saw " * 3000
NAMES = (
    "plain.nwb",
    "with space/a b.nwb",
    "größe/サブ-1 100%.nwb",
    "a#1?b=c&d+e.bin",
    'it\'s "quoted"; $(no) `command`.bin',
    "-dash",
)
"""Paths that a source must not stumble over."""

_BLOCKS = 6


class SourcePlace(ABC):
    """A source, and what is at its far end, which a test controls.

    Attributes
    ----------
    source : Source
    can_vanish : bool
        Whether it can be put out of reach (`unplug`).
    can_stall : bool
        Whether it can be made to stop answering (`stall`).
    can_lie : bool
        Whether it can be made to hold other bytes than it should.
    holds_empty : bool
        Whether it can hold a file of 0 bytes.
    resumes : bool
        Whether a download that broke off is gone on with; `sent_bytes` must count then.
    secrets : tuple of str
        Words that the source was given and nobody may see.
    """

    source: Source
    can_vanish = True
    can_stall = False
    can_lie = True
    holds_empty = True
    resumes = False
    secrets: tuple[str, ...] = ()

    def entry(self, store: Store, path: str, content: bytes) -> Record:
        """Catalog a file of this content, take it away, and return its record."""
        place = store.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        (entry,) = add_existing(store, [path])
        place.unlink()
        return records.load(store, entry.id)

    @abstractmethod
    def hold(self, record: Record, content: bytes) -> None:
        """Make the source hold this content for an entry, whatever the entry's own is."""

    def unplug(self) -> None:
        """Put the source out of reach."""
        raise NotImplementedError

    def stall(self) -> None:
        """Make the source answer nothing any more; connections stay open."""
        raise NotImplementedError

    def sent_bytes(self) -> int:
        """Return how many bytes of files it has sent."""
        raise NotImplementedError


@dataclass
class Brought:
    """A fetch, as a recall would make it."""

    request: Request
    told: list[int] = field(default_factory=list)


class SourceContract:
    """What every source does."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        """Give an empty store."""
        root = tmp_path / "store"
        store = create_store(root, "contract", vault=tmp_path / "vault")
        yield store
        store.catalog.close()

    @pytest.fixture
    def place(self, store: Store) -> SourcePlace:
        """Give the source and its far end."""
        raise NotImplementedError

    def test_bytes_come_whole(self, place: SourcePlace, store: Store, tmp_path: Path) -> None:
        """What it holds comes into scratch, with the right digests; progress adds up."""
        record = place.entry(store, "a.bin", CONTENT)
        place.hold(record, CONTENT)
        request, told = _request(store, record, tmp_path)
        fetched = self._brought(place, request)
        assert _digest(fetched) == hashlib.sha256(CONTENT).hexdigest()
        if isinstance(place.source, RemoteSource):
            assert sum(told) == len(CONTENT)

    def test_three_answers_absent(self, place: SourcePlace, store: Store, tmp_path: Path) -> None:
        """What it has not it says it has not, and that is no outage."""
        other = place.entry(store, "other.bin", CONTENT + b"other")
        place.hold(other, CONTENT + b"other")
        record = SourcePlace.entry(place, store, "a.bin", CONTENT)
        if isinstance(place.source, RemoteSource):
            with pytest.raises(NotRecallableError):
                place.source.look_up(store, record)
            place.source.probe()
        if place.source.offer(store, record) is not None:
            request, _ = _request(store, record, tmp_path)
            with pytest.raises(NotRecallableError):
                place.source.fetch(request)
            assert not (request.scratch / "data").exists()

    def test_three_answers_unavailable(
        self, place: SourcePlace, store: Store, tmp_path: Path
    ) -> None:
        """Out of reach it is unavailable, never absent; nothing is left in scratch."""
        if not place.can_vanish:
            pytest.skip("it is always in reach")
        record = place.entry(store, "a.bin", CONTENT)
        place.hold(record, CONTENT)
        place.unplug()
        assert place.source.offer(store, record) is not None
        request, _ = _request(store, record, tmp_path)
        attempts: list[Callable[[], object]] = [lambda: place.source.fetch(request)]
        if isinstance(place.source, RemoteSource):
            source = place.source
            attempts += [lambda: source.look_up(store, record), source.probe]
        for attempt in attempts:
            with pytest.raises(RecallError) as caught:
                attempt()
            assert not isinstance(caught.value, (NotRecallableError, FileNotFoundError))
            if isinstance(place.source, RemoteSource):
                assert isinstance(caught.value, SourceError)
        assert not (request.scratch / "data").exists()

    @pytest.mark.parametrize("name", NAMES)
    def test_any_name(self, place: SourcePlace, store: Store, tmp_path: Path, name: str) -> None:
        """Spaces, other scripts and signs that mean something elsewhere do no harm."""
        record = place.entry(store, name, CONTENT)
        place.hold(record, CONTENT)
        request, _ = _request(store, record, tmp_path)
        assert _digest(self._brought(place, request)) == hashlib.sha256(CONTENT).hexdigest()

    def test_empty_file(self, place: SourcePlace, store: Store, tmp_path: Path) -> None:
        """A file of 0 bytes comes as one."""
        if not place.holds_empty:
            pytest.skip("it holds no empty files")
        record = place.entry(store, "empty.bin", b"")
        place.hold(record, b"")
        request, _ = _request(store, record, tmp_path)
        fetched = self._brought(place, request)
        assert _digest(fetched) == hashlib.sha256(b"").hexdigest()
        assert fetched.path.stat().st_size == 0

    @pytest.mark.parametrize(
        "wrong",
        [b"", CONTENT[:-1], CONTENT + b"x", b"X" + CONTENT[1:], CONTENT[:-1] + b"X"],
        ids=["empty", "short", "long", "first", "last"],
    )
    def test_wrong_bytes_never_pass(
        self, place: SourcePlace, store: Store, tmp_path: Path, wrong: bytes
    ) -> None:
        """Other bytes, or a size that lies, are an IntegrityError, or not called the right ones."""
        if not place.can_lie:
            pytest.skip("it cannot hold other bytes")
        record = place.entry(store, "a.bin", CONTENT)
        place.hold(record, wrong)
        request, _ = _request(store, record, tmp_path)
        try:
            fetched = self._brought(place, request)
        except IntegrityError:
            pass
        except RecomputeError:
            assert not isinstance(place.source, RemoteSource)
        else:
            # Whoever takes no digests leaves the comparison to the recall.
            assert not isinstance(place.source, RemoteSource)
            assert fetched.digests is None
            assert _digest(fetched) not in record.accepted

    def test_only_scratch_is_written(
        self, place: SourcePlace, store: Store, tmp_path: Path
    ) -> None:
        """Nothing of the store is changed by a fetch: not the file's path, not its records."""
        record = place.entry(store, "a.bin", CONTENT)
        place.hold(record, CONTENT)
        before = _tree(store.root)
        request, _ = _request(store, record, tmp_path)
        self._brought(place, request)
        assert _tree(store.root) == before

    def test_cancelled_fetch_ends(self, place: SourcePlace, store: Store, tmp_path: Path) -> None:
        """A fetch whose result is no longer wanted ends soon, whatever its source does."""
        record = place.entry(store, "a.bin", CONTENT)
        place.hold(record, CONTENT)
        request, _ = _request(store, record, tmp_path)
        if isinstance(place.source, RemoteSource):
            request = replace(request, found=place.source.look_up(store, record))
        if place.can_stall:
            place.stall()
        ended = threading.Event()
        errors: list[BaseException] = []

        def run() -> None:
            try:
                place.source.fetch(request)
            except RecallError as error:
                errors.append(error)
            finally:
                ended.set()

        threading.Thread(target=run, daemon=True).start()
        if place.can_stall:
            assert not ended.wait(0.3), errors
        request.cancelled.set()
        assert ended.wait(10)
        assert not any(isinstance(error, NotRecallableError) for error in errors)

    def test_many_threads(self, place: SourcePlace, store: Store, tmp_path: Path) -> None:
        """One source serves several threads at once, each its own file."""
        contents = {f"{number}.bin": bytes([number]) * 70_000 for number in range(8)}
        wanted = {}
        for name, content in contents.items():
            wanted[name] = place.entry(store, name, content)
            place.hold(wanted[name], content)

        def bring(name: str) -> str:
            request, _ = _request(store, wanted[name], tmp_path / name)
            return _digest(self._brought(place, request))

        with ThreadPoolExecutor(len(contents)) as pool:
            for name, digest in zip(contents, pool.map(bring, contents), strict=True):
                assert digest == hashlib.sha256(contents[name]).hexdigest()

    def _brought(self, place: SourcePlace, request: Request) -> Fetched:
        """Fetch as a recall does: a remote source is asked first."""
        found: Found | None = None
        if isinstance(place.source, RemoteSource):
            found = place.source.look_up(request.store, request.record)
        fetched = place.source.fetch(replace(request, found=found))
        is_trash = fetched.path.is_relative_to(request.store.control / "trash")
        assert fetched.path.is_relative_to(request.scratch) or is_trash
        assert fetched.path.is_file()
        assert not fetched.path.is_symlink()
        if fetched.digests is not None:
            assert fetched.digests.sha256 == _digest(fetched)
        return fetched


class RemoteSourceContract(SourceContract):
    """What every source does that is asked before it fetches."""

    deadline_s = 2.0
    """`answer_timeout` of the source under test, in seconds."""

    def test_three_answers_found(self, place: SourcePlace, store: Store) -> None:
        """Asked, it says that it has them, and how many, as far as it knows; nothing is changed."""
        record = place.entry(store, "a.bin", CONTENT)
        place.hold(record, CONTENT)
        source = _remote(place)
        before = _tree(store.root)
        found = source.look_up(store, record)
        assert found.size_bytes in (None, len(CONTENT))
        assert found.what
        assert _tree(store.root) == before
        source.probe()

    def test_stalled_look_up_keeps_its_deadline(self, place: SourcePlace, store: Store) -> None:
        """A source that never answers is given up within its deadline, with a timeout."""
        source = _remote(place)
        if not place.can_stall:
            pytest.skip("it cannot be made to stall")
        record = place.entry(store, "a.bin", CONTENT)
        place.hold(record, CONTENT)
        place.stall()
        for attempt in (lambda: source.look_up(store, record), source.probe):
            start = time.monotonic()
            with pytest.raises(SourceError):
                attempt()
            assert time.monotonic() - start < self.deadline_s + 5.0

    def test_no_secret_is_told(self, place: SourcePlace, store: Store, tmp_path: Path) -> None:
        """What a source was given to identify itself is in nothing that it says."""
        if not place.secrets:
            pytest.skip("it has no secret")
        source = _remote(place)
        record = place.entry(store, "a.bin", CONTENT)
        absent = SourcePlace.entry(place, store, "absent.bin", CONTENT + b"absent")
        place.hold(record, CONTENT)
        said: list[object] = [source, source.settings, source.identity, source.failure_domain()]
        said += [source.offer(store, record), source.look_up(store, record)]
        said += [holding.location for holding in source.copies(store, record)]
        said += [*source.copies(store, record)]
        said += _errors(lambda: source.look_up(store, absent))
        if place.can_lie:
            place.hold(record, b"X" + CONTENT[1:])
            said += _errors(lambda: source.fetch(_request(store, record, tmp_path)[0]))
        if place.can_vanish:
            place.unplug()
            said += _errors(lambda: source.look_up(store, record))
            said += _errors(lambda: source.fetch(_request(store, record, tmp_path / "2")[0]))
        text = " ".join(f"{item} {item!r} {getattr(item, 'details', '')}" for item in said)
        assert not [secret for secret in place.secrets if secret in text]

    def test_interrupted_fetch_is_gone_on_with(
        self, place: SourcePlace, store: Store, tmp_path: Path
    ) -> None:
        """After a fetch that was cancelled at 60%, the next one asks for less than 45%."""
        if not place.resumes:
            pytest.skip("it begins anew each time")
        content = os.urandom(_BLOCKS * BLOCK_BYTES)
        record = place.entry(store, "a.bin", content)
        place.hold(record, content)
        request, told = _request(store, record, tmp_path)

        def progress(size: int) -> None:
            told.append(size)
            if sum(told) > 0.6 * len(content):
                request.cancelled.set()

        with pytest.raises(SourceError):
            place.source.fetch(replace(request, progress=progress))
        before = place.sent_bytes()
        again, _ = _request(store, record, tmp_path / "again")
        fetched = self._brought(place, replace(again, partials=request.partials))
        assert _digest(fetched) == hashlib.sha256(content).hexdigest()
        assert place.sent_bytes() - before < 0.45 * len(content)

    def test_copies_are_where_the_source_says(
        self, place: SourcePlace, store: Store, tmp_path: Path
    ) -> None:
        """Of the places where it may hold copies, one has the bytes, and can be read whole."""
        source = _remote(place)
        record = place.entry(store, "a.bin", CONTENT)
        place.hold(record, CONTENT)
        readable = []
        for holding in source.copies(store, record):
            assert holding.location
            try:
                with holding.remote.read(0, None) as stream:
                    piece = memoryview(bytearray(2 * len(CONTENT)))
                    content = b""
                    while count := stream.readinto(piece):
                        content += piece[:count]
            except NotRecallableError:
                continue
            readable.append(content)
        assert CONTENT in readable or not readable
        assert isinstance(source.failure_domain(), str)
        assert source.failure_domain()


def _remote(place: SourcePlace) -> RemoteSource:
    if not isinstance(place.source, RemoteSource):
        raise TypeError("this suite is for a RemoteSource; SourceContract is for the others")
    return place.source


def _request(store: Store, record: Record, base: Path) -> tuple[Request, list[int]]:
    told: list[int] = []
    base.mkdir(exist_ok=True)
    folders = [base / name for name in (f"scratch-{record.entry.id}", "partials")]
    for folder in folders:
        folder.mkdir(mode=0o700, exist_ok=True)
    request = Request(
        store=store,
        record=record,
        scratch=folders[0],
        partials=folders[1],
        progress=told.append,
    )
    return request, told


def _digest(fetched: Fetched) -> str:
    return hashlib.sha256(fetched.path.read_bytes()).hexdigest()


def _tree(root: Path) -> dict[str, bytes]:
    """Return what is in a store, but for what changes whenever somebody looks."""
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in root.rglob("*")
        if file.is_file() and "catalog" not in file.name
    }


def _errors(attempt: Callable[[], object]) -> list[object]:
    """Return the error that an attempt raises, and all that it came from."""
    chain: list[object] = []
    try:
        attempt()
    except RecallError as caught:
        error: BaseException | None = caught
        while error is not None:
            chain += [error, getattr(error, "args", "")]
            error = error.__cause__ or error.__context__
    return chain
