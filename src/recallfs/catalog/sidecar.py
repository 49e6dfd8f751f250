"""The sidecar ``rsc1``: everything needed to recall one entry, in one self-digested file.

A sidecar is JSON: ``{"format": "rsc1", "digest": <BLAKE3 of the body's canonical JSON>,
"body": {…}}``. It is the evidence; the catalog only indexes it. The byte-level page is
docs/reference/formats/rsc1.md.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recallfs.catalog.sealed import body_digest, seal, unseal
from recallfs.digest.dandi_etag import ETAG
from recallfs.errors import CatalogError, IntegrityError, InvalidInputError
from recallfs.permissions import Acl
from recallfs.values import (
    CodeState,
    Copy,
    DeclaredInput,
    Derivation,
    Digests,
    Entry,
    InputRef,
    Level,
    Metadata,
    OutputRef,
    Proof,
    State,
    normalise_path,
    now_utc,
)

FORMAT = "rsc1"
SUFFIX = ".rsc1"


_NOT_OF_ALL_PROOFS = frozenset({"content", "rtol", "atol", "source_digest"})


@dataclass(frozen=True)
class Incarnation:
    """An accepted byte form of an entry; the first one is the original's."""

    sha256: str
    size_bytes: int
    level: Level
    recorded_at: str


@dataclass(frozen=True)
class Pin:
    """A wish that an entry be kept resident, or its end."""

    is_pinned: bool
    reason: str
    made_by: str
    made_at: str


@dataclass(frozen=True)
class Revocation:
    """The end of a proof, before its time."""

    proof_id: str
    reason: str
    made_by: str
    made_at: str


@dataclass(frozen=True)
class Release:
    """The release that an entry is in.

    Parameters
    ----------
    stage : {"intended", "trashed", "purged"}
    evidence : str
        What it rests on: ``proof:<id>`` or ``copies``.
    inode_watched : bool
        Whether the system confirmed, at that moment, that nobody had the file open.
    """

    stage: str
    at: str
    by: str
    purge_after: str
    evidence: str
    inode_watched: bool


@dataclass(frozen=True)
class SkeletonRef:
    """Where the kept part of an entry is: ``skeletons/aa/<digest>.rsk1`` in store and vault."""

    digest: str
    stored_bytes: int


@dataclass(frozen=True)
class ResidualRef:
    """Where an entry's residual is: ``residuals/aa/<digest>.rsd1`` in store and vault."""

    digest: str
    stored_bytes: int


