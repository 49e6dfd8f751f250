"""Walking through folders to add up what is there, without changing anything.

Nothing is opened for writing, no link is followed, and access times stay as they are where the
system allows that. Memory does not grow with the number of files, only with that of the folders
that are told apart, and of files with several names of which not all were seen yet.
"""

from __future__ import annotations

import os
import random
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from recallfs.catalog.onlooker import Known, Onlooker
from recallfs.catalog.store_file import STORE_FILE
from recallfs.errors import InvalidInputError, RecallError
from recallfs.mounts import file_system, read_mounts
from recallfs.release import kinds
from recallfs.release.survey import AGES, Amount, FolderAmount, StoreAmount, Survey
from recallfs.values import CONTROL_FOLDER, now_utc

_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own is
_LEAST_HOLE_BYTES = 64 * 1024
_ENDINGS = 500
_DAY_NS = 86_400 * 10**9


class _Folder(NamedTuple):
    """A folder that waits to be visited.

    Parameters
    ----------
    row : str
        The folder that its bytes are told under.
    below : int
        How many folders deep it lies.
    kind : str or None
        Of all that is in it, if that is known.
    store : _Watched or None
        The store that it lies in.
    """

    path: str
    row: str
    below: int
    device: int
    kind: str | None
    store: _Watched | None


@dataclass
class _Watched:
    """A store that is being walked through."""

    root: str
    onlooker: Onlooker | None
    amount: StoreAmount

    def known(self, folder: str) -> Mapping[str, Known]:
        """Return what its catalog says of the files of a folder."""
        if self.onlooker is None:
            return {}
        try:
            relative = os.path.relpath(folder, self.root)
            return self.onlooker.files_in("" if relative == "." else relative)
        except (RecallError, OSError) as error:
            self.amount.problem = str(error)
            self.onlooker = None
            return {}


def survey(
    folders: Sequence[Path],
    *,
    depth: int = 1,
    cross: bool = False,
    look_into: int = 100,
    catalogs: Mapping[Path, str] | None = None,
    progress: Callable[[str, int], None] = lambda _what, _count: None,
) -> Survey:
    """Add up what lies in folders.

    Parameters
    ----------
    folders : sequence of Path
        One that lies in another is not counted twice.
    depth : int
        How many folders deep sums are told apart.
    cross : bool
        Whether to enter other file systems that are mounted below.
    look_into : int
        How many NWB files, picked at random, are opened to see what they are.
    catalogs : Mapping of Path to str, optional
        URL of a store's catalog by its root, where that is on a server.
    progress : callable
        Told the folder that is being visited, and how many files were seen since the last call.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-path``: something is no folder.

    Notes
    -----
    A file that has several names counts once, where it is met first. What changes meanwhile is
    counted as it is when it is met.
    """
    return _Walk(depth, cross, look_into, catalogs or {}, progress).run(_outermost(folders))


def _outermost(folders: Sequence[Path]) -> list[str]:
    """Resolve the folders, and leave out those inside others."""
    real = sorted({os.path.realpath(folder) for folder in folders})
    for folder in real:
        if not Path(folder).is_dir():
            raise InvalidInputError(
                f"{kinds.shown(folder)} is not a folder that is there; name one.",
                kind="invalid-path",
            )
    kept: list[str] = []
    for folder in real:
        if not any(Path(folder).is_relative_to(other) for other in kept):
            kept.append(folder)
    return kept


@dataclass
class _Tally:
    """What was counted of one folder, before its markers say what it is."""

    folder: _Folder
    store: _Watched | None
    known: Mapping[str, Known]
    kinds: dict[str, Amount] = field(default_factory=dict)
    endings: dict[str, Amount] = field(default_factory=dict)
    markers: set[str] = field(default_factory=set)


