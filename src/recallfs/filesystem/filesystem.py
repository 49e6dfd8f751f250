"""`RecallFileSystem`: a store as an fsspec filesystem, ``recall://<store>/<path>``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

from fsspec.core import has_magic
from fsspec.spec import AbstractFileSystem
from fsspec.utils import isfilelike, other_paths

from recallfs.atomic import make_folder
from recallfs.catalog.store import Store
from recallfs.errors import InvalidInputError
from recallfs.filesystem.changing import move_file, remove_file
from recallfs.filesystem.listing import describe, list_folder
from recallfs.filesystem.opening import NativeFile, available, open_in_parts, open_native
from recallfs.filesystem.transaction import RecallTransaction
from recallfs.resolve import tree
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.resolve.writer import StagedFile, StagedText
from recallfs.values import BLOCK_BYTES, RecallURL


class RecallFileSystem(AbstractFileSystem):
    """Files of a store, here or not: opening one that was released brings it back.

    Parameters
    ----------
    root : str, optional
        Folder of a store that needs no configuration; it is called by its folder's name.
        Without it, the stores are those of the configuration.

    Notes
    -----
    A file that is here is opened as a native file. A file that is written appears under its name
    only when it is closed whole. Instances hold no state of their own and can be pickled.

    Examples
    --------
    >>> import fsspec
    >>> with fsspec.open("recall://analysis/sub-1/lfp.nwb") as file:  # doctest: +SKIP
    ...     file.read(8)
    """

    protocol = "recall"
    root_marker = ""
    local_file = True
    async_impl = False
    transaction_type = RecallTransaction
    _extra_tokenize_attributes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, root: str | os.PathLike[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = None if root is None else Path(os.path.realpath(os.fspath(root)))

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(item) for item in path]
        text = os.fspath(path)
        for prefix in ("recall://", "recall::"):
            text = text.removeprefix(prefix)
        return text.strip("/")

    def unstrip_protocol(self, name: str) -> str:
        """Write a path of this filesystem as a URL."""
        return f"recall://{self._strip_protocol(name)}"

    @property
    def stores(self) -> Stores:
        """The stores that this filesystem shows."""
        return stores_in_reach(self.root)

    def _split(self, path: str) -> tuple[Store, str]:
        url = RecallURL.parse(self._strip_protocol(path))
        store = self.stores.by_name(url.store)
        return store, store.canonical(url.path)

    # -- looking ----------------------------------------------------------------------------

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Describe a file or folder; a file that is not here has its true size.

        Returns
        -------
        dict
            ``name``, ``size`` (bytes), ``type``, ``mtime``, ``created`` and, for an entry of the
            catalog, ``state`` and ``sha256``. The state is ``unknown``, and there is no digest,
            where something was written since it was last looked at: only hashing can tell.

        Raises
        ------
        FileNotFoundError
            If there is nothing of that name, here or on record.
        """
        path = self._strip_protocol(path)
        if not path:
            return {"name": "", "size": 0, "type": "directory"}
        store, relative = self._split(path)
        if not relative:
            return {"name": path, "size": 0, "type": "directory"}
        return describe(store, relative, path)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a folder: what is in the tree and what the catalog knows to belong there."""
        path = self._strip_protocol(path)
        if path:
            store, relative = self._split(path)
            listed = list_folder(store, relative)
            found = [self.info(path)] if listed is None else listed
        else:
            found = [{"name": n, "size": 0, "type": "directory"} for n in self.stores.names()]
        found.sort(key=lambda item: str(item["name"]))
        return found if detail else [item["name"] for item in found]

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Tell whether there is something of that name, here or recallable.

        Unlike fsspec's own, this does not take an outage or a missing right for 'no'.
        """
        return self._kind(path) is not None

    def isfile(self, path: str) -> bool:
        """Tell whether there is a file of that name, here or recallable; fails as `exists`."""
        return self._kind(path) == "file"

    def isdir(self, path: str) -> bool:
        """Tell whether there is a folder of that name, here or on record; fails as `exists`."""
        return self._kind(path) == "directory"

    def _kind(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return None
        except InvalidInputError as error:
            # A configured store that is no store now is a disk that is not mounted.
            if error.kind in ("unknown-store", "invalid-path"):
                return None
            raise

    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: Any = "omit",
        detail: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[str, Any, Any]]:
        """Walk through a folder; see `fsspec.spec.AbstractFileSystem.walk`.

        Parameters
        ----------
        on_error : {"omit", "raise"} or callable
            ``omit`` leaves out what does not exist. It does not leave out what cannot be looked
            at: `find`, `glob`, `du` and all that is recursive would be wrong without a word.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        try:
            listing = self.ls(path, detail=True)
        except OSError as error:
            if callable(on_error):
                on_error(error)
            elif on_error == "raise" or not isinstance(error, FileNotFoundError):
                raise
            return
        folders: dict[str, Any] = {}
        files: dict[str, Any] = {}
        for item in listing:
            name = "" if item["name"] == path else item["name"].rpartition("/")[2]
            (folders if item["type"] == "directory" else files)[name] = item
        paths = {name: item["name"] for name, item in folders.items()}
        shown = (path, folders, files) if detail else (path, list(folders), list(files))
        if topdown:
            yield shown
        if maxdepth is None or maxdepth > 1:
            deeper = None if maxdepth is None else maxdepth - 1
            for name in shown[1]:  # what the caller took out of it is not walked into
                yield from self.walk(paths[name], deeper, topdown, on_error, detail, **kwargs)
        if not topdown:
            yield shown

    def expand_path(
        self, path: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any
    ) -> list[str]:
        """List what a pattern or a folder stands for; a name that exists is no pattern.

        So ``rm("lab/a[1].nwb")`` removes the file of that name and no other.
        """
        paths = [path] if isinstance(path, (str, os.PathLike)) else path
        asked: list[str] = [self._strip_protocol(item) for item in paths]
        literal = [item for item in asked if has_magic(item) and self.exists(item)]
        others = [item for item in asked if item not in literal]
        found = set(literal)
        if recursive:
            for item in literal:
                found.update(self.find(item, maxdepth=maxdepth, withdirs=True))
        if others or not literal:
            found.update(super().expand_path(others, recursive, maxdepth, **kwargs))
        return sorted(found)

    def created(self, path: str) -> datetime:
        """Return when the file was recorded or, for a plain file, last changed."""
        created = self.info(path).get("created")
        if created is None:
            raise IsADirectoryError(path)
        return datetime.fromtimestamp(float(created), tz=timezone.utc)

    def modified(self, path: str) -> datetime:
        """Return when the file was last written; a recall does not count as writing."""
        modified = self.info(path).get("mtime")
        if modified is None:
            raise IsADirectoryError(path)
        return datetime.fromtimestamp(float(modified), tz=timezone.utc)

    def ukey(self, path: str) -> str:
        """Return a key that changes with the bytes: their sha256 where it is on record."""
        info = self.info(path)
        return str(info.get("sha256") or f"{info['size']}-{info.get('mtime')}-{info.get('ino')}")

    def checksum(self, path: str) -> int:
        """Return an integer that changes with the bytes."""
        import hashlib

        return int(hashlib.sha256(self.ukey(path).encode()).hexdigest()[:15], 16)

    # -- opening ----------------------------------------------------------------------------

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        """Open a file; see `fsspec.spec.AbstractFileSystem.open`.

        Parameters
        ----------
        **kwargs
            ``partial``, for reading a file that is not here: whether only what is read of it is
            fetched. None leaves it to ``readers.partial`` of the configuration; with "unverified"
            it is done even where nothing but an ETag tells that the parts are right. What comes is
            then a `recallfs.partial.reading.PartialFile`.

        Raises
        ------
        InvalidInputError
            Also for writing with ``compression``: a compressor that is closed leaves the file
            below it open. `fsspec.open` closes both.
        """
        if "r" not in mode and kwargs.get("compression") is not None:
            raise InvalidInputError(
                "a compressed file is written by fsspec.open(url, mode, compression=...)."
            )
        if "r" in mode or "b" in mode:
            return super().open(path, mode, **kwargs)
        text = {k: kwargs.pop(k) for k in ("encoding", "errors", "newline") if k in kwargs}
        return StagedText(super().open(path, mode.replace("t", "") + "b", **kwargs), **text)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        store, relative = self._split(path)
        if not relative:
            raise IsADirectoryError(path)
        if mode == "rb":
            partly = open_in_parts(self, store, relative, kwargs.get("partial"))
            return partly or open_native(self, store, relative, kwargs.get("callback"))
        if mode in ("wb", "xb", "ab"):
            return self._writer(store, relative, mode, autocommit=autocommit)
        raise InvalidInputError(f"mode {mode!r} is not supported; use rb, wb, xb or ab.")

    def _writer(self, store: Store, relative: str, mode: str, *, autocommit: bool) -> StagedFile:
        start = None
        if mode == "ab" and self.exists(f"{store.name}/{relative}"):
            start = available(self, store, relative)
        return StagedFile(store, relative, mode, start=start, autocommit=autocommit)

    def open_local(self, path: str) -> str:
        """Return the native path of a file, after bringing it back if need be."""
        store, relative = self._split(path)
        return str(available(self, store, relative))

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """Read a file or a byte range of it; of a file that is not here, perhaps in parts."""
        partial = kwargs.get("partial", False if start is None and end is None else None)
        with self.open(path, "rb", partial=partial) as file:
            size = file.size
            first = 0 if start is None else max(0, start + size if start < 0 else start)
            last = size if end is None else max(0, end + size if end < 0 else end)
            file.seek(first)
            return bytes(file.read(max(0, last - first)))

    def cat_ranges(
        self,
        paths: list[str],
        starts: int | list[int | None] | None,
        ends: int | list[int | None] | None,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[bytes | Exception]:
        """Read byte ranges of files, each opened once; see `fsspec.spec.AbstractFileSystem`.

        Of a file that is read in parts, all its ranges are fetched by as few requests as it takes.
        """
        firsts = starts if isinstance(starts, list) else [starts] * len(paths)
        lasts = ends if isinstance(ends, list) else [ends] * len(paths)
        if not len(paths) == len(firsts) == len(lasts):
            raise ValueError("there must be as many starts and ends as paths.")
        results: list[bytes | Exception] = [b""] * len(paths)
        numbers: dict[str, list[int]] = {}
        for number, path in enumerate(paths):
            numbers.setdefault(path, []).append(number)
        for path, wanted in numbers.items():
            try:
                with self.open(path, "rb", partial=kwargs.get("partial")) as file:
                    ranges = [slice(firsts[n], lasts[n]).indices(file.size)[:2] for n in wanted]
                    found: list[Any]
                    if isinstance(file, NativeFile):
                        found = [file._fetch_range(*pair) for pair in ranges]
                    else:
                        found = file.cat_ranges(ranges)
            except Exception as error:
                if on_error != "return":
                    raise
                found = [error] * len(wanted)
            for number, data in zip(wanted, found, strict=True):
                results[number] = data
        return results

    def tail(self, path: str, size: int = 1024) -> bytes:
        """Read the last bytes of a file."""
        return self.cat_file(path, -size) if size else b""

    def get_file(
        self, rpath: str, lpath: Any, callback: Any = None, outfile: Any = None, **kwargs: Any
    ) -> None:
        """Copy a file out of the store, bringing it back first if need be."""
        if outfile is None and isfilelike(lpath):
            outfile = lpath
        if outfile is None and self.isdir(rpath):
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return
        with open_native(self, *self._split(rpath), callback) as source:
            if callback is not None:
                callback.set_size(os.fstat(source.fileno()).st_size)
                callback.absolute_update(0)
            target = outfile if outfile is not None else _open_for_get(lpath)
            try:
                while block := source.read(BLOCK_BYTES):
                    target.write(block)
                    if callback is not None:
                        callback.relative_update(len(block))
            finally:
                if outfile is None:
                    target.close()

    # -- changing ---------------------------------------------------------------------------

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a folder."""
        store, relative = self._split(path)
        place = store.locate(relative)
        if place.exists():
            raise FileExistsError(path)
        if create_parents:
            make_folder(place)
        else:
            place.mkdir()

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder and its parents."""
        store, relative = self._split(path)
        place = store.locate(relative)
        if place.exists() and not (exist_ok and place.is_dir()):
            raise FileExistsError(path)
        make_folder(place)

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        store, relative = self._split(path)
        if not relative:
            raise InvalidInputError("a store's root is not removed.", kind="invalid-path")
        tree.remove_folder(store, relative)

    def rm_file(self, path: str) -> None:
        """Remove a file and forget its entry for good (to free its bytes only, release it).

        Raises
        ------
        ConflictError
            Kind ``pinned``, or ``relied-on`` if released files are made from it.
        """
        remove_file(*self._split(path))

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files or folders; see `rm_file`."""
        expanded = self.expand_path(path, recursive=recursive, maxdepth=maxdepth)
        # Asked before anything is removed: a folder of released files need not exist on the disk.
        folders = {item for item in expanded if self.isdir(item)}
        for item in reversed(expanded):
            if item not in folders:
                self.rm_file(item)
            elif self.exists(item):
                self.rmdir(item)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy a file within its store, bringing it back first if need be."""
        if self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
            return
        source_store, source = self._split(path1)
        store, target = self._split(path2)
        with open_native(self, source_store, source) as file:
            if source_store.id == store.id and source == target:
                return
            with self.open(path2, "wb") as writer:
                while block := file.read(BLOCK_BYTES):
                    writer.write(block)

    def mv(
        self, path1: Any, path2: Any, recursive: bool = False, maxdepth: Any = None, **kwargs: Any
    ) -> None:
        """Move files; a released file moves without being brought back, with all its evidence.

        From one store to another, files are copied and the old ones forgotten.
        """
        if not (isinstance(path1, str) and isinstance(path2, str)) or (
            has_magic(path1) and not self.exists(path1)
        ):
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
            return
        old_store, _ = self._split(path1)
        new_store, _ = self._split(path2)
        is_folder = self.info(path1)["type"] == "directory"
        if old_store.id != new_store.id or (is_folder and not recursive) or maxdepth is not None:
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
            return
        into = path2.endswith("/") or self.isdir(path2)
        sources = self.expand_path(path1, recursive=is_folder)
        targets = other_paths(sources, self._strip_protocol(path2), exists=into)
        folders = []
        for source, target in zip(sources, targets, strict=True):
            if self.isdir(source):
                self.makedirs(target, exist_ok=True)
                folders.append(source)
            else:
                move_file(self.stores, old_store, self._split(source)[1], self._split(target)[1])
        for folder in reversed(folders):
            if self.exists(folder):
                self.rmdir(folder)

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Make an empty file, or empty one."""
        if self.exists(path) and not truncate:
            raise InvalidInputError("the time of a recorded file is part of its record.")
        with self.open(path, "wb"):
            pass

    def invalidate_cache(self, path: str | None = None) -> None:
        """Do nothing: nothing is cached."""


def _open_for_get(lpath: Any) -> Any:
    target = Path(lpath)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.open("wb")
