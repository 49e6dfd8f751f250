"""Starting Spyglass with less than it usually loads; for a recipe's own process.

Most of a short recompute is what comes before it. Spyglass' packages of spike sorting import
figures, metrics and cloud clients, which no recipe here needs; and each NWB file that is opened has
its extensions parsed again, which takes longer than reading it.
"""

from __future__ import annotations

import gc
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_WIDE = ("spyglass.spikesorting", "spyglass.spikesorting.v0", "spyglass.spikesorting.v1")
"""Packages whose ``__init__`` imports all that is in them."""


_COLLECTED_AFTER = 100_000


class _Package(ModuleType):
    """A package whose ``__init__`` is run once somebody asks for a name that it would give."""

    __path__: list[str]
    __spec__: importlib.machinery.ModuleSpec

    def __getattr__(self, name: str) -> Any:
        loader = None if name.startswith("__") else self.__dict__.pop("_waiting", None)
        if loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        loader.exec_module(self)
        return getattr(self, name)


def keep_packages_narrow(module: str) -> None:
    """Let a module of Spyglass be imported without its packages' other modules.

    Does nothing outside a recipe's worker, where somebody may want them.
    """
    if not os.environ.get("RECALLFS_WORKER"):
        return
    # A million objects stay for good; to look through them again and again takes a second.
    gc.set_threshold(_COLLECTED_AFTER)
    for name in _WIDE:
        if not module.startswith(f"{name}.") or name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None or spec.submodule_search_locations is None:
            return
        package = _Package(name)
        package.__spec__, package.__loader__ = spec, spec.loader
        package.__path__ = list(spec.submodule_search_locations)
        package.__file__, package.__package__ = spec.origin, name
        package.__dict__["_waiting"] = spec.loader
        sys.modules[name] = package


def load_extensions(file: Path) -> None:
    """Parse the NWB extensions that a file brings along once, for all files that have them too."""
    import pynwb

    if file.is_file():
        pynwb.NWBHDF5IO.load_namespaces(pynwb.get_type_map(copy=False), str(file))
        gc.freeze()
