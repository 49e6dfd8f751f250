"""``UPath("recall://…")`` for universal_pathlib."""

from __future__ import annotations

import fsspec
from upath import UPath

# universal_pathlib warns of a protocol whose class nobody has loaded yet.
fsspec.get_filesystem_class("recall")


class RecallPath(UPath):
    """A path of a store, for code written with pathlib."""

    __slots__ = ()

    def is_absolute(self) -> bool:
        """Return True, unless the path was made relative: it begins with a store's name."""
        return not hasattr(self, "_relative_base") or self._relative_base is None
