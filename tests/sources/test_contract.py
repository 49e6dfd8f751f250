"""The contract of sources, held by each of ours."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from conftest import TESTS
from recallfs.cache.cache import Cache
from recallfs.catalog import changes, records
from recallfs.catalog.sidecar import Record, Release
from recallfs.catalog.store import Store
from recallfs.config import (
    CacheSettings,
    Config,
    DandiSettings,
    KacherySettings,
    MirrorSettings,
    RecipeSettings,
    StoreSettings,
)
from recallfs.resolve.derive import derive
from recallfs.resolve.stores import Stores
from recallfs.sources.cache import CacheSource
from recallfs.sources.dandi import DandiSource
from recallfs.sources.kachery import KacherySource
from recallfs.sources.mirror import MirrorSource, by_digest
from recallfs.sources.recompute import RecomputeSource
from recallfs.sources.trash import TrashSource
from recallfs.testing.dandi import DandiServer
from recallfs.testing.http import Files
from recallfs.testing.kachery import KacheryServer
from recallfs.testing.misbehaviour import Fault
from recallfs.testing.sources import RemoteSourceContract, SourceContract, SourcePlace
from recallfs.values import State, after, now_utc

SECRET = "swordfish-1234"  # noqa: S105 - nobody's


class FolderMirror(SourcePlace):
    """A mirror that is a folder."""

    def __init__(self, folder: Path, url: str = "", **keys: object) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        settings = MirrorSettings(name="m", url=url or f"file://{folder}")
        wait = timedelta(seconds=RemoteSourceContract.deadline_s)
        self.source = MirrorSource(replace(settings, answer_timeout=wait, **keys))  # type: ignore[arg-type]

    def hold(self, record: Record, content: bytes) -> None:
        """Put the content there."""
        place = self.folder / by_digest(record.entry.sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def unplug(self) -> None:
        """Take it away."""
        self.folder.rename(self.folder.with_name("unmounted"))


class PathMirror(FolderMirror):
    """The same, by path."""

    def hold(self, record: Record, content: bytes) -> None:
        """Put the content there."""
        place = self.folder / record.entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


class MemoryMirror(SourcePlace):
    """A mirror in memory."""

    can_vanish = False

    def __init__(self) -> None:
        self.url = f"memory://{uuid.uuid4().hex}/x"
        self.source = MirrorSource(MirrorSettings(name="m", url=self.url))

    def hold(self, record: Record, content: bytes) -> None:
        """Put the content there."""
        import fsspec

        with fsspec.open(f"{self.url}/{by_digest(record.entry.sha256)}", "wb") as file:
            file.write(content)


class HttpMirror(PathMirror):
    """A mirror behind HTTP, with a password in its URL and a secret header."""

    can_stall = True
    resumes = True
    secrets = (SECRET, "hunter2")

    def __init__(self, folder: Path, server: Files) -> None:
        url = server.url.replace("//", "//me:hunter2@")
        options = {"client_kwargs": {"headers": {"X-Token": SECRET}}}
        super().__init__(folder, url, options=options, streams=1)
        self.server = server

    def unplug(self) -> None:
        """Take it away."""
        self.server.stop()

    def stall(self) -> None:
        """Let the servers fall silent."""
        self.server.fail(Fault(stall=True))

    def sent_bytes(self) -> int:
        """Add up what was sent."""
        return sum(asked.sent_bytes for asked in self.server.log)


class Trash(SourcePlace):
    """The store's own trash."""

    source = TrashSource()
    can_vanish = False

    def __init__(self, store: Store) -> None:
        self.store = store

    def hold(self, record: Record, content: bytes) -> None:
        """Put the content there."""
        place = self.store.trash_path(record.entry.id)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)

    def entry(self, store: Store, path: str, content: bytes) -> Record:
        """Catalog the file, as this source needs it."""
        record = super().entry(store, path, content)
        now = now_utc()
        release = Release("trashed", now, "me", after(now, timedelta(days=1)), "copies", True)
        with changes.edit(store, record.entry.id, "copies") as draft:
            entry = replace(draft.record.entry, state=State.RELEASED, identity=None)
            draft.record = replace(draft.record, entry=entry, release=release)
        return records.load(store, record.entry.id)


class Recompute(SourcePlace):
    """A recipe that writes what is in another file."""

    holds_empty = False

    def __init__(self, store: Store, folder: Path) -> None:
        self.folder = folder
        recipes = RecipeSettings(modules=("lab_recipes",), paths=(TESTS,))
        settings = StoreSettings(root=store.root)
        self.stores = Stores(Config(stores={store.name: settings}, recipes=recipes))
        self.source = RecomputeSource(recipes)

    def _original(self, path: str) -> Path:
        return self.folder / path.replace("/", "_")

    def entry(self, store: Store, path: str, content: bytes) -> Record:
        """Catalog the file, as this source needs it."""
        original = self._original(path)
        original.write_bytes(content)
        made = derive(
            self.stores,
            "copied",
            outputs={"": str(store.root / path)},
            inputs={},
            parameters={"original": str(original)},
        )
        assert made.executed
        entry = store.catalog.entry_at(path)
        assert entry is not None
        (store.root / path).unlink()
        return records.load(store, entry.id)

    def hold(self, record: Record, content: bytes) -> None:
        """Put the content there."""
        self._original(record.entry.path).write_bytes(content)

    def unplug(self) -> None:
        """Take it away."""
        for file in self.folder.iterdir():
            if file.is_file():
                os.truncate(file, 0)
                file.unlink()


