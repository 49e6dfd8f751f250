"""Putting environments on record: one that is unchanged keeps its label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.environment.capture import VOLATILE, environment_id
from recallfs.environment.compare import is_same


def keep_environment(store: Store, captured: Mapping[str, Any]) -> str:
    """Put an environment on record unless it is, and return the digest that it goes by there.

    Parameters
    ----------
    captured : Mapping
        As `recallfs.environment.capture.capture_environment` returns it.

    Returns
    -------
    str
        Its own digest; that of a record of the same interpreter with the same packages, if such a
        record differs only in what was loaded then, or in variables that a recipe is given.
    """
    own = environment_id(captured)
    identifier = known_as(store, captured) or own
    # The digest of a record holds for its other fields; only these may be added to it.
    completed = captured
    if identifier != own:
        completed = {name: value for name, value in captured.items() if name in VOLATILE}
    records.save_environment(store, identifier, completed)
    return identifier


def known_as(store: Store, captured: Mapping[str, Any]) -> str | None:
    """Return the digest that an environment goes by in a store; None if it is not on record."""
    own = environment_id(captured)
    if store.environment_path(own).exists():
        return own
    found = [
        (content.get("hdf5") != captured.get("hdf5"), str(content.get("label")), identifier)
        for identifier, content in records.environments(store).items()
        if _folder(content) == _folder(captured) and is_same(content, captured)
    ]
    return min(found)[-1] if found else None


def _folder(environment: Mapping[str, Any]) -> Path:
    """Return where the interpreter is, which goes by several names there."""
    return Path(str(environment.get("executable"))).parent
