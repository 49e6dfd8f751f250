"""A store's files with records of their own elsewhere: for trying what would be recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from recallfs.atomic import read_record, write_record
from recallfs.catalog import records
from recallfs.catalog.store import FOLDERS, Store
from recallfs.config import StoreSettings
from recallfs.values import State


@dataclass(frozen=True)
class Shadow(Store):
    """A store whose control folder is another one; its files are those of the store itself.

    Parameters
    ----------
    own_control : Path
        Private folder; catalog, sidecars, staging and all else that would be written go there.
    """

    own_control: Path

    @property
    def control(self) -> Path:
        """The private folder."""
        return self.own_control


def cast_shadow(store: Store, folder: Path) -> Shadow:
    """Make a shadow of a store; nothing is on record in it.

    Parameters
    ----------
    folder : Path
        Private and empty; whoever removes it, removes all that the shadow ever knew.
    """
    settings = store.settings
    for name in FOLDERS:
        (folder / name).mkdir()
    shadow = Shadow(
        name=store.name,
        id=store.id,
        root=store.root,
        vault=store.vault,
        settings=StoreSettings(root=settings.root, level=settings.level, offline=settings.offline),
        own_control=folder,
    )
    shadow.catalog.prepare()
    return shadow


def copy_records(store: Store, shadow: Shadow, entry_ids: Iterable[str]) -> None:
    """Put entries on record in a shadow as they are in the store, but without kept parts.

    Notes
    -----
    Skeleton and residual are left out, so that they are made as for a file that has none; copies
    are left out, because nothing of a shadow is ever recalled from them.
    """
    for entry_id in entry_ids:
        if shadow.catalog.entry(entry_id) is not None:
            continue
        record = records.with_seen_identity(store, records.load(store, entry_id))
        entry = replace(record.entry, state=State.RESIDENT)
        record = replace(
            record, entry=entry, skeleton=None, residual=None, copies=(), release=None, pins=()
        )
        records.save(shadow, record)
        named = {item.environment_id for item in record.derivations}
        named |= {proof.environment_id for proof in record.proofs}
        for identifier in named:
            source, target = store.environment_path(identifier), shadow.environment_path(identifier)
            if source.is_file() and not target.exists():
                write_record(target, read_record(source))
