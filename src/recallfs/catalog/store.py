"""A store: a folder, and beside its files ``.recall/`` with what recallfs knows of them.

::

    <root>/.recall/store.toml        name, id and vault of the store
    <root>/.recall/catalog.sqlite    the index (unless the configuration names a server)
    <root>/.recall/entries/          sidecars: the evidence
    <root>/.recall/environments/     what recipes ran in
    <root>/.recall/skeletons/        kept parts of HDF5 files
    <root>/.recall/residuals/        bits in which recomputed values differ
    <root>/.recall/staging/          bytes on their way in, one private folder each
    <root>/.recall/trash/            released bytes that are not yet purged
    <root>/.recall/aside/            originals that are out of a proof's sight, where need be
    <root>/.recall/rejected/         results that did not match, for `recall diff`
    <root>/.recall/superseded/       sidecars of files that were written over
    <root>/.recall/logs/             what recipes printed when they last ran
    <root>/.recall/failures/         why entries could not be proved when that was last tried
    <root>/.recall/locks/            one writer of evidence at a time
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recallfs.atomic import (
    is_full,
    is_regular,
    make_folder,
    make_shared_file,
    make_shared_folder,
    new_name,
    no_space,
    not_ours,
    refuse_links,
)
from recallfs.catalog import locks
from recallfs.catalog.database import Catalog
from recallfs.catalog.holder import Holder
from recallfs.catalog.store_file import STORE_FILE, read_store_file, write_store_file
from recallfs.config import StoreSettings
from recallfs.errors import AccessError, InvalidInputError, LockedError
from recallfs.values import CONTROL_FOLDER, normalise_path

_STOPPED_PATIENCE_S = 5.0

CATALOG_FILE = "catalog.sqlite"
"""A store's own catalog, in its control folder."""

FOLDERS = (
    "entries",
    "environments",
    "skeletons",
    "residuals",
    "staging",
    "partial",
    "trash",
    "aside",
    "rejected",
    "superseded",
    "logs",
    "locks",
)
"""Folders of a control folder that are there from the start."""


