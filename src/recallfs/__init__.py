"""Delete derived NWB/HDF5 files and go on as if they were there.

``import recallfs`` is cheap and changes nothing; what is named here is loaded when it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which would take longer to load than all that is here
if TYPE_CHECKING:
    from typing import Any

    from recallfs.filesystem import RecallFileSystem
    from recallfs.partial.opening import open_h5
    from recallfs.readers import install, uninstall
    from recallfs.recipes.backend import Backend
    from recallfs.recipes.model import recipe

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "RecallFileSystem",
    "__version__",
    "install",
    "open_h5",
    "recipe",
    "uninstall",
]

_PLACES = {
    "Backend": "recallfs.recipes.backend",
    "RecallFileSystem": "recallfs.filesystem",
    "install": "recallfs.readers",
    "load_ipython_extension": "recallfs.readers.notebook",
    "open_h5": "recallfs.partial.opening",
    "recipe": "recallfs.recipes.model",
    "uninstall": "recallfs.readers",
    "unload_ipython_extension": "recallfs.readers.notebook",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
