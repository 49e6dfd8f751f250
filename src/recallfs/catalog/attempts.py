"""Failed attempts to prove an entry: the latest one of each, in a file beside the sidecars.

Not in the sidecar: it is no evidence that a recall needs, and it holds the end of a log, which only
those may read who could read the file and its inputs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from recallfs.atomic import read_record, write_record
from recallfs.catalog.store import Store
from recallfs.errors import IntegrityError
from recallfs.values import Metadata

SUFFIX = ".json"


@dataclass(frozen=True)
class Failure:
    """The latest attempt to prove an entry that failed; a proof made later takes it away.

    Parameters
    ----------
    at, by : str
        When, and who tried.
    recipe, version, source_digest : str
        Of the code that ran; the digest is empty if that is not known.
    environment_id : str
        Of the environment that it was tried in.
    kind, message : str
        Of the error.
    objects : tuple of Mapping
        Objects that differ, as in ``details['objects']`` of the error.
    missing : tuple of str
        Objects, or outputs, that the recipe did not write.
    exception : str
        Last line of what the recipe raised; else empty.
    log : str
        End of its log.
    expected : str
        Why this failure was expected (``[[expected_failures]]``); else empty.
    """

    at: str
    by: str
    recipe: str
    version: str
    source_digest: str
    environment_id: str
    kind: str
    message: str
    objects: tuple[Mapping[str, Any], ...] = ()
    missing: tuple[str, ...] = ()
    exception: str = ""
    log: str = ""
    expected: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the failure as JSON."""
        return dataclasses.asdict(self)


def save(
    store: Store, entry_id: str, failure: Failure, *, concerned: Iterable[Metadata] = ()
) -> None:
    """Keep a failure in the place of an earlier one.

    Parameters
    ----------
    concerned : iterable of Metadata
        Of the files that it tells of: who cannot read all of them cannot read it.
    """
    content = json.dumps(failure.to_json(), ensure_ascii=False, default=str).encode()
    write_record(store.failure_path(entry_id), content, concerned=concerned)


def load(store: Store, entry_id: str) -> Failure | None:
    """Return the latest failed attempt; None if there is none, or the caller may not read it."""
    try:
        found = json.loads(read_record(store.failure_path(entry_id)))
        known = {field.name for field in dataclasses.fields(Failure)}
        values = {name: value for name, value in found.items() if name in known}
        for name in ("objects", "missing"):
            values[name] = tuple(values.get(name, ()))
        return Failure(**values)
    except (OSError, ValueError, TypeError, AttributeError, IntegrityError):
        return None


def clear(store: Store, entry_id: str) -> None:
    """Forget the failure of an entry, if there is one."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        store.failure_path(entry_id).unlink()


def failed(store: Store) -> Iterator[str]:
    """Iterate over the ids of the entries that have a failure."""
    for path in (store.control / "failures").glob(f"*/*{SUFFIX}"):
        yield path.stem
