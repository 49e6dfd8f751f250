"""Every error recallfs raises, grouped by what the one who catches it does next.

The class says what to do (give up, try later, ask for rights, distrust the bytes, mend the input);
``kind`` says what happened, in a word a program can compare. Kinds and their exit codes are
append-only: a released number never changes its meaning.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """What a kind of error means, and the exit code of a command that ends with it."""

    exit_code: int
    meaning: str


KINDS: Mapping[str, Kind] = {
    # InvalidInputError
    "invalid-input": Kind(10, "an argument or a file's content cannot be used"),
    "invalid-path": Kind(11, "a path is malformed, or leaves the store's root"),
    "invalid-config": Kind(12, "the configuration cannot be used"),
    "unknown-store": Kind(13, "no store of that name is configured"),
    "unknown-entry": Kind(14, "nothing is known of that path"),
    "unknown-recipe": Kind(15, "no recipe of that name is registered"),
    "invalid-parameters": Kind(16, "parameters do not fit the recipe's signature"),
    "not-a-store": Kind(17, "the folder is not a store yet"),
    "is-a-folder": Kind(18, "a folder stands where a file is needed"),
    "not-hdf5": Kind(19, "the file is not HDF5, or is damaged"),
    # NotRecallableError
    "not-recallable": Kind(20, "every source answered that it has not the bytes"),
    # SourceError
    "source-unavailable": Kind(30, "a source could not be asked; try again later"),
    "source-timeout": Kind(31, "a source did not answer in time"),
    "source-rate-limited": Kind(32, "a source asked to slow down"),
    "no-space": Kind(33, "the disk is full, or would become so"),
    # AccessError
    "access-denied": Kind(40, "permission is missing"),
    "not-agreed": Kind(41, "a recall this large or long was not agreed to"),
    # IntegrityError
    "digest-mismatch": Kind(50, "bytes differ from what is on record"),
    "damaged-record": Kind(51, "a record of ours fails its own digest"),
    "input-changed": Kind(52, "an input of the derivation is no longer what it was"),
    "residual-too-large": Kind(53, "what would make recomputed values right is too large to keep"),
    "not-repeatable": Kind(54, "a recipe gives other values each time it runs"),
    # RecomputeError
    "recipe-failed": Kind(60, "the recipe raised an error"),
    "recipe-timeout": Kind(61, "the recipe exceeded its time limit"),
    "recipe-memory": Kind(62, "the recipe exceeded its memory limit"),
    "recipe-no-output": Kind(63, "the recipe ended without writing what it must"),
    "recipe-killed": Kind(64, "the recipe's process was killed"),
    "environment-mismatch": Kind(65, "the environment of the proof cannot be started"),
    "cycle": Kind(66, "a file would be made from itself"),
    "cannot-hide": Kind(67, "the original cannot be put out of the recipe's sight"),
    "dirty-code": Kind(68, "the recipe's code has changes that no commit holds"),
    "cannot-build": Kind(69, "an environment cannot be built as it was recorded"),
    # ConflictError
    "conflict": Kind(70, "something else is at the path; both are kept"),
    "dirty": Kind(71, "the bytes at the path match nothing that was recorded"),
    "in-use": Kind(72, "another process has the file open"),
    "hard-linked": Kind(73, "the file has more than one name"),
    "pinned": Kind(74, "the entry is pinned"),
    "relied-on": Kind(75, "released files rest on this one"),
    "unproved": Kind(76, "there is no valid proof and not enough verified copies"),
    "skeleton-too-large": Kind(77, "what must be kept is too large a part of the file"),
    # CatalogError
    "catalog-damaged": Kind(80, "the catalog cannot be read"),
    "catalog-locked": Kind(81, "the catalog is busy"),
    "schema-version": Kind(82, "the catalog was written by a newer recallfs"),
    "lease-lost": Kind(83, "another process took this recall over"),
    "catalog-unavailable": Kind(84, "the catalog's server does not answer"),
}


class RecallError(Exception):
    """Base of all errors of recallfs.

    Parameters
    ----------
    message : str
        One sentence for a person: what happened, and what to do next.
    kind : str, optional
        A key of `KINDS`; each class has its own default.
    details : Mapping, optional
        JSON-able facts for a program (paths, digests, each source's answer).

    Notes
    -----
    Instances survive pickling, so they cross process boundaries unchanged.
    """

    default_kind = "invalid-input"

    def __init__(
        self, message: str, *, kind: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind or self.default_kind
        self.details: dict[str, Any] = dict(details or {})
        self.exit_code = KINDS[self.kind].exit_code

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.kind, self.details)

    def to_json(self) -> dict[str, Any]:
        """Return the error as a JSON-able mapping; `from_json` is the way back."""
        return {
            "error": type(self).__name__,
            "kind": self.kind,
            "message": self.message,
            "details": self.details,
            "exit_code": self.exit_code,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> RecallError:
        """Rebuild an error that `to_json` wrote, in this or another process."""
        classes = {cls.__name__: cls for cls in _subclasses(RecallError)}
        cls = classes.get(str(data.get("error")), RecallError)
        kind, details = data.get("kind"), data.get("details")
        return cls(
            str(data.get("message", "unknown error")),
            kind=kind if isinstance(kind, str) and kind in KINDS else None,
            details=details if isinstance(details, Mapping) else None,
        )


def _rebuild(
    cls: type[RecallError], message: str, kind: str, details: dict[str, Any]
) -> RecallError:
    return cls(message, kind=kind, details=details)


def _subclasses(cls: type[RecallError]) -> list[type[RecallError]]:
    return [cls, *(sub for child in cls.__subclasses__() for sub in _subclasses(child))]


class _SystemError(RecallError, OSError):
    """An error that code written for plain files knows by its ``errno``."""

    default_errno = errno.EIO

    def __init__(
        self, message: str, *, kind: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, kind=kind, details=details)
        self.errno = self.default_errno


class InvalidInputError(RecallError, ValueError):
    """What was asked cannot be done as asked; change the request."""


class NotRecallableError(_SystemError):
    """Every source answered 'absent'; nothing can bring the file back.

    Not a `FileNotFoundError`: the file is on record and listed, and what is lost must not be read
    as something that never was (zarr would fill zeros for a lost chunk).
    """

    default_kind = "not-recallable"


class SourceError(_SystemError):
    """A source is unavailable; the same request may succeed later.

    Never a `FileNotFoundError`: zarr would take that for a missing chunk and fill zeros.
    """

    default_kind = "source-unavailable"


class SourceTimeoutError(SourceError, TimeoutError):
    """A source did not answer within its deadline."""

    default_kind = "source-timeout"
    default_errno = errno.ETIMEDOUT


class SourceRateLimitError(SourceError):
    """A source asked to slow down; ``details['retry_after_s']`` says for how long."""

    default_kind = "source-rate-limited"
    default_errno = errno.EAGAIN


class AccessError(_SystemError, PermissionError):
    """The caller may not do this."""

    default_kind = "access-denied"
    default_errno = errno.EACCES


class IntegrityError(_SystemError):
    """Bytes or content differ from what is on record; they were not served.

    ``details`` holds ``expected``, ``actual`` and, for HDF5, ``objects`` that differ.
    """

    default_kind = "digest-mismatch"


class IntegrityWarning(UserWarning):
    """Something beside the file is wrong: a source's bytes, or a copy of its evidence."""


class RecomputeError(RecallError):
    """A derivation could not be run again."""

    default_kind = "recipe-failed"


class RecipeFailedError(RecomputeError):
    """The recipe itself failed; ``details['log']`` holds the end of its log."""


class EnvironmentMismatchError(RecomputeError):
    """The environment that a proof names cannot be started."""

    default_kind = "environment-mismatch"


class ConflictError(_SystemError, FileExistsError):
    """Going on would overwrite or drop something that is not ours to drop."""

    default_kind = "conflict"
    default_errno = errno.EEXIST


class CatalogError(RecallError):
    """The catalog cannot be used; evidence in the sidecars is untouched."""

    default_kind = "catalog-damaged"


class LockedError(CatalogError):
    """Another process holds what is needed."""

    default_kind = "catalog-locked"


class SchemaVersionError(CatalogError):
    """The catalog is of a version this recallfs does not know."""

    default_kind = "schema-version"
