"""Revocations: proofs that are not to count any more, before their time."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from recallfs.catalog import audit, changes
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Revocation
from recallfs.catalog.store import Store
from recallfs.environment.interpreter import find_environment
from recallfs.errors import InvalidInputError
from recallfs.values import State, now_utc


@dataclass(frozen=True)
class Revoked:
    """A file whose proofs were revoked.

    Parameters
    ----------
    proofs : tuple of str
        Their ids.
    is_proved : bool
        Whether another proof of the file still counts.
    """

    url: str
    state: State
    proofs: tuple[str, ...]
    is_proved: bool


def check_recipe(stores: Iterable[Store], name: str) -> None:
    """Refuse a recipe by which nothing was made: most likely its name is spelled otherwise.

    Raises
    ------
    InvalidInputError
        Kind ``unknown-recipe``.
    """
    known = sorted({recipe for store in stores for recipe in store.catalog.recipes()})
    if name not in known:
        raise InvalidInputError(
            f"no file was made by the recipe {name!r}; on record: {', '.join(known) or 'none'}.",
            kind="unknown-recipe",
            details={"known": known},
        )


def named_environments(stores: Iterable[Store], name: str) -> dict[str, str]:
    """Return the digest of the environment that goes by a name, by the id of each store with one.

    Parameters
    ----------
    name : str
        Its label, or the start of its digest.

    Raises
    ------
    InvalidInputError
        None goes by it, or several of one store do.
    """
    found: dict[str, str] = {}
    refused: list[InvalidInputError] = []
    known: set[str] = set()
    for store in stores:
        try:
            found[store.id] = find_environment(store, name)
        except InvalidInputError as error:
            refused.append(error)
            known.update(error.details["known"])
    if found:
        return found
    if len(refused) == 1:
        raise refused[0]
    raise InvalidInputError(
        f"no environment on record is called {name!r}; `recall env list` names them.",
        details={"known": sorted(known)},
    )


def revoke(store: Store, entry_id: str, proofs: Collection[str], reason: str) -> Revoked | None:
    """Revoke proofs of one entry. The file is not touched, released or not.

    Parameters
    ----------
    proofs : collection of str
        Their ids; those of other entries, and those that were revoked before, are left alone.
    reason : str
        Kept with the revocation, for those who wonder.

    Returns
    -------
    Revoked or None
        None if none of them was the entry's, or still counted.
    """
    now, who = now_utc(), user_name()
    with changes.edit(store, entry_id, "revoke") as draft:
        gone = {item.proof_id for item in draft.record.revocations}
        ids = [p.id for p in draft.record.proofs if p.id in proofs and p.id not in gone]
        new = tuple(Revocation(each, reason, who, now) for each in ids)
        draft.record = replace(draft.record, revocations=(*draft.record.revocations, *new))
    record = draft.record
    if not ids:
        return None
    audit.note(store, "revoke", record.entry, who, {"proofs": ids, "why": reason})
    return Revoked(
        store.url(record.entry.path), record.entry.state, tuple(ids), bool(record.valid_proofs(now))
    )
