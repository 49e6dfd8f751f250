"""Recomputing: run an entry's derivation again and make the result the original file."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallfs import log
from recallfs.atomic import no_space, write_record
from recallfs.catalog import records
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import RecipeSettings
from recallfs.digest.stream import digest_file
from recallfs.environment.interpreter import environment_is_gone, find_interpreter
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
from recallfs.recipes.outputs import declared_names, is_folder, written_files
from recallfs.sources.base import Fetched, Need, Offer, Progress, Request, Source
from recallfs.sources.grafting import graft_elsewhere, is_about_encoders, is_elsewhere
from recallfs.sources.levels import Matched, allowed_level, match_lower
from recallfs.values import (
    Derivation,
    Entry,
    Identity,
    InputRef,
    Level,
    Metadata,
    Proof,
    now_utc,
)

if TYPE_CHECKING:  # they load h5py, which who only looks something up need not wait for
    from recallfs.skeleton.residual import Residual
    from recallfs.skeleton.witness import Witness

_FULL_BYTES = 256 * 1024
"""A disk with less than this is taken to be why a recipe failed."""


_LOG_BYTES = 1024 * 1024
"""How much of a log is kept, from its end."""


class RecomputeSource(Source):
    """The recipe that made the file.

    Parameters
    ----------
    settings : RecipeSettings
        Where recipes may come from, and limits.
    built : Path, optional
        Folder of the environments that were built again.
    """

    kind = "recompute"
    name = "recompute"

    def __init__(self, settings: RecipeSettings, built: Path | None = None) -> None:
        self.settings = settings
        self.built = built

    def offer(self, store: Store, record: Record) -> Offer | None:
        """Offer to run the derivation of the newest valid proof, else the last one."""
        derivation = record.derivation(now_utc())
        if derivation is None:
            return None
        inputs = ", ".join(f"{item.name}={store.url(item.path)}" for item in derivation.inputs)
        what = f"run {derivation.recipe} {derivation.version} on {inputs or 'no inputs'}"
        return Offer(self.name, what, _last_seconds(store, record, derivation))

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
        python = recorded_python(store, record, derivation, self.built)
        proof = _newest_proof(record, derivation)
        if python is None and proof is not None:
            # What was proved was proved there; elsewhere is elsewhere.
            raise environment_is_gone(store, proof.environment_id, has_original=False)
        outputs, outcome = run_derivation(
            store,
            derivation,
            request.inputs,
            request.scratch,
            settings=self.settings,
            python=python,
            cancelled=request.cancelled,
        )
        try:
            output = own_output(store, derivation, record.entry, outputs)
            matched = match_recorded(
                store, record, output, request.scratch, request.progress, python=python
            )
        except IntegrityError as error:
            why = _changes(derivation, outcome, has_environment=python is not None)
            if not why:
                raise
            raise IntegrityError(
                f"{error.message.removesuffix('.')}. {why}",
                details={**error.details, "source_digest": outcome.source_digest},
            ) from error
        others = {
            entry.id: outputs[name]
            for name, entry in store.catalog.outputs_of(derivation.id).items()
            if name in outputs and entry.id != record.entry.id
        }
        return Fetched(
            matched.path,
            matched.digests,
            matched.method,
            others=others,
            python=python,
            level=matched.level,
        )


def _changes(derivation: Derivation, outcome: Outcome, *, has_environment: bool) -> str:
    """Say what was other than when the file was made."""
    why = []
    if outcome.source_digest != derivation.source_digest:
        why.append(
            f"The code of the recipe {derivation.recipe!r} was changed since the file was made."
        )
    if not has_environment:
        why.append(
            "The environment on record is not on this computer, so it ran in the caller's; "
            "`recall env list` names it, `recall env restore` builds it."
        )
    return " ".join(why)


def _last_seconds(store: Store, record: Record, derivation: Derivation) -> float | None:
    """Return what the recipe took; of an adopted file, its proof or last recall. None: unknown."""
    if derivation.seconds:
        return derivation.seconds
    proofs = [proof for proof in record.proofs if proof.derivation_id == derivation.id]
    if proofs:
        return max(proofs, key=lambda proof: proof.made_at).seconds
    recalls = store.catalog.recalls(record.entry.id, source=RecomputeSource.name)
    return float(recalls[0]["seconds"]) if recalls else None


def run_need(store: Store, derivation: Derivation, entry: Entry | None = None) -> Need:
    """Return what a run takes: a slot, and space for its outputs and a grafted copy of one.

    Of outputs that were never made before, the size is not known, and nothing is reserved.
    """
    made = store.catalog.outputs_of(derivation.id).values()
    outputs = sum(output.size_bytes for output in made)
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
    is_new: bool = False,
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
    is_new : bool
        Whether evidence is made; then code is refused that the configuration does not want.

    Returns
    -------
    outputs : dict of str to Path
        Where each output was written; of a folder each file below it
        (`recallfs.recipes.outputs.written_files`).
    outcome : Outcome

    Notes
    -----
    The run's log is kept as ``.recall/logs/<derivation id>.log``, whether it succeeds or not.
    """
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=scratch))
    outputs = {
        # A folder keeps its name: some libraries write elsewhere if it lacks a suffix of theirs.
        name: folder / f"output-{number}" / (name.rstrip("/") if is_folder(name) else "")
        for number, name in enumerate(declared_names(item.name for item in derivation.outputs))
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
        refuse_dirty=is_new and settings.refuse_dirty,
        declared=derivation.declared,
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
    return written_files(outputs), outcome


def match_recorded(
    store: Store,
    record: Record,
    output: Path,
    scratch: Path,
    progress: Progress | None = None,
    *,
    python: Path | None = None,
) -> Matched:
    """Make a recomputed file the original by what is kept of that; see `match_output`.

    Where a lower level is allowed, a file of that level instead; see `recallfs.sources.levels`.
    """

    def residual() -> Residual | None:
        from recallfs.skeleton.vault import load_residual  # loads h5py

        derivation = record.derivation(now_utc())
        return load_residual(store, record, derivation.id) if derivation else None

    try:
        return match_output(
            store, record, output, scratch, progress, residual=residual, python=python
        )
    except IntegrityError as error:
        if allowed_level(store, record) is Level.EXACT:
            raise
        return match_lower(store, record, output, scratch, residual=residual(), error=error)


def match_output(
    store: Store,
    record: Record,
    output: Path,
    scratch: Path,
    progress: Progress | None = None,
    *,
    residual: Callable[[], Residual | None],
    witness: Witness | None = None,
    python: Path | None = None,
) -> Matched:
    """Make a recomputed file the original: as it is, or its bulk data grafted into the skeleton.

    Parameters
    ----------
    residual : callable
        Gives what makes its values right, if anything does; called only if it is needed.
    witness : Witness, optional
        Is shown what differs.
    python : Path, optional
        Interpreter that ran the recipe.

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
    Where the compressors of this process do not give the original's bytes, those of `python` are
    asked to; for a proof (`witness`) they always have a say.
    """
    sizes = {item.size_bytes for item in record.incarnations}
    # Of another length it cannot be: its digest is of interest only if it cannot be made right.
    found = digest_file(output) if output.stat().st_size in sizes else None
    if found is not None and found.sha256 in record.accepted:
        if progress is not None:
            progress(found.size_bytes)
        return Matched(output, found, "direct", record.level_of(found.sha256))
    expected = record.entry.sha256

    def details() -> dict[str, str]:
        actual = found or digest_file(output)
        return {"result": str(output), "actual": actual.sha256}

    # Loads h5py, which who only looks something up need not wait for.
    from recallfs.skeleton.graft import graft
    from recallfs.skeleton.vault import load_skeleton

    skeleton = load_skeleton(store, record)
    if skeleton is None:
        told = details()
        raise IntegrityError(
            f"{store.url(record.entry.path)} was recomputed to other bytes "
            f"(sha256 {told['actual'][:16]}…, on record {expected[:16]}…), and no skeleton is kept "
            "from which the original could be built.",
            details={"expected": expected, **told},
        )
    grafted = Path(tempfile.mkdtemp(prefix="grafted-", dir=scratch)) / "data"
    mending = residual()
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
            details={"expected": expected, **error.details, **details()},
        ) from error
    digests = digest_file(grafted)
    if digests.sha256 not in record.accepted:
        raise IntegrityError(
            f"{store.url(record.entry.path)} was recomputed and grafted, but has the sha256 "
            f"{digests.sha256[:16]}…; on record is {expected[:16]}….",
            details={"expected": expected, "result": str(output), "actual": digests.sha256},
        )
    method = "residual" if report.pieces_mended else "graft"
    return Matched(grafted, digests, method, record.level_of(digests.sha256))


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
        for entry in store.catalog.outputs_of(derivation.id).values():
            concerned += _present_metadata(store, entry)
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_BYTES))
            content = file.read()
        write_record(store.log_path(derivation.id), content, concerned=concerned)


