"""What is kept of proofs that failed, and which failures were expected."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recallfs.atomic import is_full, no_space
from recallfs.catalog import attempts, records
from recallfs.catalog.attempts import Failure
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import ExpectedFailure
from recallfs.environment.interpreter import check_start, label_of
from recallfs.errors import (
    AccessError,
    CatalogError,
    ConflictError,
    EnvironmentMismatchError,
    IntegrityError,
    RecallError,
    RecomputeError,
    SourceError,
)
from recallfs.recipes.registry import find_recipe
from recallfs.resolve.environments import own_environment
from recallfs.resolve.stores import Stores
from recallfs.sources.recompute import recorded_environment, recorded_python
from recallfs.values import Derivation, Entry, Metadata, now_utc

_PASSING = (SourceError, AccessError, CatalogError, ConflictError)
"""What says nothing of the recipe: outages, a full disk, missing rights, an original that is not
here."""

_NOT_BY_CHANCE = ("cannot-hide", "dirty-code", "environment-mismatch", "input-changed", "cycle")
"""Failures that do not come from other recipes that run at the same time."""

_MOST_OBJECTS = 50
_LOG_LETTERS = 4000
_MESSAGE_LETTERS = 2000


def is_by_chance(error: RecallError) -> bool:
    """Tell whether a failure may come from what ran at the same time."""
    is_of_recipe = isinstance(error, (IntegrityError, RecomputeError))
    return is_of_recipe and error.kind not in _NOT_BY_CHANCE


def planned_environment(
    stores: Stores,
    store: Store,
    record: Record,
    derivation: Derivation,
    wanted: str | None = None,
) -> tuple[str, Path | None]:
    """Return the environment that a proof runs in.

    Parameters
    ----------
    wanted : str, optional
        Digest of another one than that on record.

    Returns
    -------
    str
        Its digest; the caller's, if that on record is not on this computer.
    Path or None
        Its interpreter; None for the caller's.

    Raises
    ------
    EnvironmentMismatchError
        The wanted one cannot be started.
    """
    folder = stores.config.environments.folder
    if wanted is not None:
        return wanted, check_start(store, wanted, folder)
    python = recorded_python(store, record, derivation, folder)
    if python is None:
        return own_environment(store, stores.config.recipes), None
    return recorded_environment(record, derivation), python


def say_where(error: RecallError, store: Store, environment: str) -> None:
    """Say in an error of a recipe which environment it ran in."""
    label = label_of(environment, records.environment(store, environment))
    error.message = f"{error.message.rstrip('.')}. It ran in the environment {label}."
    error.details.update(environment=environment, label=label)


def present_source(stores: Stores, recipe: str) -> str:
    """Return the digest of a recipe's code as it is now; empty if it cannot be loaded here."""
    settings = stores.config.recipes
    with contextlib.suppress(RecallError):
        return find_recipe(recipe, settings.modules, settings.paths).source_digest
    return ""


def told_error(error: RecallError | OSError, store: Store, path: str) -> RecallError:
    """Return an error as one of ours, so that a disk that fails for one file stops no campaign."""
    if isinstance(error, RecallError):
        return error
    if is_full(error):
        return no_space(error, store.root)
    why = error.strerror or str(error)
    return SourceError(
        f"{store.url(path)} could not be worked on: {why}"
        + (f" ({error.filename})." if error.filename else "."),
        details={"path": path, "errno": error.errno},
    )


def keep_failure(
    stores: Stores, store: Store, entry: Entry, error: RecallError, wanted: str | None
) -> None:
    """Keep why an entry could not be proved, unless that says nothing of its recipe.

    Notes
    -----
    What cannot be kept, as on a full disk, is not; the error is told in any case.
    """
    if isinstance(error, _PASSING) or error.details.get("cancelled"):
        return
    with contextlib.suppress(RecallError, OSError):
        record = records.load(store, entry.id)
        derivation = record.derivation(now_utc())
        if derivation is None:
            return
        environment = wanted or ""
        with contextlib.suppress(EnvironmentMismatchError):
            environment, _ = planned_environment(stores, store, record, derivation, wanted)
        failure = _failure(stores, derivation, environment, error)
        attempts.save(store, entry.id, failure, concerned=_concerned(store, record, derivation))


def _failure(
    stores: Stores, derivation: Derivation, environment: str, error: RecallError
) -> Failure:
    details = error.details
    objects: Sequence[Mapping[str, Any]] = details.get("objects", [])
    missing = [str(one.get("path")) for one in objects if one.get("reason") == "missing"]
    missing += [str(details["output"])] if "output" in details else []
    log = str(details.get("log", ""))[-_LOG_LETTERS:]
    return Failure(
        at=now_utc(),
        by=user_name(),
        recipe=derivation.recipe,
        version=derivation.version,
        source_digest=present_source(stores, derivation.recipe),
        environment_id=environment,
        kind=error.kind,
        message=error.message[:_MESSAGE_LETTERS],
        objects=tuple(objects[:_MOST_OBJECTS]),
        missing=tuple(missing[:_MOST_OBJECTS]),
        exception=str(details.get("exception", "")),
        log=log,
        expected=expected_reason(
            stores.config.expected_failures,
            error.kind,
            error.message,
            str(error.details.get("log", "")),
        ),
    )


def _concerned(store: Store, record: Record, derivation: Derivation) -> list[Metadata]:
    """Return who may read the file and its inputs: as recorded, with access control lists."""
    inputs = [item.entry_id for item in derivation.inputs]
    there = [entry_id for entry_id in inputs if store.catalog.entry(entry_id) is not None]
    return [
        record.entry.metadata,
        *(records.load(store, entry_id).entry.metadata for entry_id in there),
    ]


def expected_reason(patterns: Iterable[ExpectedFailure], kind: str, message: str, log: str) -> str:
    """Return the reason of the first pattern that a failure matches; empty if none does.

    Notes
    -----
    Looked at are the last 2,000 letters of the recipe's log and, as a line after it, ``kind:
    message``, of that 2,000 letters at most.
    """
    text = f"{log[-_MESSAGE_LETTERS:]}\n{kind}: {message[:_MESSAGE_LETTERS]}"
    return next((one.reason for one in patterns if one.match.search(text)), "")
