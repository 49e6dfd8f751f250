"""Recomputing: run an entry's derivation again and make the result the original file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallfs import log
from recallfs.atomic import no_space, write_record
from recallfs.catalog import records
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import RecipeSettings
from recallfs.digest.stream import digest_file
from recallfs.errors import (
    IntegrityError,
    InvalidInputError,
    NotRecallableError,
    RecomputeError,
    SourceError,
)
from recallfs.ownership import metadata_of
from recallfs.recipes.executors import ProcessExecutor
from recallfs.recipes.job import LOG_NAME, Job, Outcome
from recallfs.sources.base import Fetched, Need, Offer, Progress, Request, Source
from recallfs.sources.grafting import graft_elsewhere, is_about_encoders, is_elsewhere
from recallfs.values import Derivation, Digests, Entry, Identity, InputRef, Metadata, now_utc

if TYPE_CHECKING:  # they load h5py, which who only looks something up need not wait for
    from recallfs.skeleton.residual import Residual
    from recallfs.skeleton.witness import Witness

_FULL_BYTES = 256 * 1024
"""A disk with less than this is taken to be why a recipe failed."""


_LOG_BYTES = 1024 * 1024
"""How much of a log is kept, from its end."""


@dataclass(frozen=True)
class Matched:
    """A recomputed file that equals its original."""

    path: Path
    digests: Digests
    method: str


class RecomputeSource(Source):
    """The recipe that made the file.

    Parameters
    ----------
    settings : RecipeSettings
        Where recipes may come from, and limits.
    """

    kind = "recompute"
    name = "recompute"

    def __init__(self, settings: RecipeSettings) -> None:
        self.settings = settings

    def offer(self, store: Store, record: Record) -> Offer | None:
        """Offer to run the derivation of the newest valid proof, else the last one."""
        derivation = record.derivation(now_utc())
        if derivation is None:
            return None
        inputs = ", ".join(f"{item.name}={store.url(item.path)}" for item in derivation.inputs)
        what = f"run {derivation.recipe} {derivation.version} on {inputs or 'no inputs'}"
        return Offer(self.name, what, derivation.seconds)

    def inputs(self, record: Record) -> tuple[InputRef, ...]:
        """Return the derivation's inputs."""
        derivation = record.derivation(now_utc())
        return () if derivation is None else derivation.inputs

    def need(self, store: Store, record: Record) -> Need | None:
        """Reserve space for all that the recipe writes, and for the grafted copy."""
        derivation = record.derivation(now_utc())
        return None if derivation is None else run_need(store, derivation, record.entry)

    def fetch(self, request: Request) -> Fetched:
        """Run the recipe in a child process and match its output with what is on record."""
        store, record = request.store, request.record
        derivation = record.derivation(now_utc())
        if derivation is None:
            raise NotRecallableError("no recipe is on record for it.")
        outputs, outcome = run_derivation(
            store,
            derivation,
            request.inputs,
            request.scratch,
            settings=self.settings,
            python=recorded_python(store, record, derivation),
            cancelled=request.cancelled,
        )
        output = outputs[output_name(derivation, record.entry.id)]
        try:
            matched = match_output(
                store,
                record,
                output,
                request.scratch,
                request.progress,
                residual=lambda: _residual(store, record, derivation),
            )
        except IntegrityError as error:
            if outcome.source_digest == derivation.source_digest:
                raise
            raise IntegrityError(
                f"{error.message} The code of the recipe {derivation.recipe!r} was changed since "
                "the file was made.",
                details={**error.details, "source_digest": outcome.source_digest},
            ) from error
        return Fetched(matched.path, matched.digests, matched.method)


def run_need(store: Store, derivation: Derivation, entry: Entry | None = None) -> Need:
    """Return what a run takes: a slot, and space for its outputs and a grafted copy of one.

    Of outputs that were never made before, the size is not known, and nothing is reserved.
    """
    made = (store.catalog.entry(output.entry_id) for output in derivation.outputs)
    outputs = sum(output.size_bytes for output in made if output is not None)
    return Need("recompute", outputs + (entry.size_bytes if entry else 0))


