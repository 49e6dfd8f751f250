"""Revocations: proofs that are not to count any more, before their time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from recallfs.catalog import audit, changes
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Revocation
from recallfs.catalog.store import Store
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
