"""Wrapping what reads files, and unwrapping it without a trace."""

from __future__ import annotations

import functools
import importlib.abc
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from recallfs.readers.availability import (
    make_available,
    make_folder_available,
    opened_in_parts,
    parts_of,
)
from recallfs.readers.links import following_links
from recallfs.readers.presence import recorded_stat

_NATIVE_DRIVERS = (None, "sec2", "stdio", "core", "direct")
"""HDF5 drivers that take the path of one ordinary file."""


_NWB_EXTRACTORS = "spikeinterface.extractors.nwbextractors"


@dataclass(frozen=True)
class Reader:
    """Something that is given a path to read.

    Parameters
    ----------
    module : str
        Where it is defined; wrapped once that is imported.
    name : str
        A function, or ``Class.__init__``.
    argument : str
        Its first parameter, the path.
    has_mode : bool
        Whether the second is h5py's mode.
    is_folder : bool
        Whether the path may be a folder's.
    by_h5py : bool
        Whether h5py alone reads the file, which may do so in parts.
    """

    module: str
    name: str
    argument: str
    has_mode: bool = False
    is_folder: bool = False
    by_h5py: bool = False


READERS = (
    Reader("h5py._hl.files", "File.__init__", "name", has_mode=True),
    Reader("h5py._hl.base", "is_hdf5", "fname", by_h5py=True),
    Reader("pynwb", "NWBHDF5IO.__init__", "path", has_mode=True, by_h5py=True),
    # It looks whether the path is there and whose format it has, before it opens it.
    Reader("pynwb", "read_nwb", "path", is_folder=True, by_h5py=True),
    Reader("hdmf_zarr.nwb", "NWBZarrIO.__init__", "path", has_mode=True, is_folder=True),
    # These read the first bytes of an HDF5 file without h5py.
    *(
        Reader(_NWB_EXTRACTORS, f"{name}.__init__", "file_path", is_folder=True)
        for name in ("NwbRecordingExtractor", "NwbSortingExtractor", "NwbTimeSeriesExtractor")
    ),
    Reader("spikeinterface.core.loading", "load", "file_or_folder_or_dict", is_folder=True),
    Reader("pynapple.io.misc", "load_file", "path"),
)  # fmt: skip
"""What is wrapped, each at the lowest place that sees the path."""

_lock = threading.RLock()
_undo: list[Callable[[], None]] = []
_wrapped: set[Reader] = set()
_finder: _AfterImport | None = None
_is_active = False