def run_derivation(
    store: Store,
    derivation: Derivation,
    inputs: Mapping[str, Path],
    scratch: Path,
    *,
    settings: RecipeSettings,
    python: Path | None = None,
    hide: tuple[Path, ...] = (),
    cancelled: threading.Event | None = None,
) -> tuple[dict[str, Path], Outcome]:
    """Run a derivation's recipe.

    Parameters
    ----------
    scratch : Path
        Private folder; the run gets a folder of its own in it.
    python : Path, optional
        Interpreter to run it with; by default the caller's.
    hide : tuple of Path
        Folders to be put out of the recipe's sight; inputs and scratch stay in sight.

    Returns
    -------
    outputs : dict of str to Path
        Where each output was written.
    outcome : Outcome

    Notes
    -----
    The run's log is kept as ``.recall/logs/<derivation id>.log``, whether it succeeds or not.
    """
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=scratch))
    outputs = {
        item.name: folder / f"output-{number}" for number, item in enumerate(derivation.outputs)
    }
    job = Job(
        recipe=derivation.recipe,
        modules=settings.modules,
        paths=settings.paths,
        inputs=dict(inputs),
        outputs=outputs,
        parameters=dict(derivation.parameters),
        seed=derivation.seed,
        started_at=derivation.started_at,
        threads=derivation.threads,
        timeout_s=_least(derivation.timeout_s, settings.timeout_s),
        memory_bytes=_least(derivation.memory_bytes, settings.memory_bytes),
        scratch=folder,
        python=str(python or sys.executable),
        hide=hide,
        expose=tuple(inputs.values()),
    )
    before = {name: Identity.from_stat(path.stat()) for name, path in inputs.items()}
    try:
        outcome = ProcessExecutor().execute(job, cancelled=cancelled)
        log.event("recompute", store=store.name, recipe=derivation.recipe, seconds=outcome.seconds)
        _check_inputs(derivation, inputs, before)
    except RecomputeError as error:
        # Some libraries say that the disk is full, others crash on it.
        said = os.strerror(errno.ENOSPC) in f"{error.message}\n{error.details.get('log', '')}"
        if said or shutil.disk_usage(folder).free < _FULL_BYTES:
            raise no_space(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), folder) from error
        if error.details.pop("log_path", None) is not None and store.is_writable:
            error.details["log_path"] = str(store.log_path(derivation.id))
        raise
    finally:
        if store.is_writable:
            _keep_log(store, derivation, inputs, folder / LOG_NAME)
    return outputs, outcome


def match_output(
    store: Store,
    record: Record,
    output: Path,
    scratch: Path,
    progress: Progress | None = None,
    *,
    residual: Callable[[], Residual | None],
    witness: Witness | None = None,
) -> Matched:
    """Make a recomputed file the original: as it is, or its bulk data grafted into the skeleton.

    Parameters
    ----------
    residual : callable
        Gives what makes its values right, if anything does; called only if it is needed.
    witness : Witness, optional
        Is shown what differs.

    Returns
    -------
    Matched
        With method ``direct``, ``graft`` or ``residual``.

    Raises
    ------
    IntegrityError
        If neither gives the recorded sha256; ``details['objects']`` names what differs, and
        ``details['result']`` is where the recomputed file lies.

    Notes
    -----
    Where the compressors of this process do not give the original's bytes, the interpreter that
    ran the recipe is asked to; for a proof (`witness`) that always has a say.
    """
    digests = digest_file(output)
    if digests.sha256 in record.accepted:
        if progress is not None:
            progress(digests.size_bytes)
        return Matched(output, digests, "direct")
    expected, details = record.entry.sha256, {"result": str(output), "actual": digests.sha256}
    # Loads h5py, which who only looks something up need not wait for.
    from recallfs.skeleton.graft import graft
    from recallfs.skeleton.vault import load_skeleton

    skeleton = load_skeleton(store, record)
    if skeleton is None:
        raise IntegrityError(
            f"{store.url(record.entry.path)} was recomputed to other bytes "
            f"(sha256 {digests.sha256[:16]}…, on record {expected[:16]}…), and no skeleton is kept "
            "from which the original could be built.",
            details={"expected": expected, **details},
        )
    grafted = scratch / f"grafted-{output.parent.name}"
    mending = residual()
    derivation = record.derivation(now_utc())
    python = None if derivation is None else recorded_python(store, record, derivation)
    elsewhere = python if is_elsewhere(python) else None
    try:
        try:
            report = graft(
                skeleton, output, grafted, residual=mending, witness=witness, progress=progress
            )
            # A proof says what the environment on record can do, not what this process can.
            is_done = witness is None or report.pieces_encoded == 0
        except (IntegrityError, InvalidInputError) as error:
            if elsewhere is None or not is_about_encoders(error):
                raise
            is_done = False
        if elsewhere is not None and not is_done:
            grafted, report = graft_elsewhere(
                store, record, output, scratch, python=elsewhere, residual=mending
            )
    except (IntegrityError, InvalidInputError) as error:
        raise IntegrityError(
            f"{store.url(record.entry.path)} was recomputed, but differs from the original: "
            f"{error.message}",
            details={"expected": expected, **error.details, **details},
        ) from error
    digests = digest_file(grafted)
    if digests.sha256 not in record.accepted:
        raise IntegrityError(
            f"{store.url(record.entry.path)} was recomputed and grafted, but has the sha256 "
            f"{digests.sha256[:16]}…; on record is {expected[:16]}….",
            details={"expected": expected, **details, "actual": digests.sha256},
        )
    return Matched(grafted, digests, "residual" if report.pieces_mended else "graft")


