"""How a recipe's outputs are written: chunks, compression, buffers; declared and part of the key."""

from recallfs.recipes.backend.settings import Backend

__all__ = ["Backend"]
