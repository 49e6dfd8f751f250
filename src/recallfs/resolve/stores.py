"""The stores in reach: by name from the configuration, or by the folder that a path is in."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from recallfs import log
from recallfs.catalog import audit, records
from recallfs.catalog.rebuild import RebuildReport, rebuild
from recallfs.catalog.recovery import recover
from recallfs.catalog.store import Store, create_store, find_root, open_store, set_aside_catalog
from recallfs.config import Config, StoreSettings, config_path, load_config
from recallfs.errors import AccessError, CatalogError, InvalidInputError
from recallfs.sources.base import RemoteSource
from recallfs.sources.memory import Memory
from recallfs.transfer.partial import sweep
from recallfs.values import RecallURL


class Stores:
    """Opens stores once a process, and cleans up after killed processes when it does.

    Parameters
    ----------
    config : Config
    root : Path, optional
        A store that needs no configuration; it is called by its folder's name.
    """

    def __init__(self, config: Config, *, root: Path | None = None) -> None:
        self.config = config
        self._own_root = None if root is None else Path(os.path.realpath(root))
        self._open: dict[Path, Store] = {}
        self._lock = threading.RLock()

    def names(self) -> list[str]:
        """Return the names of all stores, sorted."""
        own = [self._own_root.name] if self._own_root else []
        return sorted({*self.config.stores, *own})

    def by_name(self, name: str) -> Store:
        """Open a store by its name.

        Raises
        ------
        InvalidInputError
            Kind ``unknown-store`` or ``not-a-store``.
        """
        if self._own_root is not None and name == self._own_root.name:
            return self._opened(self._own_root, name, self._settings_for(self._own_root))
        if self._own_root is not None and name not in self.config.stores:
            raise InvalidInputError(
                f"no store is named {name!r}; this filesystem's is {self._own_root.name!r}.",
                kind="unknown-store",
            )
        settings = self.config.store_settings(name)
        return self._opened(Path(os.path.realpath(settings.root)), name, settings)

    def root_of(self, name: str) -> Path:
        """Return the root of a store without opening it."""
        if self._own_root is not None and name == self._own_root.name:
            return self._own_root
        return Path(os.path.realpath(self.config.store_settings(name).root))

    def containing(self, place: Path) -> tuple[Store, str] | None:
        """Return the store that an absolute path lies in and its path there, or None."""
        parent = Path(os.path.realpath(place.parent))
        for candidate in dict.fromkeys((Path(os.path.normpath(place)), parent / place.name)):
            root = find_root(candidate)
            if root is not None and root != candidate:
                name, settings = self._registered(root)
                store = self._opened(root, name, settings)
                path = store.relative(candidate)
                if path is not None:
                    return store, path
        return None

    def resolve(self, address: str) -> tuple[Store, str]:
        """Return store and path of a ``recall://`` URL or of a plain path inside a store.

        Raises
        ------
        InvalidInputError
            Unknown store, malformed path, or a plain path that is in no store.
        """
        if address.startswith("recall://"):
            url = RecallURL.parse(address)
            store = self.by_name(url.store)
            return store, store.canonical(url.path)
        place = Path(os.path.abspath(Path(address).expanduser()))  # noqa: PTH100 - keeps symlinks
        found = self.containing(place)
        if found is not None:
            return found
        root = find_root(place)
        if root is not None:
            name, settings = self._registered(root)
            return self._opened(root, name, settings), ""
        raise InvalidInputError(
            f"{address} is in no store; `recall init DIR --name NAME` makes a folder one.",
            kind="not-a-store",
            details={"path": address},
        )

    def all(self) -> Iterator[Store]:
        """Open all stores, one after the other."""
        for name in self.names():
            yield self.by_name(name)

    def remotes(self) -> list[RemoteSource]:
        """Return the remote sources that are not turned off, in their usual order."""
        return list(self._remotes)

    @functools.cached_property
    def _remotes(self) -> list[RemoteSource]:
        # Imported here: what speaks HTTP takes a fifth of the time in which a command starts.
        from recallfs.sources.dandi import DandiSource
        from recallfs.sources.kachery import KacherySource
        from recallfs.sources.mirror import MirrorSource

        sources = [
            KacherySource(self.config.kachery),
            DandiSource(self.config.dandi),
            *(MirrorSource(settings) for settings in self.config.mirrors),
        ]
        return [source for source in sources if source.settings.enabled]

    @functools.cached_property
    def memory(self) -> Memory:
        """What the sources answered lately."""
        folder = self.config.cache.folder or Path(platformdirs.user_cache_dir("recallfs"))
        absent_s = self.config.recall.remember_absent.total_seconds()
        return Memory(folder / "answers.sqlite", absent_s)

    def _registered(self, root: Path) -> tuple[str | None, StoreSettings]:
        for name, settings in self.config.stores.items():
            if Path(os.path.realpath(settings.root)) == root:
                return name, settings
        if root == self._own_root:
            return root.name, StoreSettings(root=root)
        return None, StoreSettings(root=root)

    def _settings_for(self, root: Path) -> StoreSettings:
        return self._registered(root)[1]

    def _opened(self, root: Path, name: str | None, settings: StoreSettings) -> Store:
        with self._lock:
            store = self._open.get(root)
            if store is None:
                if root == self._own_root and find_root(root) != root:
                    store = create_store(root, root.name, settings=settings)
                else:
                    store = open_store(root, name=name, settings=settings)
                _rebuild_if_lost(store)
                recover(store)
                sweep(store.control / "partial" / str(os.geteuid()))
                self._open[root] = store
            return store


def rebuild_catalog(stores: Stores, name: str) -> RebuildReport:
    """Make a store's catalog again; one that cannot even be opened is put aside first."""
    try:
        store = stores.by_name(name)
    except CatalogError as error:
        root = stores.root_of(name)
        is_own_file = stores._settings_for(root).catalog is None
        if error.kind != "catalog-damaged" or not is_own_file or not set_aside_catalog(root):
            raise
        store = stores.by_name(name)
    report = rebuild(store)
    audit.restore(store)
    return report


def _rebuild_if_lost(store: Store) -> None:
    """Make the catalog again where there are sidecars but nothing is in it: it was deleted."""
    if not store.catalog.is_empty() or not records.has_sidecars(store):
        return
    with contextlib.suppress(AccessError):
        if rebuild(store, only_if_empty=True).entries:
            audit.restore(store)


_in_reach: dict[tuple[object, ...], Stores] = {}


def stores_in_reach(root: Path | None = None) -> Stores:
    """Return this process's stores; made anew when configuration or variables change."""
    path = config_path()
    try:
        status = path.stat()
        stamp: tuple[object, ...] = (status.st_mtime_ns, status.st_ino, status.st_size)
    except OSError:
        stamp = ()
    # As bytes, because decoding the whole environment would cost more than opening a file.
    variables = tuple(
        (name, os.environb[name]) for name in os.environb if name.startswith(b"RECALLFS_")
    )
    key = (root, path, stamp, variables)
    if key not in _in_reach:
        config = load_config()
        log.configure(config.log.level, config.log.form, config.log.file)
        _in_reach[key] = Stores(config, root=root)
    return _in_reach[key]