def _check_inputs(
    derivation: Derivation, inputs: Mapping[str, Path], before: Mapping[str, Identity]
) -> None:
    """Refuse what a recipe made if it, or somebody, wrote to its inputs meanwhile."""
    for name, path in inputs.items():
        try:
            unchanged = Identity.from_stat(path.stat()) == before[name]
        except OSError:
            unchanged = False
        if not unchanged:
            raise IntegrityError(
                f"the input {name}={path} changed or vanished while the recipe "
                f"{derivation.recipe!r} ran, perhaps by its own hand; the result was thrown away.",
                kind="input-changed",
                details={"input": name, "path": str(path)},
            )


def _keep_log(store: Store, derivation: Derivation, inputs: Mapping[str, Path], log: Path) -> None:
    """Keep the end of a run's log; a log that cannot be kept does not make the run fail.

    A recipe may print what it reads: who may not read all inputs and outputs does not see it.
    """
    with contextlib.suppress(OSError, SourceError):
        concerned = [metadata_of(path) for path in inputs.values()]
        for output in derivation.outputs:
            concerned += _present_metadata(store, output.entry_id)
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_BYTES))
            content = file.read()
        write_record(store.log_path(derivation.id), content, concerned=concerned)


def _present_metadata(store: Store, entry_id: str) -> list[Metadata]:
    """Return who may read an output: as its file says if it is here, else as recorded."""
    entry = store.catalog.entry(entry_id)
    if entry is None:
        return []  # it is being made for the first time
    for place in (store.root / entry.path, store.aside_path(entry_id)):
        with contextlib.suppress(OSError):
            return [metadata_of(place)]
    return [records.load(store, entry_id).entry.metadata]


def output_name(derivation: Derivation, entry_id: str) -> str:
    """Return which output of a derivation an entry is."""
    for output in derivation.outputs:
        if output.entry_id == entry_id:
            return output.name
    raise IntegrityError(
        f"the derivation {derivation.id} does not name the entry {entry_id} among its outputs.",
        kind="damaged-record",
    )


def recorded_python(store: Store, record: Record, derivation: Derivation) -> Path | None:
    """Return the interpreter of the newest valid proof, else of the first run, if it is there."""
    proofs = [p for p in record.valid_proofs(now_utc()) if p.derivation_id == derivation.id]
    identifier = proofs[0].environment_id if proofs else derivation.environment_id
    environment = _environment(store, identifier)
    executable = Path(str(environment.get("executable", "")))
    if not (executable.is_absolute() and os.access(executable, os.X_OK)):
        return None
    return executable if _is_trusted(executable, store) else None


def _is_trusted(executable: Path, store: Store) -> bool:
    """Tell whether an interpreter may be run that a record names: records are data.

    Whoever may write evidence could name a program of their own. So it, what it links to and the
    folders of both belong to root, to the caller or to the owner of the store, and nobody else may
    write to them.
    """
    owners = {0, os.geteuid(), store.root.stat().st_uid}
    real = executable.resolve()
    for place in {executable.parent, executable, real.parent, real}:
        status = place.stat()
        others_write = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in owners or others_write:
            return False
    return True


def _environment(store: Store, identifier: str) -> dict[str, Any]:
    try:
        return dict(json.loads(store.environment_path(identifier).read_bytes()))
    except (OSError, ValueError):
        return {}


def _least(*limits: Any) -> Any:
    given = [limit for limit in limits if limit is not None]
    return min(given) if given else None


def _residual(store: Store, record: Record, derivation: Derivation) -> Residual | None:
    from recallfs.skeleton.vault import load_residual  # loads h5py

    return load_residual(store, record, derivation.id)
