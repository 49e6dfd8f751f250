"""Levels below the exact one: the original's objects and values in a file that is laid out anew."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.digest.stream import digest_file
from recallfs.errors import IntegrityError
from recallfs.values import Digests, Level, now_utc

if TYPE_CHECKING:  # it loads h5py, which who only looks something up need not wait for
    from recallfs.skeleton.residual import Residual

_SPARED = {Level.CONTENT: ("encoding",), Level.TOLERANCE: ("encoding", "values")}
"""What may stand in the way of the exact bytes at each level; see `DatasetMismatch`."""


@dataclass(frozen=True)
class Matched:
    """A recomputed file that equals its original, at one level.

    Parameters
    ----------
    content : str
        Below the exact level its content digest (``h5c1`` strict, hexadecimal), else empty.
    """

    path: Path
    digests: Digests
    method: str
    level: Level = Level.EXACT
    content: str = ""


def allowed_level(store: Store, record: Record) -> Level:
    """Return the lowest level at which a file may come back.

    As the store's settings say, else as the newest valid proof has it.
    """
    if store.settings.level is not None:
        return store.settings.level
    proofs = record.valid_proofs(now_utc())
    return proofs[0].level if proofs else Level.EXACT


def match_lower(
    store: Store,
    record: Record,
    output: Path,
    scratch: Path,
    *,
    residual: Residual | None,
    error: IntegrityError,
) -> Matched:
    """Accept a recomputed file at a level below the exact one, where that is allowed.

    Parameters
    ----------
    error : IntegrityError
        Why it is not exact.

    Raises
    ------
    IntegrityError
        `error` itself where nothing lower is allowed or would help; else one that says that the
        content is not what was proved.
    """
    from recallfs.skeleton.contents import load_contents  # loads h5py

    lowest = allowed_level(store, record)
    expected = {
        proof.content: proof.level
        for proof in record.valid_proofs(now_utc())
        if proof.content and proof.level.reaches(lowest)
    }
    kept = load_contents(store, record.entry)
    if kept is not None:
        expected[kept.digest] = Level.CONTENT
    matched = lay_out(store, record, output, scratch, residual=residual, lowest=lowest, error=error)
    level = expected.get(matched.content)
    if level is None:
        raise IntegrityError(
            f"{error.message} What the recipe gave now has not the content that was proved either.",
            details=error.details,
        ) from error
    return Matched(matched.path, matched.digests, "anew", level, matched.content)


def lay_out(
    store: Store,
    record: Record,
    output: Path,
    scratch: Path,
    *,
    residual: Residual | None,
    lowest: Level,
    error: IntegrityError,
) -> Matched:
    """Make the file of a lower level from the skeleton and a recomputed file; it is not judged.

    Raises
    ------
    IntegrityError
        `error` itself where more stands in the way than the level lets pass.
    """
    from recallfs.digest.hdf5 import content_digest  # these load h5py
    from recallfs.skeleton.graft import graft
    from recallfs.skeleton.vault import load_skeleton

    spared = _SPARED.get(lowest, ())
    objects: list[dict[str, Any]] = error.details.get("objects", [])
    skeleton = load_skeleton(store, record)
    if skeleton is None or not objects or not {one["reason"] for one in objects}.issubset(spared):
        raise error
    target = Path(tempfile.mkdtemp(prefix="anew-", dir=scratch)) / "data"
    graft(skeleton, output, target, residual=residual, spared=spared)
    content = content_digest(target).digest
    return Matched(target, digest_file(target), "anew", Level.TOLERANCE, content)
