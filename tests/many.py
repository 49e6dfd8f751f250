"""Many derived files at once: cataloged with their derivation, without a run for each."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conftest import TESTS, Lab
from recallfs.catalog import changes
from recallfs.digest.stream import digest_file
from recallfs.recipes.registry import find_recipe
from recallfs.resolve.commit import new_record
from recallfs.values import Derivation, Identity, InputRef, Metadata, OutputRef, now_utc


def made_file(
    lab: Lab,
    path: str,
    content: bytes,
    parameters: Mapping[str, Any],
    inputs: Sequence[str] = (),
    *,
    recipe: str = "logged",
) -> str:
    """Write a file as a recipe of `quick_recipes` would, and catalog it; return its sha256."""
    place = lab.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    entry_id = uuid.uuid4().hex
    source = find_recipe(recipe, ("quick_recipes",), (TESTS,))
    bound = [(name, lab.entry(name)) for name in inputs]
    derivation = Derivation(
        id=uuid.uuid4().hex,
        key=uuid.uuid4().hex,
        recipe=recipe,
        version="1",
        source_digest=source.source_digest,
        parameters=dict(parameters),
        inputs=tuple(InputRef(f"in{i}", e.id, e.path, e.sha256) for i, (_, e) in enumerate(bound)),
        outputs=(OutputRef("output", entry_id),),
        seed=None,
        started_at=now_utc(),
        threads=1,
        environment_id="",
        seconds=0.1,
    )
    status = place.stat()
    record = new_record(
        lab.store,
        path,
        digest_file(place),
        Metadata.from_stat(status),
        derivations=(derivation,),
        entry_id=entry_id,
        identity=Identity.from_stat(status),
    )
    changes.create(lab.store, [record])
    return hashlib.sha256(content).hexdigest()


def overlaps(log: Path) -> tuple[int, int]:
    """Read a log of starts and ends; return how many ended and the most that ran at once."""
    running = most = ended = 0
    for line in log.read_text().splitlines():
        if line.startswith("start"):
            running += 1
            most = max(most, running)
        else:
            running -= 1
            ended += 1
    return ended, most
