"""Errors of a recall: what sits at the path, or what each source said."""

from __future__ import annotations

from collections.abc import Mapping

from recallfs.catalog.store import Store
from recallfs.errors import (
    AccessError,
    ConflictError,
    IntegrityError,
    NotRecallableError,
    RecallError,
    RecomputeError,
    SourceError,
)
from recallfs.values import Entry, State


def conflict(store: Store, entry: Entry, state: State) -> RecallError:
    """Say that a file was changed, or that something else is at its path."""
    url = store.url(entry.path)
    if state is State.DIRTY:
        return ConflictError(
            f"{url} was changed since it was recorded; `recall add` accepts it as it is now.",
            kind="dirty",
            details={"path": entry.path},
        )
    return ConflictError(
        f"something else sits at the path of {url}; it was left alone. Move it away, then the "
        "original can come back.",
        details={"path": entry.path},
    )


def all_failed(store: Store, entry: Entry, answers: Mapping[str, RecallError]) -> RecallError:
    """Make one error of all answers: the class is that of the gravest, the text lists each."""
    details = {
        "path": entry.path,
        "answers": {source: error.to_json() for source, error in answers.items()},
    }
    said = "; ".join(_told(source, error.message) for source, error in answers.items())
    gravest: RecallError | None = None
    for kind in (IntegrityError, RecomputeError, AccessError, SourceError):
        gravest = gravest or next((e for e in answers.values() if isinstance(e, kind)), None)
    said = said or "No source that may be asked knows of it; `recall explain` shows all there are."
    message = f"{store.url(entry.path)} could not be recalled. {said}"
    if gravest is None:
        return NotRecallableError(message, details=details)
    return type(gravest)(message, kind=gravest.kind, details={**gravest.details, **details})


def _told(source: str, message: str) -> str:
    """Say which source said something, once."""
    said = message.removesuffix(".")
    return said if said.startswith(source) else f"{source}: {said}"
