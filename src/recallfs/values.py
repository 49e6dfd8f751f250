"""The words of recallfs as values: immutable, comparable, free of input and output."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

from recallfs.errors import InvalidInputError

BLOCK_BYTES = 4 * 1024 * 1024
"""Length of the blocks that the ``b3b1`` digests cover, in bytes."""

PATH_BYTES = 2600
"""Longest path inside a store, in bytes; what the index of every catalog's database can hold."""

CONTROL_FOLDER = ".recall"
"""Folder of a store that holds what recallfs itself writes; never part of the managed tree."""


class State(str, Enum):
    """Where the bytes of an entry are."""

    RESIDENT = "resident"
    RELEASED = "released"
    MISSING = "missing"
    DIRTY = "dirty"
    CONFLICT = "conflict"
    LOST = "lost"


class Level(str, Enum):
    """How close a recomputed file is to its original."""

    EXACT = "exact"
    CONTENT = "content"
    TOLERANCE = "tolerance"

    def reaches(self, lowest: Level) -> bool:
        """Tell whether this is at least as close as another one."""
        order = list(Level)
        return order.index(self) <= order.index(lowest)


@dataclass(frozen=True)
class Digests:
    """Digests of a file's bytes, all from one read.

    Parameters
    ----------
    size_bytes : int
        Length of the file.
    sha256, sha1 : str
        Lower-case hexadecimal.
    blocks : bytes, length 32 * ceil(size_bytes / 4 MiB)
        ``b3b1``: the BLAKE3 digests of each 4 MiB block, one after the other.
    dandi_etag : str, optional
        DANDI's multi-part md5, only where it was asked for.
    """

    size_bytes: int
    sha256: str
    sha1: str
    blocks: bytes = field(repr=False)
    dandi_etag: str | None = None


@dataclass(frozen=True)
class Identity:
    """What the file system says of a file: equal identities mean that nobody wrote to it."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def from_stat(cls, status: os.stat_result) -> Identity:
        """Take the identity from an `os.stat` result."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


@dataclass(frozen=True)
class Metadata:
    """What a recall restores besides the bytes: permissions, owner and modification time.

    Parameters
    ----------
    acl : str
        POSIX access control list in its text form (`recallfs.permissions`), empty if there is none.
    """

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    acl: str = ""

    @classmethod
    def from_stat(cls, status: os.stat_result, acl: str = "") -> Metadata:
        """Take mode, owner and time from an `os.stat` result."""
        return cls(status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime_ns, acl)

    @property
    def mtime(self) -> float:
        """Its seconds, to the last bit those of `os.stat_result.st_mtime`."""
        seconds, rest = divmod(self.mtime_ns, 10**9)
        return seconds + 1e-9 * rest


@dataclass(frozen=True)
class Entry:
    """What is known of one path; its original never changes.

    Parameters
    ----------
    id : str
        32 hexadecimal digits, given once; survives renames.
    path : str
        POSIX path relative to the store's root.
    state : State
        What the record says; the file system has the last word (see `resolve`).
    identity : Identity or None
        Of the file when its digests were last known to be right.
    """

    id: str
    path: str
    size_bytes: int
    sha256: str
    sha1: str
    metadata: Metadata
    created_at: str
    state: State = State.RESIDENT
    identity: Identity | None = None


@dataclass(frozen=True)
class Copy:
    """A place outside the store that held the entry's bytes when last verified."""

    source: str
    location: str
    failure_domain: str
    content_addressed: bool
    verified_at: str


@dataclass(frozen=True)
class InputRef:
    """An input that a derivation is bound to."""

    name: str
    entry_id: str
    path: str
    sha256: str


@dataclass(frozen=True)
class DeclaredInput:
    """What a recipe read beside files, such as rows of a database.

    Parameters
    ----------
    digest : str
        BLAKE3 (hex) of the value's canonical JSON.
    value : JSON value
        The value as far as it is short; long parts are ``blake3:<digest>``.
    """

    name: str
    digest: str
    value: Any


