"""`RecallFileSystem`: stores as an fsspec filesystem."""

from recallfs.filesystem.filesystem import RecallFileSystem

__all__ = ["RecallFileSystem"]
