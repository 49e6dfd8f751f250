"""Results from elsewhere: files that the same derivation gave on another computer, from a mirror.

Found by the derivation's key alone, so the other computer needs not share the catalog. Whoever can
write to the mirror can say what a derivation gives: that is why it is off unless asked for, and why
it is never called a proof.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path

from recallfs.catalog.sidecar import Incarnation, Record
from recallfs.catalog.store import Store
from recallfs.digest.stream import digest_file
from recallfs.environment.keeping import keep_environment
from recallfs.errors import (
    ConflictError,
    IntegrityError,
    NotRecallableError,
    RecallError,
    SourceError,
)
from recallfs.recipes.outputs import (
    declared_names,
)
from recallfs.resolve.budget import hold_slot
from recallfs.resolve.commit import commit_outputs
from recallfs.resolve.orders import Order
from recallfs.resolve.results import Output, Result, blocks_digest, decode
from recallfs.resolve.stores import Stores
from recallfs.resolve.wish import Wish
from recallfs.sources.base import Need, Request
from recallfs.sources.disks import store_around
from recallfs.sources.mirror import MirrorSource, derivation_suffix
from recallfs.values import (
    Derivation,
    Digests,
    Entry,
    Level,
    Metadata,
    now_utc,
)


def reuse(
    stores: Stores,
    order: Order,
    derivation: Derivation,
    *,
    wish: Wish,
    cancelled: threading.Event | None = None,
) -> tuple[str, list[str]]:
    """Commit what a derivation gave elsewhere, if a mirror has it.

    Parameters
    ----------
    derivation : Derivation
        As it would be run; its outputs are not bound yet.

    Returns
    -------
    source : str
        Name of the mirror; empty if nothing was committed, and the recipe is to be run.
    warnings : list of str
        What mirrors hold that is not what it says.
    """
    warnings: list[str] = []
    for source in stores.remotes():
        if not isinstance(source, MirrorSource):
            continue
        try:
            result = _asked(stores, order, source, derivation.key)
            if result is not None:
                _take(
                    stores, order, source, result,
                    derivation=derivation, wish=wish, cancelled=cancelled,
                )  # fmt: skip
                return source.name, warnings
        except ConflictError:
            raise  # something is at an output's path: a run would find it as well
        except RecallError as error:
            if cancelled is not None and cancelled.is_set():
                raise
            warnings.append(f"{source.name} did not give an earlier result: {error.message}")
    return "", warnings


def _asked(stores: Stores, order: Order, source: MirrorSource, key: str) -> Result | None:
    """Ask a mirror for what a derivation gave; None if it knows of nothing.

    Raises
    ------
    RecallError
        What it has is no use, or it could not be asked.
    """
    if store_around(source.settings.url, order.store) is not None:
        return None
    memory_key = f"derivation:{key}"
    with contextlib.suppress(NotRecallableError):
        stores.memory.check(source, memory_key)
    try:
        content = source.derivation(key)
    except SourceError as error:
        stores.memory.note(source, memory_key, error)
        raise
    if content is None:
        return None
    name = source.location(derivation_suffix(key))
    result = decode(content, name=name)
    declared = set(declared_names(result.outputs))
    recipe = order.recipe
    said = (result.key, result.recipe, result.version, declared)
    if said != (key, recipe.name, recipe.version, set(recipe.outputs)):
        raise IntegrityError(
            f"{name} is the record of another derivation ({result.recipe} {result.version}).",
            kind="damaged-record",
            details={"name": name},
        )
    return result


def _take(
    stores: Stores,
    order: Order,
    source: MirrorSource,
    result: Result,
    *,
    derivation: Derivation,
    wish: Wish,
    cancelled: threading.Event | None,
) -> None:
    """Fetch all outputs, then commit them together as a run would."""
    store = order.store
    made = replace(
        derivation,
        # Of the run that was: what a seeded recipe needs to give the same bytes again.
        seed=result.seed,
        started_at=result.started_at,
        threads=result.threads,
        seconds=result.seconds,
    )
    total = sum(output.size_bytes for output in result.outputs.values())
    if wish.announce is not None:
        wish.announce(f"{source.name} has the result of the same derivation.")
    with store.staging() as scratch:
        with hold_slot(
            stores.config, Need("fetch", total), scratch, announce=wish.announce,
            cancelled=cancelled,
        ):  # fmt: skip
            brought = {
                name: _fetch(
                    source, output, _request(store, output, scratch / str(number), wish, cancelled)
                )
                for number, (name, output) in enumerate(result.outputs.items())
            }
        made = replace(made, environment_id=keep_environment(store, result.environment))
        commit_outputs(store, made, order.targets, brought)


def _request(
    store: Store,
    output: Output,
    scratch: Path,
    wish: Wish,
    cancelled: threading.Event | None,
) -> Request:
    scratch.mkdir(mode=0o700)
    return Request(
        store=store,
        record=_wanted(store, output),
        scratch=scratch,
        partials=store.partials(),
        progress=wish.progress,
        cancelled=cancelled or threading.Event(),
    )


def _fetch(source: MirrorSource, output: Output, request: Request) -> tuple[Path, Digests]:
    fetched = source.fetch(request)
    digests = fetched.digests or digest_file(fetched.path)
    actual = (
        digests.size_bytes,
        digests.sha256,
        digests.sha1,
        blocks_digest(digests.blocks),
    )
    if actual != (output.size_bytes, output.sha256, output.sha1, output.blocks):
        raise IntegrityError(
            f"{source.name} holds other bytes than it says of {output.path}.",
            details={"expected": output.sha256, "actual": digests.sha256},
        )
    return fetched.path, digests


def _wanted(store: Store, output: Output) -> Record:
    """Return the record of a file as it is on the other computer, as far as it is needed here."""
    now = now_utc()
    entry = Entry(
        # No entry of this store: bytes under one name are the same bytes.
        id=output.sha256[:32],
        path=output.path,
        size_bytes=output.size_bytes,
        sha256=output.sha256,
        sha1=output.sha1,
        metadata=Metadata(0o600, 0, 0, 0),
        created_at=now,
    )
    original = Incarnation(output.sha256, output.size_bytes, Level.EXACT, now)
    return Record(store.id, entry, b"", (original,))
