"""Unchanged reading code gets released files back, once `install` was called."""

from __future__ import annotations

from recallfs.readers.patches import install, is_installed, uninstall

__all__ = ["install", "is_installed", "uninstall"]