@dataclass(frozen=True)
class Store:
    """A store that is open.

    Parameters
    ----------
    name : str
        What it is called in URLs.
    id : str
        32 hexadecimal digits, given once at `recall init`.
    root : Path
        Real path of the managed folder.
    vault : Path
        Second failure domain for evidence.
    settings : StoreSettings
    """

    name: str
    id: str
    root: Path
    vault: Path
    settings: StoreSettings

    @property
    def control(self) -> Path:
        """Folder of what recallfs itself writes."""
        return self.root / CONTROL_FOLDER

    @functools.cached_property
    def catalog(self) -> Catalog:
        """The store's catalog."""
        return Catalog(self.settings.catalog or self.control / CATALOG_FILE, self.id)

    @functools.cached_property
    def is_writable(self) -> bool:
        """Whether the caller may change the store; who may not recalls into their own cache."""
        folders = (self.control / name for name in ("staging", "entries", "locks"))
        return all(os.access(folder, os.W_OK | os.X_OK) for folder in folders)

    def url(self, path: str) -> str:
        """Return the address of a path in this store."""
        return f"recall://{self.name}/{path}"

    def locate(self, path: str) -> Path:
        """Return where a path of the store is on disk.

        Raises
        ------
        InvalidInputError
            Kind ``invalid-path``: it is malformed, or a symlink leads out of the root.
        """
        relative = normalise_path(path)
        place = self.root / relative
        try:
            real = Path(os.path.realpath(place))
        except OSError as error:
            raise InvalidInputError(
                f"{path!r} cannot be a path: {error.strerror}.", kind="invalid-path"
            ) from error
        if real == place:
            return place
        inside = real.is_relative_to(self.root) and not real.is_relative_to(self.control)
        if not inside:
            raise InvalidInputError(
                f"{self.url(relative)} leads out of the store by a symlink; "
                "files outside the root are not managed.",
                kind="invalid-path",
                details={"path": relative},
            )
        return place

    def canonical(self, path: str) -> str:
        """Return the one path of a file that symlinked folders give several.

        Raises
        ------
        InvalidInputError
            Kind ``invalid-path`` as for `locate`.
        """
        relative = normalise_path(path)
        parent, _, name = relative.rpartition("/")
        if not parent:
            return relative
        real = Path(os.path.realpath(self.locate(parent)))
        return real.joinpath(name).relative_to(self.root).as_posix()

    def relative(self, place: Path) -> str | None:
        """Return the store path of an absolute path, or None if it is not below the root."""
        parent = Path(os.path.realpath(place.parent)) / place.name
        for candidate in (place, parent, Path(os.path.realpath(place))):
            if candidate.is_relative_to(self.root) and candidate != self.root:
                return candidate.relative_to(self.root).as_posix()
        return None

    def sidecar_path(self, entry_id: str) -> Path:
        """Return where an entry's sidecar is."""
        return self._kept("entries", entry_id[:2], f"{entry_id}.rsc1")

    def environment_path(self, identifier: str) -> Path:
        """Return where a captured environment is."""
        return self._kept("environments", f"{identifier}.json")

    def skeleton_path(self, digest: str) -> Path:
        """Return where a skeleton is."""
        return self._kept("skeletons", digest[:2], f"{digest}.rsk1")

    def contents_path(self, sha256: str) -> Path:
        """Return where the digests of a file's objects are."""
        return self._kept("contents", sha256[:2], f"{sha256}.h5c1")

    def residual_path(self, digest: str) -> Path:
        """Return where a residual is."""
        return self._kept("residuals", digest[:2], f"{digest}.rsd1")

    def code_path(self, digest: str) -> Path:
        """Return where changes of a recipe's code are that no commit holds."""
        return self._kept("code", digest[:2], f"{digest}.diff")

    def log_path(self, derivation_id: str) -> Path:
        """Return where the log of a derivation's last run is."""
        return self._kept("logs", f"{derivation_id}.log")

    def failure_path(self, entry_id: str) -> Path:
        """Return where it is told why an entry could not be proved."""
        return self._kept("failures", entry_id[:2], f"{entry_id}.json")

    def trash_path(self, entry_id: str) -> Path:
        """Return where an entry's released bytes wait."""
        return self._kept("trash", entry_id)

    def rejected_path(self, entry_id: str) -> Path:
        """Return where the newest result is that did not match an entry."""
        return self._kept("rejected", entry_id)

    def aside_path(self, entry_id: str) -> Path:
        """Return where this process may put an original out of a recipe's sight."""
        return self._kept("aside", f"{Holder.current().token()}-{entry_id}")

    def _kept(self, *parts: str) -> Path:
        """Return a place in the control folder; a symlink on the way there is refused."""
        path = self.control.joinpath(*parts)
        refuse_links(self.control.parent, path.parent)
        return path

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Make a private folder for bytes on their way in; it is gone afterwards.

        Raises
        ------
        AccessError
            If the caller may not write to the store.
        SourceError
            Kind ``no-space`` if the disk is full.
        """
        name = f"{Holder.current().token()}-{uuid.uuid4().hex}"
        folder = self._kept("staging", name)
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise _unwritable(error, self.root) from error
        try:
            yield folder
        except OSError as error:
            if is_full(error):
                raise no_space(error, folder) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def partials(self) -> Path:
        """Return the caller's private folder for downloads that may be continued."""
        folder = self._kept("partial", str(os.geteuid()))
        try:
            make_shared_folder(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            if is_full(error):
                raise no_space(error, folder) from error
            raise _unwritable(error, self.root) from error
        return folder

    def sweep_staging(self) -> int:
        """Remove what dead processes of this host left in staging; return how many folders."""
        swept = 0
        for folder in (self.control / "staging").iterdir():
            holder = Holder.from_token(folder.name)
            if holder is not None and holder.is_known_dead():
                # Those of other users are private; they go when one of theirs opens the store.
                shutil.rmtree(folder, ignore_errors=True)
                swept += not folder.exists()
        return swept

    @contextmanager
    def lock(self, entry_id: str) -> Iterator[None]:
        """Be the only one at work on an entry's evidence, among all threads, processes and hosts.

        Raises
        ------
        AccessError
            If the caller may not write to the store.
        LockedError
            If the one at work is a stopped process.
        """

        def look(waited_s: float) -> None:
            if waited_s > _STOPPED_PATIENCE_S:
                intent = self.catalog.intent(entry_id)
                if intent is not None and Holder.parse(intent.holder).is_known_stopped():
                    raise LockedError(
                        f"a stopped process ({intent.holder.split('|')[1]}) is in the middle of "
                        f"'{intent.action}' on {self.url(intent.path)}; continue or end it.",
                        details={"holder": intent.holder, "path": intent.path},
                    )

        with (
            self._locked(locks.WRITERS, shared=True),
            self._locked(locks.entry_byte(entry_id), on_wait=look),
        ):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Add evidence of new entries; keeps away whoever wants to be `alone`."""
        with self._locked(locks.WRITERS, shared=True):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody changes any evidence of the store, and keep it so."""
        with self._locked(locks.WRITERS):
            yield

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Be the only one to decide what may go: a moment's work, inside of all other locks."""
        with self._locked(locks.EVIDENCE):
            yield

    @contextmanager
    def _locked(
        self,
        byte: int,
        *,
        shared: bool = False,
        on_wait: Callable[[float], None] | None = None,
    ) -> Iterator[None]:
        path = self._kept("locks", "store")
        try:
            make_shared_file(path)
            lock = locks.locked(path, byte, shared=shared, on_wait=on_wait)
            lock.__enter__()
        except OSError as error:
            raise _unwritable(error, self.root) from error
        with contextlib.ExitStack() as stack:
            stack.push(lock)
            yield


def _unwritable(error: OSError, root: Path) -> OSError:
    """Say why a store cannot be written to, where the reason is one that we know."""
    if is_full(error):
        return no_space(error, root)
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return AccessError(f"you cannot write to the store at {root} ({error.strerror}).")
    return error


def set_aside_catalog(root: Path) -> bool:
    """Rename a store's own SQLite catalog, so that a new one can be made; False if none is."""
    catalog = root / CONTROL_FOLDER / CATALOG_FILE
    if not catalog.exists():
        return False
    catalog.rename(catalog.with_name(new_name(f"{CATALOG_FILE}.damaged-")))
    for suffix in ("-wal", "-shm"):
        catalog.with_name(CATALOG_FILE + suffix).unlink(missing_ok=True)
    return True


def find_root(place: Path) -> Path | None:
    """Return the root of the store that an absolute path is in, or None."""
    for folder in (place, *place.parents):
        if (folder / CONTROL_FOLDER / STORE_FILE).is_file():
            return folder
    return None


def create_store(
    root: Path, name: str, *, vault: Path | None = None, settings: StoreSettings | None = None
) -> Store:
    """Make a folder the root of a store; if it is one already, just open it.

    Parameters
    ----------
    root : Path
        Made if it is not there. Files in it are left as they are.
    vault : Path, optional
        By default a folder beside the root, ``<root>.recall-vault``.

    Raises
    ------
    InvalidInputError
        If the folder lies inside another store, or inside its own vault.
    """
    if root.exists() and not root.is_dir():
        raise InvalidInputError(
            f"{root} is a file; a store's root is a folder.", kind="invalid-path"
        )
    root = Path(os.path.realpath(root))
    outer = find_root(root.parent)
    if outer is not None:
        raise InvalidInputError(
            f"{root} is inside the store at {outer}; stores cannot be nested.", kind="invalid-path"
        )
    if (root / CONTROL_FOLDER / STORE_FILE).exists():
        store = open_store(root, name=name, settings=settings)
        if vault is None or vault == store.vault:
            return store
        identifier = store.id
    else:
        identifier = uuid.uuid4().hex
    place = Path(os.path.realpath(vault or root.with_name(f"{root.name}.recall-vault")))
    _check_vault(root, place)
    try:
        make_folder(root)
        refuse_links(root, root / CONTROL_FOLDER)
        make_folders(root / CONTROL_FOLDER)
        write_store_file(root, {"format": 1, "id": identifier, "name": name, "vault": str(place)})
    except PermissionError as error:
        raise AccessError(f"you cannot write to {root}: {error.strerror}.") from error
    except OSError as error:
        if is_full(error):
            raise no_space(error, root) from error
        raise
    # One that others could not make later, next to the root as it is by default.
    with contextlib.suppress(OSError):
        make_shared_folder(place, root)
    return open_store(root, name=name, settings=settings)


def make_folders(control: Path) -> None:
    """Make the folders of a store's control folder."""
    for folder in FOLDERS:
        make_shared_folder(control / folder)
    for folder in ("staging", "partial"):
        _make_sticky(control / folder)


def _make_sticky(staging: Path) -> None:
    """Keep members from renaming each other's private folders."""
    mode = staging.stat().st_mode
    if not mode & stat.S_ISVTX:
        staging.chmod(stat.S_IMODE(mode) | stat.S_ISVTX)


def _check_vault(root: Path, vault: Path) -> None:
    if vault.is_relative_to(root):
        raise InvalidInputError(
            f"the vault {vault} would be inside the store; it must survive the store's loss.",
            kind="invalid-path",
        )
    if root.is_relative_to(vault):
        raise InvalidInputError(
            f"the store {root} would be inside its vault {vault}; give the vault a folder of its "
            "own.",
            kind="invalid-path",
        )


def open_store(
    root: Path, *, name: str | None = None, settings: StoreSettings | None = None
) -> Store:
    """Open the store whose root is `root`.

    Raises
    ------
    InvalidInputError
        Kind ``not-a-store`` if `recall init` was never run there; kind ``invalid-path`` if the
        configured vault is inside the store.
    """
    root = Path(os.path.realpath(root))
    values = read_store_file(root)
    settings = settings or StoreSettings(root=root)
    if settings.vault is not None:
        _check_vault(root, Path(os.path.realpath(settings.vault)))
    store = Store(
        name=name or values["name"],
        id=values["id"],
        root=root,
        vault=settings.vault or Path(values["vault"]),
        settings=settings,
    )
    _make_catalog_file(store)
    store.catalog.prepare()
    return store


def _make_catalog_file(store: Store) -> None:
    """Make the catalog's file before SQLite does, which would ask the umask; check what is there.

    What SQLite puts beside it gets the permissions of the database.
    """
    for folder in FOLDERS:
        refuse_links(store.root, store.control / folder)
    catalog = store.control / CATALOG_FILE
    if os.path.lexists(catalog) and not is_regular(catalog):
        raise not_ours(catalog)
    if store.settings.catalog is None:
        # Who may not write here is told so by those who need to.
        with contextlib.suppress(OSError):
            make_shared_file(catalog)