@dataclass(frozen=True)
class OutputRef:
    """An output of a derivation: the entry it became."""

    name: str
    entry_id: str


@dataclass(frozen=True)
class CodeState:
    """Which revision of a Git work tree a recipe's code was.

    Parameters
    ----------
    commit : str or None
        None before the first commit.
    dirty : bool or None
        Whether anything differed from it; None if Git could not tell.
    diff : str
        BLAKE3 (hex) of what differed, kept as ``.recall/code/aa/<digest>.diff``; else empty.
    is_whole : bool
        False if what differed was too large to be kept whole.
    """

    commit: str | None
    dirty: bool | None
    diff: str = ""
    is_whole: bool = True


@dataclass(frozen=True)
class Derivation:
    """A recipe bound to inputs, parameters, seed and outputs.

    Parameters
    ----------
    key : str
        BLAKE3 (hex) of what determines the result; see `recallfs.recipes.model.derivation_key`.
    seed : int or None
        128 bits; what a seeded worker derives object ids and random numbers from. None for a
        recipe that is run without seeding.
    started_at : str
        ISO time that a seeded worker reports as 'now'.
    timeout_s, memory_bytes : float, int or None
        Limits of a run, as the recipe declared them.
    environment_id : str
        Digest of the environment that the run was recorded in.
    code : CodeState or None
        Of the recipe's code, if it is in a Git work tree.
    cpu_seconds : float or None
        User and system time of the recipe and the processes it waited for. None where it is not
        known, as of a file that was adopted.
    peak_memory_bytes : int or None
        Largest resident size of any one of its processes.
    declared : tuple of DeclaredInput
        What else the recipe read.
    """

    id: str
    key: str
    recipe: str
    version: str
    source_digest: str
    parameters: Mapping[str, Any]
    inputs: tuple[InputRef, ...]
    outputs: tuple[OutputRef, ...]
    seed: int | None
    started_at: str
    threads: int
    environment_id: str
    seconds: float
    timeout_s: float | None = None
    memory_bytes: int | None = None
    code: CodeState | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    declared: tuple[DeclaredInput, ...] = ()


@dataclass(frozen=True)
class Proof:
    """Evidence that a derivation gave an entry back with the original out of sight.

    Parameters
    ----------
    method : {"direct", "graft", "residual"}
        Whether the recipe gave the very bytes, or its bulk data went into the skeleton, or did so
        after a few bits were made right.
    hidden_by : {"namespace", "aside"}
        How the original was put out of sight; see `recallfs.release.proof.prove`.
    content : str
        Below the exact level the content digest (``h5c1`` strict, hexadecimal) of what it gave,
        which a recall has to give again; else empty.
    rtol, atol : float
        Relative and absolute tolerance that it was held to.
    source_digest : str
        Of the recipe's code that ran; empty for proofs from before that was kept.
    """

    id: str
    entry_id: str
    derivation_id: str
    environment_id: str
    level: Level
    method: str
    sha256: str
    made_by: str
    made_at: str
    valid_until: str
    seconds: float
    hidden_by: str = "namespace"
    content: str = ""
    rtol: float = 0.0
    atol: float = 0.0
    source_digest: str = ""


@dataclass(frozen=True)
class RecallURL:
    """A ``recall://<store>/<path>`` address."""

    store: str
    path: str

    def __str__(self) -> str:
        return f"recall://{self.store}/{self.path}"

    @classmethod
    def parse(cls, url: str) -> RecallURL:
        """Split a URL (with or without ``recall://``) into store and path.

        Raises
        ------
        InvalidInputError
            Kind ``invalid-path`` if the path is malformed or climbs with ``..``.
        """
        rest = url.removeprefix("recall://").strip("/")
        store, _, path = rest.partition("/")
        if not store or url.startswith("recall:///"):
            raise InvalidInputError(
                f"{url!r} names no store; write recall://<store>/<path>.", kind="invalid-path"
            )
        return cls(store, normalise_path(path))


