"""What measuring needs beside recallfs; the package's extra ``bench`` brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

from recallfs.errors import InvalidInputError


def require(module: str) -> ModuleType:
    """Import a module of the extra ``bench``.

    Parameters
    ----------
    module : str
        Its name.

    Raises
    ------
    InvalidInputError
        If it is not installed; the sentence says what to do.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = {"cpuinfo": "py-cpuinfo"}.get(module.partition(".")[0], module.partition(".")[0])
        raise InvalidInputError(
            f"{package} is not installed, and this needs it: pip install 'recallfs[bench]'.",
            details={"package": package},
        ) from None