def _present_metadata(store: Store, entry: Entry) -> list[Metadata]:
    """Return who may read an output: as its file says if it is here, else as recorded."""
    for place in (store.root / entry.path, store.aside_path(entry.id)):
        with contextlib.suppress(OSError):
            return [metadata_of(place)]
    return [records.load(store, entry.id).entry.metadata]


def own_output(
    store: Store, derivation: Derivation, entry: Entry, outputs: Mapping[str, Path]
) -> Path:
    """Return where a run wrote the file that an entry is.

    Raises
    ------
    IntegrityError
        The run did not write it: a folder has other files in it each time.
    """
    name = output_name(derivation, entry.id)
    if name not in outputs:
        raise IntegrityError(
            f"the recipe {derivation.recipe!r} did not write {name!r} this time, which is "
            f"{store.url(entry.path)}.",
            details={"expected": entry.sha256, "output": name},
        )
    return outputs[name]


def output_name(derivation: Derivation, entry_id: str) -> str:
    """Return which output of a derivation an entry is."""
    for output in derivation.outputs:
        if output.entry_id == entry_id:
            return output.name
    raise IntegrityError(
        f"the derivation {derivation.id} does not name the entry {entry_id} among its outputs.",
        kind="damaged-record",
    )


def recorded_python(
    store: Store, record: Record, derivation: Derivation, built: Path | None
) -> Path | None:
    """Return the interpreter of the newest valid proof, else of the first run, if it is there.

    Parameters
    ----------
    built : Path, optional
        Folder of the environments that were built again.
    """
    return find_interpreter(store, recorded_environment(record, derivation), built)


def recorded_environment(record: Record, derivation: Derivation) -> str:
    """Return the digest of the environment of the newest valid proof, else of the first run."""
    proof = _newest_proof(record, derivation)
    return proof.environment_id if proof else derivation.environment_id


def _newest_proof(record: Record, derivation: Derivation) -> Proof | None:
    proofs = record.valid_proofs(now_utc())
    return next((proof for proof in proofs if proof.derivation_id == derivation.id), None)


def _least(*limits: Any) -> Any:
    given = [limit for limit in limits if limit is not None]
    return min(given) if given else None
