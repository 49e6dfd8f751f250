"""What a release rests on, as a record says it, in two texts that the catalog keeps with the path.

A plan of a hundred thousand files reads them in one go; from the tables of entries, proofs,
derivations and inputs the same takes several times as long.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from recallfs.catalog.sidecar import Record
from recallfs.values import InputRef

_BETWEEN = "\t"


class Standing(NamedTuple):
    """The newest proof of a record that was not revoked, else its last run; empty for neither.

    Parameters
    ----------
    sha256 : str
        Of the entry's original.
    others_until : str
        ISO time until which any other proof is valid; empty if there is none.
    """

    sha256: str
    proof_id: str = ""
    environment_id: str = ""
    level: str = ""
    method: str = ""
    made_at: str = ""
    valid_until: str = ""
    seconds: str = ""
    recipe: str = ""
    others_until: str = ""


def standing_values(record: Record) -> dict[str, str | None]:
    """Spell what a record says as columns of `paths`; None where it takes more than that."""
    found = _standing(record)
    if found is None or any(_BETWEEN in value for value in found[0]):
        return {"standing": None, "made_from": None}
    standing, inputs = found
    refs = [[ref.name, ref.entry_id, ref.path, ref.sha256] for ref in inputs]
    made_from = json.dumps(refs, ensure_ascii=False, separators=(",", ":"))
    return {"standing": _BETWEEN.join(standing), "made_from": made_from}


def read_standing(text: str) -> list[str]:
    """Read the fields of a `Standing`, in their order."""
    return text.split(_BETWEEN)


def read_inputs(text: str) -> tuple[InputRef, ...]:
    """Read the inputs that stand beside it."""
    return tuple(InputRef(*values) for values in json.loads(text))


def _standing(record: Record) -> tuple[Standing, tuple[InputRef, ...]] | None:
    revoked = {item.proof_id for item in record.revocations}
    proofs = [proof for proof in record.proofs if proof.id not in revoked]
    sha256 = record.entry.sha256
    if not proofs:
        if not record.derivations:
            return Standing(sha256), ()
        last = record.derivations[-1]
        ran = Standing(
            sha256,
            environment_id=last.environment_id,
            seconds=repr(last.seconds),
            recipe=last.recipe,
        )
        return ran, last.inputs
    newest = max(proofs, key=lambda proof: (proof.made_at, proof.id))
    for derivation in record.derivations:
        if derivation.id == newest.derivation_id:
            proved = Standing(
                sha256,
                newest.id,
                newest.environment_id,
                newest.level.value,
                newest.method,
                newest.made_at,
                newest.valid_until,
                repr(newest.seconds),
                derivation.recipe,
                max((proof.valid_until for proof in proofs if proof is not newest), default=""),
            )
            return proved, derivation.inputs
    return None