@dataclass(frozen=True)
class Record:
    """All that is known of an entry.

    Parameters
    ----------
    incarnations : tuple of Incarnation
        None for an entry that was catalogued by its etag and has never been here.
    dandi_etag : str
        What its bytes are known by where its sha256 is not known yet
        (`recallfs.digest.dandi_etag`); else empty.
    """

    store_id: str
    entry: Entry
    blocks: bytes
    incarnations: tuple[Incarnation, ...]
    copies: tuple[Copy, ...] = ()
    derivations: tuple[Derivation, ...] = ()
    proofs: tuple[Proof, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    pins: tuple[Pin, ...] = ()
    release: Release | None = None
    skeleton: SkeletonRef | None = None
    dandi_etag: str = ""
    residual: ResidualRef | None = None

    @property
    def kept_bytes(self) -> int:
        """What skeleton and residual take."""
        return sum(kept.stored_bytes for kept in (self.skeleton, self.residual) if kept)

    @property
    def accepted(self) -> frozenset[str]:
        """sha256 digests that the entry's bytes may have."""
        return frozenset(incarnation.sha256 for incarnation in self.incarnations)

    def accepts(self, digests: Digests) -> bool:
        """Tell whether bytes with these digests are the entry's."""
        if self.accepted or not self.dandi_etag:
            return digests.sha256 in self.accepted
        size_bytes = self.entry.size_bytes
        return (digests.size_bytes, digests.dandi_etag) == (size_bytes, self.dandi_etag)

    def completed(self, digests: Digests) -> Record:
        """Return the record with what was not known of its original: that is what these are of.

        An entry that was catalogued from an archive has no sha1, no blocks and perhaps no sha256
        before its bytes were here.
        """
        entry = self.entry
        if not self.accepts(digests) or entry.sha256 not in ("", digests.sha256):
            return self
        if entry.sha1 and self.incarnations:
            return self
        original = Incarnation(digests.sha256, digests.size_bytes, Level.EXACT, now_utc())
        return dataclasses.replace(
            self,
            entry=dataclasses.replace(entry, sha256=digests.sha256, sha1=digests.sha1),
            blocks=digests.blocks,
            incarnations=self.incarnations or (original,),
        )

    def mismatch(self, digests: Digests) -> tuple[str, str]:
        """Return what was expected and what bytes with these digests are instead, for people."""
        if self.entry.sha256:
            return f"sha256 {self.entry.sha256}", f"sha256 {digests.sha256}"
        expected = f"{self.entry.size_bytes} bytes with dandi-etag {self.dandi_etag}"
        return expected, f"{digests.size_bytes} bytes with {digests.dandi_etag or 'none'}"

    def level_of(self, sha256: str) -> Level:
        """Return how close bytes that the entry may have are to its original."""
        levels = {item.sha256: item.level for item in self.incarnations}
        return levels.get(sha256, Level.EXACT)

    @property
    def is_pinned(self) -> bool:
        """Whether the newest word on pinning is 'pinned'."""
        return bool(self.pins) and self.pins[-1].is_pinned

    def derivation(self, at: str) -> Derivation | None:
        """Return the derivation to run at the ISO time `at`: the newest proved, else the last."""
        by_id = {derivation.id: derivation for derivation in self.derivations}
        for proof in self.valid_proofs(at):
            if proof.derivation_id in by_id:
                return by_id[proof.derivation_id]
        return self.derivations[-1] if self.derivations else None

    def valid_proofs(self, at: str) -> list[Proof]:
        """Return the proofs that count at the ISO time `at`, newest first."""
        revoked = {revocation.proof_id for revocation in self.revocations}
        valid = [p for p in self.proofs if p.id not in revoked and p.made_at <= at < p.valid_until]
        return sorted(valid, key=lambda proof: proof.made_at, reverse=True)


def encode(record: Record) -> bytes:
    """Write a record as a sidecar's bytes."""
    return seal(FORMAT, _body(record))


def decode(content: bytes, *, name: str = "sidecar") -> Record:
    """Read a sidecar's bytes.

    Parameters
    ----------
    name : str
        What to call it in an error.

    Raises
    ------
    IntegrityError
        Kind ``damaged-record``: torn, altered, or not a sidecar.
    CatalogError
        Kind ``schema-version``: a sidecar of a newer format.
    """
    try:
        found, digest, body = unseal(content)
    except ValueError as error:
        raise _damaged(name, "it is torn or no sidecar") from error
    if found != FORMAT:
        raise CatalogError(
            f"{name} has the format {found!r}; this recallfs reads {FORMAT}. Update recallfs.",
            kind="schema-version",
        )
    try:
        actual = body_digest(body)
    except (InvalidInputError, RecursionError) as error:
        raise _damaged(name, "its body is not canonical") from error
    if actual != digest:
        raise _damaged(name, f"its digest is {actual}, recorded was {digest}")
    try:
        return _record(body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(name, f"a field is missing or malformed ({error})") from error


def _damaged(name: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"{name} is damaged: {why}. Restore it from the vault.",
        kind="damaged-record",
        details={"name": name},
    )


def _body(record: Record) -> dict[str, Any]:
    entry = dataclasses.asdict(record.entry)
    del entry["identity"]  # what one computer's file system says is not evidence
    if not record.entry.metadata.acl:
        del entry["metadata"]["acl"]
    entry["state"] = record.entry.state.value
    # Left out where there is none, so that programs that do not know it can read the rest.
    etag = {"dandi_etag": record.dandi_etag} if record.dandi_etag else {}
    return {
        **etag,
        "store_id": record.store_id,
        "entry": entry,
        "blocks": base64.b64encode(record.blocks).decode("ascii"),
        "incarnations": [_plain(item) for item in record.incarnations],
        "copies": [_plain(item) for item in record.copies],
        "derivations": [_derivation_body(item) for item in record.derivations],
        "proofs": [_proof(item) for item in record.proofs],
        "revocations": [_plain(item) for item in record.revocations],
        "pins": [_plain(item) for item in record.pins],
        "release": record.release and _plain(record.release),
        "skeleton": record.skeleton and _plain(record.skeleton),
        **({} if record.residual is None else {"residual": _plain(record.residual)}),
    }


def _proof(proof: Proof) -> dict[str, Any]:
    """Leave out what only some proofs have, as those below the exact level."""
    plain = _plain(proof)
    return {key: value for key, value in plain.items() if value or key not in _NOT_OF_ALL_PROOFS}


def _derivation_body(item: Derivation) -> dict[str, Any]:
    values = dataclasses.asdict(item)
    values["seed"] = None if item.seed is None else f"{item.seed:032x}"
    # Left out where nothing is known, so that programs that do not know them can read the rest.
    for name in ("cpu_seconds", "peak_memory_bytes", "code", "declared"):
        if values[name] in (None, ()):
            del values[name]
    return values


def _plain(item: Any) -> dict[str, Any]:
    values = dataclasses.asdict(item)
    return {
        key: value.value if isinstance(value, Level) else value for key, value in values.items()
    }


def _record(body: Mapping[str, Any]) -> Record:
    unknown = set(body) - {field.name for field in dataclasses.fields(Record)}
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    entry = dict(body["entry"])
    etag = body.get("dandi_etag", "")
    if "dandi_etag" in body and not (isinstance(etag, str) and ETAG.fullmatch(etag)):
        raise ValueError(f"{etag!r} is no etag")
    if not entry["path"] or normalise_path(entry["path"]) != entry["path"]:
        raise ValueError(f"{entry['path']!r} is no path in a store")
    metadata = Metadata(**entry["metadata"])
    if metadata.acl and str(Acl.from_text(metadata.acl)) != metadata.acl:
        raise ValueError(f"{metadata.acl!r} is no access control list in its one form")
    return Record(
        store_id=body["store_id"],
        entry=Entry(**{**entry, "metadata": metadata, "state": State(entry["state"])}),
        blocks=base64.b64decode(body["blocks"], validate=True),
        incarnations=tuple(_levelled(Incarnation, item) for item in body["incarnations"]),
        copies=tuple(Copy(**item) for item in body["copies"]),
        derivations=tuple(_derivation(item) for item in body["derivations"]),
        proofs=tuple(_levelled(Proof, item) for item in body["proofs"]),
        revocations=tuple(Revocation(**item) for item in body["revocations"]),
        pins=tuple(Pin(**item) for item in body["pins"]),
        release=body["release"] and Release(**body["release"]),
        skeleton=body["skeleton"] and SkeletonRef(**body["skeleton"]),
        dandi_etag=etag,
        residual=ResidualRef(**body["residual"]) if "residual" in body else None,
    )


def _levelled(kind: Any, item: Mapping[str, Any]) -> Any:
    return kind(**{**item, "level": Level(item["level"])})


def _derivation(item: Mapping[str, Any]) -> Derivation:
    return Derivation(
        **{
            **item,
            "seed": None if item["seed"] is None else int(item["seed"], 16),
            "inputs": tuple(InputRef(**reference) for reference in item["inputs"]),
            "outputs": tuple(OutputRef(**reference) for reference in item["outputs"]),
            "code": CodeState(**item["code"]) if "code" in item else None,
            "declared": tuple(DeclaredInput(**value) for value in item.get("declared", ())),
        }
    )
