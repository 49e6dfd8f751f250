"""Skeletons, residuals, environments: what recalls rest on besides sidecars, here and in vaults."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from recallfs.atomic import open_record, read_record, write_record
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.catalog.vaulted import vault_place
from recallfs.digest.hdf5 import ContentDigest
from recallfs.doctor.faults import Finding
from recallfs.environment.capture import environment_id
from recallfs.errors import IntegrityError, SourceError
from recallfs.skeleton.container import record_digest

_PARTS = (".rsk1", ".rsd1")
"""Suffixes of what only `recall prove` can make again."""

_IsWhole = Callable[[Path], bool]
"""Raises FileNotFoundError if nothing is there, and OSError if it cannot be read."""


class KeptCheck:
    """Checks each kept file once, however many records name it.

    Parameters
    ----------
    store : Store
    has_vault : bool
        Whether the vault can be read.
    """

    def __init__(self, store: Store, *, has_vault: bool) -> None:
        self._store = store
        self._has_vault = has_vault
        self._seen: set[tuple[Path, bool]] = set()

    def check(self, record: Record) -> Iterator[Finding]:
        """Check what a record's recall would need; of a released file, its copies too."""
        is_released = record.release is not None
        for path, is_whole in kept_files(self._store, record):
            if (path, is_released) not in self._seen:
                self._seen.add((path, is_released))
                yield from self._check(path, is_whole, is_released, record.entry.path)

    def _check(
        self, path: Path, is_whole: _IsWhole, is_released: bool, owner: str
    ) -> Iterator[Finding]:
        copy = vault_place(self._store, path)
        local, other = _look(path, is_whole), "unknown"
        if self._has_vault:
            other = _look(copy, is_whole)
        of = f"It belongs to {self._store.url(owner)}"
        name = self._store.name
        if local == "whole":
            if other == "damaged" or (other == "missing" and is_released):
                mend = _copying(path, copy, is_whole)
                yield Finding(f"vault-copy-{other}", str(copy), f"{of}.", name, mend)
        elif other == "whole":
            mend = _copying(copy, path, is_whole)
            yield Finding(f"evidence-{local}", str(path), f"{of}.", name, mend)
        elif other == "unknown":
            problem = f"{of}; the vault could not be asked."
            yield Finding(f"evidence-{local}", str(path), problem, name)
        elif is_released or local == "damaged" or path.suffix in _PARTS:
            problem = f"{of}; it is {local} in the store and {other} in the vault."
            yield Finding("evidence-lost", str(path), problem, name)


def kept_files(store: Store, record: Record) -> Iterator[tuple[Path, _IsWhole]]:
    """Iterate over the kept files that a record names, and what tells whether each is whole."""
    if record.skeleton is not None:
        digest = record.skeleton.digest
        yield store.skeleton_path(digest), functools.partial(_has_digest, digest)
    if record.residual is not None:
        digest = record.residual.digest
        yield store.residual_path(digest), functools.partial(_has_digest, digest)
    contents = store.contents_path(record.entry.sha256)
    if contents.exists():
        yield contents, _is_contents
    for digest in sorted({item.code.diff for item in record.derivations if item.code} - {""}):
        yield store.code_path(digest), functools.partial(_has_digest, digest)
    environments = {
        *(item.environment_id for item in record.derivations),
        *(item.environment_id for item in record.proofs),
    }
    for identifier in sorted(environments - {""}):
        yield (
            store.environment_path(identifier),
            functools.partial(_is_environment, identifier),
        )


def _has_digest(digest: str, path: Path) -> bool:
    try:
        return record_digest(path) == digest
    except IntegrityError:
        return False


def _is_contents(path: Path) -> bool:
    try:
        ContentDigest.from_bytes(read_record(path))
    except IntegrityError:
        return False
    return True


def _is_environment(identifier: str, path: Path) -> bool:
    try:
        return environment_id(json.loads(read_record(path))) == identifier
    except (IntegrityError, ValueError, AttributeError, TypeError):
        return False


def _look(path: Path, is_whole: _IsWhole) -> str:
    try:
        return "whole" if is_whole(path) else "damaged"
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "damaged"


def _copying(source: Path, target: Path, is_whole: _IsWhole) -> Callable[[], str]:
    def mend() -> str:
        if not is_whole(source):
            raise IntegrityError(f"{source} is not whole any more.", kind="damaged-record")
        with open_record(source) as content:
            write_record(target, content)
        if not is_whole(target):
            raise SourceError(f"{target} reads back other than it was written; check the disk.")
        return f"copied from {source}"

    return mend
