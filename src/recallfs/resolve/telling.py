"""What a recall tells people and programs while it goes on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recallfs import log
from recallfs.catalog.store import Store
from recallfs.errors import IntegrityError, IntegrityWarning, RecallError
from recallfs.resolve.plan import Plan
from recallfs.sources.base import Found, Offer
from recallfs.sources.recompute import RecomputeSource
from recallfs.values import Entry


def announcement(plan: Plan, step: Offer, found: Found | None, expected_s: float | None) -> str:
    """Say what is about to be done for a file."""
    last = step.expected_s
    what = step.what if found is None else f"{step.source}: {found.what}"
    if last is not None:
        what += f" (took {last:.1f} s last time)"
    elif expected_s is not None:
        what += f" (about {expected_s:.0f} s)"
    return f"{plan.url} {plan.gone}: {what}"


def warn_of_liars(
    store: Store,
    entry: Entry,
    answers: Mapping[str, RecallError],
    within: Sequence[str],
    warn: Callable[[str], None] | None,
) -> None:
    """Say once which sources gave wrong bytes, now that others gave the right ones.

    Parameters
    ----------
    within : sequence of str
        What the source that gave the right ones found to be wrong in itself.
    """
    said = [
        error.message
        for name, error in answers.items()
        if isinstance(error, IntegrityError) and name != RecomputeSource.kind
    ]
    liars = [message.rstrip(".") for message in (*said, *within)]
    if not liars:
        return
    text = f"{store.url(entry.path)} is right now, but {'; '.join(liars)}."
    if warn is not None:
        warn(text)
    else:
        warnings.warn(text, IntegrityWarning, stacklevel=2)


def tell_fetch(store: Store, entry: Entry, source: str, error: RecallError | None = None) -> None:
    """Tell what a source answered."""
    said = {} if error is None else {"kind": error.kind, "message": error.message}
    log.event(
        "fetch",
        is_failure=error is not None,
        store=store.name,
        path=entry.path,
        entry=entry.id,
        source=source,
        **said,
    )


def tell_recall(store: Store, entry: Entry, source: str, seconds: float, **more: Any) -> None:
    """Tell that a file was brought back."""
    log.event(
        "recall",
        store=store.name,
        path=entry.path,
        entry=entry.id,
        source=source,
        seconds=round(seconds, 3),
        bytes=entry.size_bytes,
        **more,
    )