def normalise_path(path: str) -> str:
    """Bring a path inside a store to its one form: relative, POSIX, no ``.`` or ``..``.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-path`` for ``..``, a NUL character, a component above 255 bytes, a name
        that is not UTF-8, more than `PATH_BYTES` in all, or a path into the control folder.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidInputError(
            f"{path!r} climbs out with '..'; paths stay below the store's root.",
            kind="invalid-path",
        )
    if CONTROL_FOLDER in parts:
        raise InvalidInputError(
            f"{path!r} is inside {CONTROL_FOLDER}, which belongs to recallfs itself.",
            kind="invalid-path",
        )
    for part in parts:
        try:
            is_name = "\0" not in part and len(part.encode("utf-8")) <= 255
        except UnicodeEncodeError:
            raise InvalidInputError(
                f"{path!r} is not valid UTF-8; recallfs cannot record such a name.",
                kind="invalid-path",
            ) from None
        if not is_name:
            raise InvalidInputError(
                f"{path!r} has a name that no file can have.", kind="invalid-path"
            )
    joined = "/".join(parts)
    if len(joined.encode("utf-8")) > PATH_BYTES:
        raise InvalidInputError(
            f"{path[:60]!r}… has {len(joined.encode('utf-8'))} bytes; paths in a store have at "
            f"most {PATH_BYTES}.",
            kind="invalid-path",
        )
    return joined


def parent_of(path: str) -> str:
    """Return the folder of a store path; the root is the empty string."""
    return path.rpartition("/")[0]


def now_utc() -> str:
    """Return the current time as ISO 8601 in UTC, to the microsecond; sorts as text."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def after(moment: str, span: timedelta) -> str:
    """Return the ISO time that lies `span` after `moment`, or the last one that can be written."""
    try:
        later = datetime.fromisoformat(moment) + span
    except OverflowError:
        later = datetime.max.replace(tzinfo=timezone.utc)
    return later.astimezone(timezone.utc).isoformat(timespec="microseconds")


def canonical_json(value: Any) -> bytes:
    """Encode JSON in the one form that digests are taken of.

    Keys sorted, no spaces, UTF-8, no NaN or infinity: RFC 8785 but for number formatting, which
    is Python's shortest round-trip form.

    Raises
    ------
    InvalidInputError
        If the value is not JSON.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"not a JSON value: {error}.") from error


_SIZE_UNITS = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9,
    "t": 10**12, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_SPAN_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31557600}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


def parse_size(text: str) -> int:
    """Read a size such as ``1GB``, ``4 MiB`` or ``1500`` as bytes."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in _SIZE_UNITS:
        raise InvalidInputError(f"{text!r} is not a size; write for example 500MB, 1GB or 4MiB.")
    # Not float: it would round sizes above 2**53.
    return int(Decimal(match[1]) * _SIZE_UNITS[match[2].lower()])


def parse_fraction(text: str) -> float:
    """Read a part of something such as ``0.05`` or ``5%``, whatever its range."""
    number = text.strip().removesuffix("%")
    try:
        return float(number) / (100 if number != text.strip() else 1)
    except ValueError:
        raise InvalidInputError(
            f"{text!r} is not a part of something; write for example 0.05 or 5%."
        ) from None


def parse_span(text: str) -> timedelta:
    """Read a length of time such as ``90s``, ``12h``, ``7d`` or ``1y``."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in _SPAN_UNITS:
        raise InvalidInputError(
            f"{text!r} is not a length of time; write for example 90s, 12h, 7d or 1y."
        )
    try:
        return timedelta(seconds=float(match[1]) * _SPAN_UNITS[match[2].lower()])
    except OverflowError:
        raise InvalidInputError(f"{text!r} is longer than any time can be.") from None


def format_size(size_bytes: float) -> str:
    """Write a size for people: ``95.3 MB`` (powers of 1000, as disks are sold)."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 999.5 or unit == "TB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def display_name(path: str) -> str:
    """Make a path safe to print: control characters are replaced, so it cannot drive a terminal."""
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in path)
