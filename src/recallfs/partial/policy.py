"""Whether a file is opened in parts or whole, decided without doing it."""

from __future__ import annotations

from dataclasses import dataclass

from recallfs.config import ReaderSettings
from recallfs.errors import InvalidInputError
from recallfs.partial.index import BLOCKS, CHUNKS, PAGES
from recallfs.resolve.plan import Plan
from recallfs.values import format_size

UNVERIFIED = "unverified"
"""What `recallfs.open_h5` and `RecallFileSystem.open` take for: in parts, though unverified."""

_NEAR = ("trash", "cache")
"""Sources that have the whole file on this computer."""


@dataclass(frozen=True)
class Facts:
    """What the choice is made from.

    Parameters
    ----------
    plan : Plan
        What opening the file whole would do.
    kind : {"chunks", "blocks", "pages"}
        How its parts could be verified.
    is_outlined : bool
        Whether `recall warm --metadata` has made what stands in for a skeleton.
    neighbour : str
        What the file takes from other files, if anything.
    """

    plan: Plan
    kind: str
    is_outlined: bool = False
    neighbour: str = ""


@dataclass(frozen=True)
class Choice:
    """How a file is opened.

    Parameters
    ----------
    is_partial : bool
    reason : str
        Why, in one sentence.
    """

    is_partial: bool
    reason: str


def choose(facts: Facts, settings: ReaderSettings, wanted: bool | str | None) -> Choice:
    """Decide whether a file is opened in parts. Pure: the same facts give the same choice.

    Parameters
    ----------
    wanted : bool, "unverified" or None
        What the caller asks for; None leaves it to the settings.

    Raises
    ------
    InvalidInputError
        It is asked for, and cannot be.
    """
    if wanted not in (None, True, False, UNVERIFIED):
        raise InvalidInputError(
            f"partial is one of None, True, False and {UNVERIFIED!r}, not {wanted!r}."
        )
    if facts.plan.action == "open":
        return Choice(False, "The whole file is here.")
    if facts.plan.action == "refuse":
        return Choice(False, facts.plan.reason)
    if facts.neighbour:
        return Choice(False, f"It reads right only whole, at its own path: {facts.neighbour}.")
    may_be_unverified = wanted == UNVERIFIED or facts.is_outlined
    if wanted is False:
        return Choice(False, "The caller wants it whole.")
    if facts.kind == PAGES and not may_be_unverified:
        why = (
            "Its parts cannot be verified: there is neither a skeleton nor are there digests of "
            "its blocks."
        )
        if wanted is True:
            raise InvalidInputError(
                f"{facts.plan.url} cannot be read in verified parts. {why} "
                f"partial={UNVERIFIED!r} reads it all the same."
            )
        return Choice(False, why)
    label = _LABELS[facts.kind]
    if wanted:
        return Choice(True, f"The caller wants it in parts ({label}).")
    return _by_settings(facts, settings, label)


def _by_settings(facts: Facts, settings: ReaderSettings, label: str) -> Choice:
    if settings.partial == "never":
        return Choice(False, "readers.partial is 'never'.")
    if settings.partial == "always":
        return Choice(True, f"readers.partial is 'always' ({label}).")
    first = facts.plan.steps[0].source if facts.plan.steps else ""
    if first in _NEAR:
        return Choice(False, f"The {first} has the whole file.")
    if facts.plan.size_bytes < settings.partial_above:
        size = format_size(settings.partial_above)
        return Choice(False, f"It is smaller than {size} (readers.partial_above).")
    if facts.kind == BLOCKS:
        return Choice(False, "It has no skeleton, so that little would be saved.")
    return Choice(True, f"It is large, and its metadata are here ({label}).")


_LABELS = {
    CHUNKS: "verified chunk by chunk",
    BLOCKS: "verified by blocks of 4 MiB",
    PAGES: "unverified, pinned by its ETag",
}
