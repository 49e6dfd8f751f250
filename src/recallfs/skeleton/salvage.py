"""Taking a store's evidence out of its vault: to put it back, or to try whether it is enough."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from recallfs.atomic import (
    make_folder,
    make_shared_folder,
    open_record,
    refuse_links,
    write_record,
)
from recallfs.catalog.rebuild import rebuild, seen_identity
from recallfs.catalog.sidecar import SUFFIX, Incarnation, Record, decode, encode
from recallfs.catalog.store import Store, make_folders
from recallfs.catalog.store_file import STORE_FILE, read_store_file_at
from recallfs.catalog.vaulted import VAULT_USED
from recallfs.config import StoreSettings
from recallfs.errors import ConflictError, InvalidInputError, RecallError
from recallfs.ownership import metadata_of
from recallfs.values import CONTROL_FOLDER, Entry, InputRef, Level, Metadata, State, now_utc

_KEPT = ("entries", "environments", "code", "skeletons", "residuals", "contents")
_SMALL = ("entries", "environments", "code")
"""What a trial copies; the rest is read where it lies in the vault."""


@dataclass(frozen=True)
class VaultStore(Store):
    """A store as its vault alone knows it: records of its own, and a tree that is only read.

    Parameters
    ----------
    records : Path
        Private folder that holds the records, in the place of the tree's ``.recall``.
    """

    records: Path = Path()

    @property
    def control(self) -> Path:
        """Folder of the records."""
        return self.records / CONTROL_FOLDER

    @functools.cached_property
    def is_writable(self) -> bool:
        """Whether anything may be put into the tree: never."""
        return False


def find_in_vault(vault: Path, name: str) -> Path:
    """Return the folder of a vault that holds the evidence of a store.

    Parameters
    ----------
    vault : Path
        The vault, or that folder itself.

    Raises
    ------
    InvalidInputError
        Kind ``not-a-store``: it holds none of that name, or several.
    """
    if (vault / STORE_FILE).is_file():
        return vault
    found = [
        path.parent
        for path in sorted(vault.glob(f"*/{STORE_FILE}"))
        if read_store_file_at(path)["name"] == name
    ]
    if len(found) != 1:
        several = ", ".join(str(path) for path in found)
        what = f"several of that name ({several})" if found else "no evidence of it"
        raise InvalidInputError(
            f"the vault {vault} holds {what}: {name!r}. What is released is copied there; name "
            "the folder with --from-vault=DIR/ID if the store had another name.",
            kind="not-a-store",
            details={"vault": str(vault), "store": name},
        )
    return found[0]


def open_from_vault(kept: Path, name: str, scratch: Path, settings: StoreSettings) -> VaultStore:
    """Open a store by what the vault holds of it; its own records are not looked at.

    Parameters
    ----------
    kept : Path
        Folder of the store in its vault.
    name : str
        What the store is called.
    scratch : Path
        Private folder for the records, and for what is made on trial.
    settings : StoreSettings
        Say where the tree is, or would be; inputs that are there are read.
    """
    values = read_store_file_at(kept / STORE_FILE)
    store = VaultStore(
        name=name,
        id=values["id"],
        root=Path(os.path.realpath(settings.root)),
        vault=kept.parent,
        settings=dataclasses.replace(settings, catalog=None, vault=kept.parent),
        records=scratch,
    )
    make_folders(store.control)
    _copy(kept, store.control, _SMALL)
    store.catalog.prepare()
    rebuild(store)
    _add_inputs(store)
    return store


def put_back(kept: Path, root: Path) -> int:
    """Copy what a vault holds of a store into the store's own folder, where it is not there.

    Parameters
    ----------
    kept : Path
        Folder of the store in its vault.

    Returns
    -------
    int
        How many files were copied.

    Raises
    ------
    ConflictError
        If the folder is another store.
    """
    control = root / CONTROL_FOLDER
    identifier = read_store_file_at(kept / STORE_FILE)["id"]
    if (control / STORE_FILE).exists():
        own = read_store_file_at(control / STORE_FILE)["id"]
        if own != identifier:
            raise ConflictError(
                f"{root} is a store of its own (id {own}), and the vault has evidence of "
                f"{identifier}; move {control} away first if the vault's is to count.",
                details={"root": str(root)},
            )
    make_folder(root)
    refuse_links(root, control)
    make_folders(control)
    copied = _copy(kept, control, _KEPT, functools.partial(_in_line_with, root))
    if not (control / VAULT_USED).exists():
        # Else a vault that is not there one day would pass for one that was never needed.
        write_record(control / VAULT_USED, str(kept.parent).encode())
    if not (control / STORE_FILE).exists():
        # Last, as it makes the folder a store.
        with open_record(kept / STORE_FILE) as content:
            write_record(control / STORE_FILE, content)
        copied += 1
    return copied


def _copy(
    kept: Path,
    control: Path,
    folders: Sequence[str],
    settled: Callable[[Path, BinaryIO], BinaryIO | bytes] | None = None,
) -> int:
    copied = 0
    for source in _files(kept, folders):
        target = control / source.relative_to(kept)
        refuse_links(control, target.parent)
        if target.exists():
            continue
        make_shared_folder(target.parent)
        with open_record(source) as content:
            is_sidecar = source.suffix == SUFFIX
            written = settled(source, content) if settled and is_sidecar else content
            write_record(target, written, like=metadata_of(source))
        copied += 1
    return copied


def _in_line_with(root: Path, source: Path, content: BinaryIO) -> BinaryIO | bytes:
    """Let a sidecar say what became of its file since the vault got it.

    The copy is from the moment of a release. A file that was recalled after that lies at its path,
    taken for unchanged as in any rebuild; and trash that is gone brings nothing back.
    """
    try:
        record = decode(content.read(), name=str(source))
    except RecallError:
        content.seek(0)
        return content  # damaged, or of a newer format: the rebuild says so
    entry, release = record.entry, record.release
    if release is None:
        content.seek(0)
        return content
    if _is_there(root, entry):
        entry, release = dataclasses.replace(entry, state=State.RESIDENT), None
    elif not (root / CONTROL_FOLDER / "trash" / entry.id).exists():
        release = dataclasses.replace(release, stage="purged")
    return encode(dataclasses.replace(record, entry=entry, release=release))


def _is_there(root: Path, entry: Entry) -> bool:
    try:
        return seen_identity(root, entry) is not None
    except OSError:
        return False


def _files(kept: Path, folders: Sequence[str]) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((kept / folder).rglob("*")):
            if path.is_file() and not path.name.startswith(".new-"):
                yield path


def _add_inputs(store: VaultStore) -> None:
    """Record inputs that the vault knows only by name, if a file is at their path.

    Raw files are never released, so the vault has no record of theirs. What their path and sha256
    are stands in the records of the files that were made from them.
    """
    known = {entry.id for entry in store.catalog.entries_below("")}
    missing: dict[str, InputRef] = {}
    for path in (store.control / "entries").glob("*/*.rsc1"):
        for derivation in decode(path.read_bytes(), name=str(path)).derivations:
            missing.update(
                (item.entry_id, item) for item in derivation.inputs if item.entry_id not in known
            )
    records = []
    for item in missing.values():
        place = store.root / item.path
        if place.is_file() and not place.is_symlink():
            records.append(_record(store, item, place))
    for record in records:
        write_record(store.sidecar_path(record.entry.id), encode(record))
    store.catalog.put(records)


def _record(store: Store, item: InputRef, place: Path) -> Record:
    """Make a record of a file that is hashed when it is used."""
    status, now = place.lstat(), now_utc()
    entry = Entry(
        id=item.entry_id,
        path=item.path,
        size_bytes=status.st_size,
        sha256=item.sha256,
        sha1="",
        metadata=Metadata.from_stat(status),
        created_at=now,
    )
    original = Incarnation(item.sha256, status.st_size, Level.EXACT, now)
    return Record(store.id, entry, b"", (original,))
