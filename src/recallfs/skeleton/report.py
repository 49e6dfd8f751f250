"""What a graft did, and where a result differs from the original."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from recallfs.digest.tally import ValueDifference
from recallfs.values import display_name


@dataclass(frozen=True)
class GraftReport:
    """How the pieces of a file came back.

    Parameters
    ----------
    pieces_copied : int
        Chunks whose stored bytes were in the recomputed file already.
    pieces_encoded : int
        Chunks that had equal values and were encoded again.
    pieces_laid : int
        Pieces of contiguous data.
    pieces_mended : int
        Pieces, counted above too, whose values were made right by a residual.
    pieces_anew : int
        Pieces that are stored otherwise than they were.
    bulk_bytes, retained_bytes : int
        Bytes of the file that came from the recomputed file, and from the skeleton.
    """

    pieces_copied: int
    pieces_encoded: int
    pieces_laid: int
    bulk_bytes: int
    retained_bytes: int
    pieces_mended: int = 0
    pieces_anew: int = 0


@dataclass(frozen=True)
class DatasetMismatch:
    """Why a dataset cannot be put back.

    Parameters
    ----------
    path : str
        Of the dataset.
    reason : str
        ``missing``, ``shape``, ``dtype``, ``values``, or ``encoding`` (equal values that are
        stored otherwise by the compressors at hand).
    pieces, of : int
        How many of its pieces are concerned.
    first : tuple of int or None
        First element of the first such piece.
    note : str
        For people; may be empty.
    values : ValueDifference, optional
        Element by element, where the original was at hand to compare with.
    """

    path: str
    reason: str
    pieces: int
    of: int
    first: tuple[int, ...] | None = None
    note: str = ""
    values: ValueDifference | None = None

    def __str__(self) -> str:
        name = display_name(self.path)
        if self.first is None:
            return f"{name} ({self.note or self.reason})"
        if self.values is not None:
            return f"{name} ({_told(self.values)})"
        what = "chunks cannot be re-encoded here" if self.reason == "encoding" else "chunks"
        return f"{name} ({self.pieces} of {self.of} {what}, first at {self.first}{self.note})"

    def to_json(self) -> dict[str, Any]:
        """Return the difference as it stands in an error's ``details['objects']``."""
        return {
            "path": self.path,
            "reason": self.reason,
            "pieces": self.pieces,
            "of": self.of,
            "first": None if self.first is None else list(self.first),
            "note": self.note,
            **({} if self.values is None else {"values": _measured(self.values)}),
        }


def _measured(values: ValueDifference) -> dict[str, Any]:
    """Return the figures as JSON has them, which knows no infinity."""
    figures = asdict(values)
    for name in ("largest_absolute", "largest_relative"):
        if figures[name] is not None and not math.isfinite(figures[name]):
            figures[name] = None
    return figures


def _told(values: ValueDifference) -> str:
    """Say in few words how values differ."""
    verb = "differs" if values.count == 1 else "differ"
    text = f"{values.count:,} of {values.total:,} values {verb}, first at {values.first}"
    for _, original, recomputed in values.examples[:1]:
        text += f": {original} became {recomputed}"
    if values.largest_absolute is not None:
        text += f"; by at most {values.largest_absolute:.3g}"
    return text
