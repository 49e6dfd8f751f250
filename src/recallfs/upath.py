"""``UPath("recall://…")`` for universal_pathlib."""

from __future__ import annotations

from upath import UPath


class RecallPath(UPath):
    """A path of a store, for code written with pathlib."""
