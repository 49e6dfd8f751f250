"""``UPath("recall://…")`` for universal_pathlib."""

from __future__ import annotations

import fsspec
from upath import UPath

# universal_pathlib warns of a protocol whose class nobody has loaded yet.
fsspec.get_filesystem_class("recall")


class RecallPath(UPath):
    """A path of a store, for code written with pathlib."""