def install() -> None:
    """Make unchanged reading code bring released files back.

    Wraps what `READERS` lists, in libraries that are imported already or will be, `os.stat`, and
    the way in which h5py follows external links. Calling it again changes nothing. Does nothing
    inside a recipe's worker: a recipe sees the files as they are.

    See Also
    --------
    uninstall

    Notes
    -----
    Holds for this process and those forked from it. Safe to call from several threads.
    """
    global _finder, _is_active  # noqa: PLW0603 - there is one set of readers in a process
    if os.environ.get("RECALLFS_WORKER"):
        return
    import h5py  # noqa: F401 - so that what has it already is wrapped, too

    with _lock:
        _is_active = True
        _wrap_stat()
        _wrap_links()
        names = {reader.module for reader in READERS}
        for name in names:
            if sys.modules.get(name) is not None:  # None forbids an import
                _wrap_module(sys.modules[name])
        if _finder is None:
            _finder = _AfterImport(names, _wrap_module)
            sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Undo `install`, leaving the readers as they were."""
    global _finder, _is_active  # noqa: PLW0603 - there is one set of readers in a process
    with _lock:
        _is_active = False
        while _undo:
            _undo.pop()()
        _wrapped.clear()
        if _finder is not None:
            if _finder in sys.meta_path:
                sys.meta_path.remove(_finder)
            _finder = None


def is_installed() -> bool:
    """Tell whether the readers are wrapped."""
    return _is_active


def _replace(owner: Any, name: str, new: Any) -> None:
    """Set an attribute; undone unless somebody else has set it since."""
    original = vars(owner)[name]
    setattr(owner, name, new)

    def undo() -> None:
        if vars(owner).get(name) is new:
            setattr(owner, name, original)

    _undo.append(undo)


def _wrap_stat() -> None:
    if os.stat is recorded_stat:
        return
    native = os.stat
    _replace(os, "stat", recorded_stat)
    for names in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if native in names:
            names.add(recorded_stat)  # what asks `os.stat in os.supports_fd`
            _undo.append(functools.partial(names.discard, recorded_stat))
    accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 holds `os.stat` there
    if accessor is not None:
        _replace(accessor, "stat", staticmethod(recorded_stat))


def _wrap_links() -> None:
    import h5py

    mark = "links"
    if any(getattr(reader, "name", "") == mark for reader in _wrapped):
        return
    _wrapped.add(Reader("h5py", mark, ""))
    name = "_get" if "_get" in vars(h5py.Group) else "__getitem__"  # what `Group.get` calls, too
    _replace(h5py.Group, name, following_links(vars(h5py.Group)[name]))


def _wrap_module(module: ModuleType) -> None:
    """Wrap the readers that a module defines, if it still defines them."""
    with _lock:
        if not _is_active:
            return
        for reader in READERS:
            if reader.module != module.__name__ or reader in _wrapped:
                continue
            owner_name, _, method = reader.name.rpartition(".")
            owner = getattr(module, owner_name, None) if owner_name else module
            original = getattr(owner, method, None)
            if original is None:
                continue  # another version of that library
            _wrapped.add(reader)
            if isinstance(owner, type):
                if method not in vars(owner):
                    continue
                wrap = _opening if reader.name == "File.__init__" else _wrapper
                _replace(owner, method, wrap(reader, original, 1))
            else:
                _replace_function(original, _wrapper(reader, original, 0))


def _replace_function(original: Any, new: Any) -> None:
    """Replace a function wherever its package, or the main program, has it by name."""
    package = original.__module__.partition(".")[0]
    for name, module in list(sys.modules.items()):
        if name in (package, "__main__") or name.startswith(f"{package}."):
            for key, value in list(vars(module).items()):
                if value is original:
                    _replace(module, key, new)


def _wrapper(reader: Reader, original: Callable[..., Any], first: int) -> Callable[..., Any]:
    """Look at the path and mode that a reader is given, before it looks itself.

    Parameters
    ----------
    first : int
        Position of the path.
    """
    argument, has_mode, is_folder = reader.argument, reader.has_mode, reader.is_folder
    by_h5py = reader.by_h5py

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not _is_active:
            return original(*args, **kwargs)
        given = len(args)
        name = args[first] if given > first else kwargs.get(argument)
        mode = "r"
        if has_mode:
            mode = args[first + 1] if given > first + 1 else kwargs.get("mode", "r")
            if not isinstance(mode, str):
                mode = "r"
        if kwargs.get("file") is None and kwargs.get("driver") in _NATIVE_DRIVERS:
            parts = parts_of(name) if by_h5py and mode == "r" else None
            if parts is not None:
                if reader.name == "is_hdf5":
                    return True  # it has a skeleton
                found = str(parts.store.root / parts.entry.path)  # h5py is asked for it later
            elif is_folder and mode[:1] == "r":
                found = make_folder_available(name)
                if found is name:
                    found = make_available(name, mode)
            else:
                found = make_available(name, mode)
            if found is not name:
                if given > first:
                    args = (*args[:first], found, *args[first + 1 :])
                else:
                    kwargs[argument] = found
        return original(*args, **kwargs)

    return wrapper


def _opening(reader: Reader, original: Callable[..., Any], first: int) -> Callable[..., Any]:
    """Wrap `h5py.File`: for reading, it tries first, so that a file that is there costs nothing.

    Parameters
    ----------
    first : int
        Position of the path.
    """
    looking_first = _wrapper(reader, original, first)

    @functools.wraps(original)
    def opening(self: Any, name: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
        # Other drivers do not say that it was for want of the file that they failed.
        if (mode != "r" and mode != "r+") or kwargs.get("driver"):  # noqa: PLR1714 - quicker than a set
            return looking_first(self, name, mode, *args, **kwargs)
        try:
            return original(self, name, mode, *args, **kwargs)
        except OSError as error:
            if not _is_active or not _is_of_missing_file(error):
                raise
            partly = opened_in_parts(name) if mode == "r" and not any(args[:1]) else None
            if partly is not None:
                return original(self, partly, mode, *args, **kwargs)
            found = make_available(name, mode)
            # Whoever brought it: another thread may have been quicker.
            if not isinstance(found, (str, bytes, os.PathLike)) or not os.path.lexists(found):
                raise
        return original(self, found, mode, *args, **kwargs)

    return opening


def _is_of_missing_file(error: OSError) -> bool:
    # Older versions of h5py say so in words alone.
    return isinstance(error, FileNotFoundError) or "errno = 2," in str(error)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Call a function on modules right after their first import."""

    def __init__(self, names: set[str], action: Callable[[ModuleType], None]) -> None:
        self.names = names
        self.action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.names:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                self._extend(spec.loader)
                return spec
        return None

    def _extend(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the loader stays with the module; nothing of ours on it
            execute(module)
            self.action(module)

        loader.exec_module = exec_module
