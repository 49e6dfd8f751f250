"""How a recipe's outputs are written: chunks, compression, buffers."""

from recallfs.recipes.backend.settings import Backend

__all__ = ["Backend"]
