"""Evidence of entries: reading and writing sidecars, and the index of them in the catalog.

Changes go through `recallfs.catalog.changes`, which says first what it is about to do.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from recallfs.atomic import fault_point, make_folder, read_record, write_record
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import SUFFIX, Record, decode, encode
from recallfs.catalog.store import Store
from recallfs.digest.dandi_etag import etag_of
from recallfs.digest.stream import digest_file
from recallfs.errors import IntegrityError, InvalidInputError
from recallfs.values import CodeState, Digests, Entry, Identity, canonical_json


def known_entry(store: Store, path: str) -> Entry:
    """Return the entry at a path.

    Raises
    ------
    InvalidInputError
        Kind ``unknown-entry``.
    """
    entry = store.catalog.entry_at(path)
    if entry is None:
        raise InvalidInputError(
            f"{store.url(path)} is not in the catalog; `recall add` catalogs an existing file.",
            kind="unknown-entry",
            details={"path": path},
        )
    return entry


def load(store: Store, entry_id: str) -> Record:
    """Read an entry's evidence.

    Raises
    ------
    IntegrityError
        Kind ``damaged-record`` if the sidecar is gone, fails its digest or is another entry's.
    """
    path = store.sidecar_path(entry_id)
    try:
        content = read_record(path)
    except FileNotFoundError:
        raise IntegrityError(
            f"the sidecar {path} is gone; restore it from the vault {store.vault}.",
            kind="damaged-record",
            details={"name": str(path)},
        ) from None
    return own(decode(content, name=str(path)), path)


def own(record: Record, path: Path) -> Record:
    """Refuse a sidecar under another entry's name, such as one that was copied by hand."""
    if record.entry.id != path.stem:
        raise IntegrityError(
            f"{path} holds the record of the entry {record.entry.id}; "
            "restore the right one from the vault.",
            kind="damaged-record",
            details={"name": str(path), "expected": path.stem, "actual": record.entry.id},
        )
    return record


def save(store: Store, record: Record, *, replacing: Collection[str] = ()) -> None:
    """Write a record's sidecar, then index it; for use under the entry's lock.

    Parameters
    ----------
    replacing : collection of str
        Ids of the entries that give up their path to it.
    """
    write_record(store.sidecar_path(record.entry.id), encode(record))
    fault_point("record.renamed")
    store.catalog.put([record], replacing=replacing)
    fault_point("catalog.recorded")


def discard(store: Store, entry_id: str) -> None:
    """Drop an entry's sidecar, what else is told of it, and its place in the catalog."""
    store.sidecar_path(entry_id).unlink(missing_ok=True)
    store.failure_path(entry_id).unlink(missing_ok=True)
    store.catalog.drop(entry_id)


def retire(store: Store, entry_id: str) -> None:
    """Put away the sidecar of an entry whose path now belongs to another; nothing reads it again.

    It is kept because it says how the earlier file was made.
    """
    source = store.sidecar_path(entry_id)
    target = store.control / "superseded" / source.name
    make_folder(target.parent)
    with contextlib.suppress(FileNotFoundError):
        source.rename(target)


def digest(record: Record, file: Path) -> Digests:
    """Digest a file so that `Record.accepts` can tell whether it is the entry's."""
    return with_etag(digest_file(file), record, file)


def with_etag(digests: Digests, record: Record, file: Path) -> Digests:
    """Add the etag to a file's digests, if its record goes by that."""
    if record.accepted or not record.dandi_etag or digests.dandi_etag == record.dandi_etag:
        return digests
    return dataclasses.replace(digests, dandi_etag=etag_of(file, record.dandi_etag))


def with_seen_identity(store: Store, record: Record) -> Record:
    """Add what the catalog saw of the file; a sidecar does not hold it."""
    known = store.catalog.entry(record.entry.id)
    entry = dataclasses.replace(record.entry, identity=known.identity if known else None)
    return dataclasses.replace(record, entry=entry)


def with_identity(store: Store, record: Record, inode: int | None = None) -> Record:
    """Add the file's present identity to a record whose bytes are known to be right.

    Parameters
    ----------
    inode : int, optional
        The inode that holds them; a file with another one gets no identity, and so is hashed when
        it is next used.
    """
    seen = Identity.from_stat((store.root / record.entry.path).lstat())
    identity = seen if inode in (None, seen.inode) else None
    return dataclasses.replace(record, entry=dataclasses.replace(record.entry, identity=identity))


def save_environment(store: Store, identifier: str, captured: Mapping[str, Any]) -> None:
    """Keep a captured environment, once, under a label of its own.

    The label is ``{user}_{name}_{NN}``; the number rises whenever the user's environment of that
    name is another one than before. What identifies it is its digest. A record from before it was
    told where conda's packages came from is completed.
    """
    path = store.environment_path(identifier)
    if _is_known(path, captured):
        return
    with store.deciding():
        if _is_known(path, captured):
            return
        kept = environment(store, identifier)
        label = kept.get("label") or _next_label(store, str(captured.get("name") or "python"))
        content = canonical_json({**captured, **kept, "label": label})
        write_record(path, content)
    store.catalog.put([], {identifier: content.decode()})


def move_environment(store: Store, identifier: str, executable: str) -> None:
    """Record where the interpreter of an environment is now; that does not identify it."""
    with store.deciding():
        content = canonical_json({**environment(store, identifier), "executable": executable})
        write_record(store.environment_path(identifier), content)


def _is_known(path: Path, captured: Mapping[str, Any]) -> bool:
    if "conda_files" not in captured or not path.exists():
        return path.exists()
    try:
        return "conda_files" in json.loads(path.read_bytes())
    except (OSError, ValueError):  # a matter of `recall verify`
        return True


def _next_label(store: Store, name: str) -> str:
    user = re.sub(r"[^A-Za-z0-9.-]+", "-", user_name().partition("@")[0])
    start = f"{user}_{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}_"
    known = [str(kept.get("label", "")) for kept in environments(store).values()]
    numbers = [
        int(label.removeprefix(start))
        for label in known
        if label.startswith(start) and label.removeprefix(start).isdecimal()
    ]
    return f"{start}{max(numbers, default=-1) + 1:02d}"


def environment(store: Store, identifier: str) -> dict[str, Any]:
    """Return what is on record of an environment; empty if it cannot be read."""
    try:
        return dict(json.loads(store.environment_path(identifier).read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def environments(store: Store) -> dict[str, dict[str, Any]]:
    """Return the environments that are kept whole, by their digests."""
    found = {}
    for path in sorted((store.control / "environments").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, IntegrityError):
            content = json.loads(read_record(path))
            if isinstance(content, dict):
                found[path.stem] = content
    return found


def save_code(store: Store, code: Mapping[str, Any] | None) -> CodeState | None:
    """Keep what a worker told of its recipe's code; changes that no commit holds, by digest.

    Parameters
    ----------
    code : Mapping or None
        ``commit``, ``dirty``, ``is_whole`` and, in base64, ``diff``.
    """
    if code is None:
        return None
    diff, digest = base64.b64decode(code["diff"]), ""
    if diff:
        digest = blake3(diff).hexdigest()
        if not store.code_path(digest).exists():
            write_record(store.code_path(digest), diff)
    return CodeState(code["commit"], code["dirty"], digest, code["is_whole"])


def sidecars(store: Store) -> Iterator[Path]:
    """Iterate over all sidecars of a store."""
    return (store.control / "entries").glob(f"*/*{SUFFIX}")


def has_sidecars(store: Store) -> bool:
    """Tell whether there is any evidence in the store."""
    return next(sidecars(store), None) is not None
