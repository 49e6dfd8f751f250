"""Wrapping the readers: h5py's File and pynwb's NWBHDF5IO, and unwrapping them without a trace."""

from __future__ import annotations

import functools
import importlib.abc
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from recallfs.readers.availability import make_available

_NATIVE_DRIVERS = (None, "sec2", "stdio", "core", "direct")
"""HDF5 drivers that take the path of one ordinary file."""

_lock = threading.RLock()
_originals: dict[type, Callable[..., None]] = {}
_finder: _AfterImport | None = None


def install() -> None:
    """Make unchanged reading code bring released files back.

    Wraps `h5py.File` and, once pynwb is imported, `pynwb.NWBHDF5IO`. Calling it again changes
    nothing. Does nothing inside a recipe's worker: a recipe sees the files as they are.

    See Also
    --------
    uninstall
    """
    global _finder  # noqa: PLW0603 - the one import hook of this process
    if os.environ.get("RECALLFS_WORKER"):
        return
    import h5py

    with _lock:
        _wrap(h5py.File, "name")
        if "pynwb" in sys.modules:
            _wrap_pynwb(sys.modules["pynwb"])
        if _finder is None:
            _finder = _AfterImport("pynwb", _wrap_pynwb)
            sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Undo `install`, leaving the readers as they were."""
    global _finder  # noqa: PLW0603 - the one import hook of this process
    with _lock:
        for reader, original in _originals.items():
            reader.__init__ = original  # type: ignore[misc] # that is what was there
        _originals.clear()
        if _finder is not None:
            sys.meta_path.remove(_finder)
            _finder = None


def is_installed() -> bool:
    """Tell whether the readers are wrapped."""
    return bool(_originals)


def _wrap_pynwb(module: ModuleType) -> None:
    reader = getattr(module, "NWBHDF5IO", None)
    if isinstance(reader, type):
        _wrap(reader, "path")


def _wrap(reader: type, argument: str) -> None:
    """Look at the path and mode that a reader is given, before it looks itself."""
    with _lock:
        if reader in _originals:
            return
        original = reader.__init__  # type: ignore[misc] # the class's own, not an instance's

        @functools.wraps(original)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            name = args[0] if args else kwargs.get(argument)
            mode = args[1] if len(args) > 1 else kwargs.get("mode", "r")
            if kwargs.get("file") is None and kwargs.get("driver") in _NATIVE_DRIVERS:
                name = make_available(name, mode if isinstance(mode, str) else "r")
                if args:
                    args = (name, *args[1:])
                elif argument in kwargs:
                    kwargs[argument] = name
            original(self, *args, **kwargs)

        reader.__init__ = init  # type: ignore[misc] # that is what patching is
        _originals[reader] = original


class _AfterImport(importlib.abc.MetaPathFinder):
    """Call a function on a module right after its first import."""

    def __init__(self, name: str, action: Callable[[ModuleType], None]) -> None:
        self.name = name
        self.action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
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
            if is_installed():
                self.action(module)

        loader.exec_module = exec_module