class _Walk:
    def __init__(
        self,
        depth: int,
        cross: bool,
        look_into: int,
        catalogs: Mapping[Path, str],
        progress: Callable[[str, int], None],
    ) -> None:
        self.depth = depth
        self.cross = cross
        self.look_into = look_into
        self.catalogs = catalogs
        self.progress = progress
        self.mount_points = {mount.info.mount_point for mount in read_mounts()}
        self.names_to_come: dict[tuple[int, int], int] = {}
        self.picked: list[str] = []
        self.nwb_seen = 0
        self.devices: set[int] = set()
        self.stores: list[_Watched] = []
        self.found = Survey([], now_utc())
        self.chance = random.Random(0)  # noqa: S311 - no secret: a sample that can be repeated
        now = time.time_ns()
        self.limits = [(now - days * _DAY_NS, name) for name, days in AGES]

    def run(self, roots: list[str]) -> Survey:
        self.found = Survey(roots, now_utc())
        start = time.monotonic()
        for root in roots:
            device = os.lstat(root).st_dev
            inner = self._store_around(root)
            kind = kinds.CONTROL if CONTROL_FOLDER in Path(root).parts else None
            waiting = [_Folder(root, root, 0, device, kind, inner)]
            while waiting:
                waiting.extend(self._visit(waiting.pop()))
        for store in self.stores:
            if store.onlooker is not None:
                store.onlooker.close()
        self._roll_up()
        self._look_into_some()
        self.found.seconds = time.monotonic() - start
        return self.found

    # -- stores -----------------------------------------------------------------------------

    def _store_around(self, folder: str) -> _Watched | None:
        for place in (folder, *map(str, Path(folder).parents)):
            store = self._store_at(place)
            if store is not None:
                return store
        return None

    def _store_at(self, folder: str) -> _Watched | None:
        if not os.path.lexists(f"{folder}/{CONTROL_FOLDER}/{STORE_FILE}"):
            return None
        amount = StoreAmount(folder, "")
        onlooker = None
        try:
            onlooker = Onlooker(Path(folder), self.catalogs.get(Path(folder)))
            amount.name = onlooker.name
        except (RecallError, OSError) as error:
            amount.problem = str(error)
        self.found.stores.append(amount)
        store = _Watched(folder, onlooker, amount)
        self.stores.append(store)
        return store

    # -- folders ----------------------------------------------------------------------------

    def _visit(self, folder: _Folder) -> Iterator[_Folder]:
        """Count what is in one folder; yield those in it."""
        opened = self._opened(folder)
        if opened is None:
            return
        self.found.folder_count += 1
        store = folder.store
        if store is None and folder.kind is None:
            store = self._store_at(folder.path)
        below: list[str] = []
        try:
            kind = self._count(folder, store, opened, below)
        except OSError as error:
            kind = folder.kind
            self.found.unreadable.add(folder.path, error.strerror or str(error))
        finally:
            os.close(opened)
        if kind is not None and folder.kind is None:
            self.found.kind_folders[kind] = self.found.kind_folders.get(kind, 0) + 1
        device = folder.device
        for name in below:
            path = os.path.join(folder.path, name)  # noqa: PTH118 - a million times
            inside = folder.below + 1
            row = path if inside <= self.depth else folder.row
            inner = kind or kinds.kind_of_folder(name)
            if inner is not None and kind is None:
                self.found.kind_folders[inner] = self.found.kind_folders.get(inner, 0) + 1
            yield _Folder(path, row, inside, device, inner, store)

    def _opened(self, folder: _Folder) -> int | None:
        """Open a folder, unless it is on another file system that is not asked for."""
        is_mounted = folder.below and folder.path in self.mount_points
        if is_mounted and not self.cross:
            self.found.other_file_systems.add(folder.path)
            return None
        try:
            descriptor = kinds.open_quietly(folder.path, kinds.folder_flags())
        except FileNotFoundError:
            self.found.vanished += 1
            return None
        except OSError as error:
            self.found.unreadable.add(folder.path, error.strerror or str(error))
            return None
        device = os.fstat(descriptor).st_dev
        if device != folder.device and not self.cross:
            self.found.other_file_systems.add(folder.path)
            os.close(descriptor)
            return None
        if device not in self.devices:
            self.devices.add(device)
            self._note_access_times(folder.path, descriptor)
        return descriptor

    def _note_access_times(self, path: str, descriptor: int) -> None:
        flags = os.fstatvfs(descriptor).f_flag
        kept = "always"
        if flags & getattr(os, "ST_NOATIME", 0):
            kept = "never"
        elif flags & getattr(os, "ST_RELATIME", 0):
            kept = "daily"
        info = file_system(Path(path))
        self.found.access_times.append(
            {
                "path": kinds.shown(path),
                "file_system": info.kind,
                "is_network": info.is_network,
                "kept": kept,
            }
        )

    def _count(
        self, folder: _Folder, store: _Watched | None, descriptor: int, below: list[str]
    ) -> str | None:
        """Count the files of a folder, and gather the names of those below it."""
        found = self.found
        is_known = store is not None and folder.kind is None
        tally = _Tally(folder, store, store.known(folder.path) if store and is_known else {})
        found.folders.setdefault(folder.row, FolderAmount())
        files = 0
        with os.scandir(descriptor) as entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                        continue
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    found.vanished += 1
                except OSError as error:
                    place = f"{folder.path}/{entry.name}"
                    found.unreadable.add(place, error.strerror or str(error))
                else:
                    self._count_file(tally, entry.name, status)
                    files += 1
                    if files % 1000 == 0:
                        self.progress(kinds.shown(folder.path), 1000)
        self.progress(kinds.shown(folder.path), files % 1000)
        return self._add_kinds(tally)

    def _count_file(self, tally: _Tally, name: str, status: os.stat_result) -> None:
        found = self.found
        if stat.S_ISLNK(status.st_mode):
            found.links += 1
            return
        if not stat.S_ISREG(status.st_mode):
            found.special += 1
            return
        if kinds.is_marker(name):
            tally.markers.add(name)
        size, disk = status.st_size, status.st_blocks * _BLOCK_BYTES
        if status.st_nlink > 1:
            if not self._is_first_name(status):
                return
            found.linked.add(1, size, disk)
        row = found.folders[tally.folder.row]
        row.add(1, size, disk)
        row.modified_ns = max(row.modified_ns, status.st_mtime_ns)
        row.accessed_ns = max(row.accessed_ns, status.st_atime_ns)
        found.modified[self._age(status.st_mtime_ns)].add(1, size, disk)
        found.accessed[self._age(status.st_atime_ns)].add(1, size, disk)
        if size - disk >= _LEAST_HOLE_BYTES:
            found.sparse.add(1, size, disk)
        kind = tally.folder.kind or kinds.kind_of(name)
        tally.kinds.setdefault(kind, Amount()).add(1, size, disk)
        if kind == kinds.OTHER:
            ending = os.path.splitext(name)[1].lower()[:20]  # noqa: PTH122 - a million times
            tally.endings.setdefault(ending, Amount()).add(1, size, disk)
        elif kind == kinds.NWB:
            self._pick(f"{tally.folder.path}/{name}")
        if name in tally.known and tally.store is not None:
            self._note_known(tally.store, tally.known[name], size, disk)

    def _is_first_name(self, status: os.stat_result) -> bool:
        """Tell whether a file with several names is met for the first time."""
        key = (status.st_dev, status.st_ino)
        to_come = self.names_to_come.get(key)
        if to_come is None:
            self.names_to_come[key] = status.st_nlink - 1
            return True
        self.found.more_names += 1
        if to_come == 1:
            del self.names_to_come[key]  # all were met: it need not be remembered
        else:
            self.names_to_come[key] = to_come - 1
        return False

    def _age(self, moment_ns: int) -> str:
        for limit, name in self.limits:
            if moment_ns >= limit:
                return name
        return "older"

    def _add_kinds(self, tally: _Tally) -> str | None:
        """Add the sums of one folder; what its markers say goes before what names do."""
        kind = tally.folder.kind
        if kind is None and tally.markers:
            kind = kinds.marked_kind(tally.folder.path, tally.markers)
        for name, item in tally.kinds.items():
            total = self.found.kinds.setdefault(kind or name, Amount())
            total.add(item.files, item.size_bytes, item.disk_bytes)
        for ending, item in tally.endings.items() if kind is None else ():
            known = self.found.endings
            place = ending if ending in known or len(known) < _ENDINGS else "(others)"
            total = known.setdefault(place, Amount())
            total.add(item.files, item.size_bytes, item.disk_bytes)
        return kind

    def _note_known(self, store: _Watched, known: Known, size: int, disk: int) -> None:
        store.amount.catalogued.add(1, size, disk)
        if known.recipe is not None:
            store.amount.with_recipe.add(1, size, disk)
        if known.proved_until is not None and known.proved_until > self.found.started_at:
            store.amount.proved.add(1, size, disk)

    # -- afterwards -------------------------------------------------------------------------

    def _roll_up(self) -> None:
        """Add the sums of folders to those around them, deepest first."""
        roots = set(self.found.roots)
        by_depth = sorted(self.found.folders, key=lambda path: -path.count("/"))
        for path in by_depth:
            item = self.found.folders[path]
            if path in roots:
                self.found.total.add(item.files, item.size_bytes, item.disk_bytes)
                continue
            above = self.found.folders[str(Path(path).parent)]
            above.add(item.files, item.size_bytes, item.disk_bytes)
            above.modified_ns = max(above.modified_ns, item.modified_ns)
            above.accessed_ns = max(above.accessed_ns, item.accessed_ns)

    def _pick(self, path: str) -> None:
        """Pick files at random, each with the same chance, without keeping them all."""
        self.nwb_seen += 1
        if len(self.picked) < self.look_into:
            self.picked.append(path)
        elif self.look_into:
            place = self.chance.randrange(self.nwb_seen)
            if place < self.look_into:
                self.picked[place] = path

    def _look_into_some(self) -> None:
        found = self.found
        for path in self.picked:
            self.progress(f"looking into {kinds.shown(path)}", 0)
            looked = kinds.look_into(path)
            if looked is None:
                found.nwb_unread += 1
                continue
            found.nwb_looked_into += 1
            for counts, names in (
                (found.nwb_versions, [looked.version or "unknown"]),
                (found.nwb_writers, looked.writers),
                (found.nwb_types, looked.types),
            ):
                for name in names:
                    counts[name] = counts.get(name, 0) + 1