class OwnCache(SourcePlace):
    """The reader's cache."""

    can_vanish = False
    can_lie = False  # a damaged file in a cache is thrown away: it has none then

    def __init__(self, folder: Path) -> None:
        settings = CacheSettings(folder=folder)
        self.cache = Cache(settings)
        self.source = CacheSource(settings)

    def hold(self, record: Record, content: bytes) -> None:
        """Put the content there."""
        place = self.cache.path_of(record.entry)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.unlink(missing_ok=True)
        place.write_bytes(content)
        place.chmod(0o400)


class _WithBucket(SourcePlace):
    """A service whose files are in a bucket."""

    can_stall = True
    resumes = True
    secrets = ("Signature",)  # of the bucket's presigned URLs
    server: KacheryServer | DandiServer

    def unplug(self) -> None:
        """Take it away."""
        self.server.stop()

    def stall(self) -> None:
        """Let the servers fall silent."""
        for server in (self.server, self.server.bucket):
            server.fail(Fault(stall=True))

    def sent_bytes(self) -> int:
        """Add up what was sent."""
        return sum(asked.sent_bytes for asked in self.server.bucket.log)


class Kachery(_WithBucket):
    """A gateway with a bucket."""

    server: KacheryServer

    def __init__(self, folder: Path, server: KacheryServer) -> None:
        self.folder = folder
        self.server = server
        wait = timedelta(seconds=RemoteSourceContract.deadline_s)
        settings = KacherySettings(
            gateway_url=server.url, folder=folder / "client", answer_timeout=wait, streams=1
        )
        self.source = KacherySource(settings)

    def hold(self, record: Record, content: bytes) -> None:
        """Put the content there."""
        place = self.folder / record.entry.id
        place.write_bytes(content)
        self.server.add_file(place, sha1=record.entry.sha1)


class Dandi(_WithBucket):
    """An archive with a blob store, asked by digest."""

    holds_empty = False
    server: DandiServer

    def __init__(self, folder: Path, server: DandiServer) -> None:
        self.folder = folder
        self.server = server
        self.dandiset = server.add_dandiset()
        wait = timedelta(seconds=RemoteSourceContract.deadline_s)
        settings = DandiSettings(instance=server.api_url, answer_timeout=wait, streams=1)
        self.source = DandiSource(settings)
        self.originals: dict[str, bytes] = {}

    def entry(self, store: Store, path: str, content: bytes) -> Record:
        """Catalog the file, as this source needs it."""
        record = super().entry(store, path, content)
        self.originals[record.entry.id] = content
        return record

    def hold(self, record: Record, content: bytes) -> None:
        """Put the content there."""
        place = self.folder / record.entry.id
        if not place.exists():
            # An archive knows its digests from when it took the file: what lies is the bucket.
            place.write_bytes(self.originals[record.entry.id])
            self.server.add_asset(self.dandiset, f"{record.entry.id}.nwb", place)
        place.write_bytes(content)


class TestKachery(RemoteSourceContract):
    """Kachery, by sha1."""

    @pytest.fixture
    def place(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[SourcePlace]:
        """Give it."""
        for name in [name for name in os.environ if name.startswith("KACHERY_")]:
            monkeypatch.delenv(name)
        (tmp_path / "held").mkdir()
        with KacheryServer() as server:
            yield Kachery(tmp_path / "held", server)


class TestDandi(RemoteSourceContract):
    """DANDI, by digest."""

    @pytest.fixture
    def place(self, store: Store, tmp_path: Path) -> Iterator[SourcePlace]:
        """Give it."""
        (tmp_path / "held").mkdir()
        with DandiServer() as server:
            yield Dandi(tmp_path / "held", server)


class TestFolderMirror(RemoteSourceContract):
    """A folder by digest."""

    @pytest.fixture
    def place(self, store: Store, tmp_path: Path) -> SourcePlace:
        """Give it."""
        return FolderMirror(tmp_path / "mirror")


class TestPathMirror(RemoteSourceContract):
    """A folder by path."""

    @pytest.fixture
    def place(self, store: Store, tmp_path: Path) -> SourcePlace:
        """Give it."""
        return PathMirror(tmp_path / "mirror")


class TestMemoryMirror(RemoteSourceContract):
    """fsspec's memory."""

    @pytest.fixture
    def place(self, store: Store) -> SourcePlace:
        """Give it."""
        return MemoryMirror()


class TestHttpMirror(RemoteSourceContract):
    """HTTP."""

    deadline_s = 2.0

    @pytest.fixture
    def place(self, store: Store, tmp_path: Path) -> Iterator[SourcePlace]:
        """Give it."""
        (tmp_path / "mirror").mkdir()
        with Files(tmp_path / "mirror") as server:
            yield HttpMirror(tmp_path / "mirror", server)


class TestCache(SourceContract):
    """The cache."""

    @pytest.fixture
    def place(self, store: Store, tmp_path: Path) -> SourcePlace:
        """Give it."""
        (tmp_path / "cache").mkdir(mode=0o700)
        return OwnCache(tmp_path / "cache")


class TestTrash(SourceContract):
    """The trash."""

    @pytest.fixture
    def place(self, store: Store) -> SourcePlace:
        """Give it."""
        return Trash(store)


class TestRecompute(SourceContract):
    """A recipe."""

    @pytest.fixture
    def place(self, store: Store, tmp_path: Path) -> SourcePlace:
        """Give it."""
        (tmp_path / "originals").mkdir()
        return Recompute(store, tmp_path / "originals")
