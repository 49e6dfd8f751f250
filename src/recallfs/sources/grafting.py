"""Grafting in the interpreter that a recipe ran in: its compressors are those that were proved.

It runs as a recipe does: in a process of its own, with the same supervision and variables.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.errors import RecallError, RecipeFailedError
from recallfs.recipes.executors import ProcessExecutor
from recallfs.recipes.job import Job
from recallfs.recipes.model import recipe

if TYPE_CHECKING:  # they load h5py, which who only looks something up need not wait for
    from recallfs.skeleton.report import GraftReport
    from recallfs.skeleton.residual import Residual

_REPORT_NAME = "report.json"


def is_elsewhere(python: Path | None) -> bool:
    """Tell whether an interpreter is another than the one that runs this process."""
    # Not resolved: a virtual environment's is a link to the one that it was made with.
    return python is not None and os.path.abspath(python) != os.path.abspath(sys.executable)  # noqa: PTH100 - Path.absolute keeps '..'


def is_about_encoders(error: RecallError) -> bool:
    """Tell whether all that kept a graft from success are the compressors at hand."""
    objects: list[dict[str, Any]] = error.details.get("objects", [])
    return "filters" in error.details or {one["reason"] for one in objects} == {"encoding"}


def graft_elsewhere(
    store: Store,
    record: Record,
    recomputed: Path,
    scratch: Path,
    *,
    python: Path,
    residual: Residual | None,
) -> tuple[Path, GraftReport]:
    """Graft in a process of another interpreter; see `recallfs.skeleton.graft.graft`.

    Parameters
    ----------
    scratch : Path
        Private folder; the graft gets a folder of its own in it.
    python : Path
        The interpreter; recallfs must be importable there.

    Returns
    -------
    path : Path
        Of the file; not verified yet.
    report : GraftReport

    Raises
    ------
    IntegrityError, InvalidInputError
        As `recallfs.skeleton.graft.graft`; the message names the interpreter.
    RecomputeError
        The process ended otherwise.
    EnvironmentMismatchError
        The interpreter cannot be started, or has no recallfs.
    """
    from recallfs.skeleton.report import GraftReport
    from recallfs.skeleton.vault import skeleton_place

    folder = Path(tempfile.mkdtemp(prefix="grafted-", dir=scratch))
    inputs = {"recomputed": recomputed, "skeleton": skeleton_place(store, record)}
    if residual is not None:
        inputs["residual"] = residual.path
    target = folder / "data"
    job = Job(
        recipe="recallfs.graft",
        modules=(__name__,),
        scratch=folder,
        inputs=inputs,
        outputs={"output": target},
        python=str(python),
    )
    try:
        ProcessExecutor().execute(job)
    except RecipeFailedError as error:
        if "cause" not in error.details:
            raise
        cause = RecallError.from_json(error.details["cause"])
        raise type(cause)(
            f"{cause.message} (tried with {python})", kind=cause.kind, details=cause.details
        ) from error
    report = json.loads((folder / _REPORT_NAME).read_bytes())
    return target, GraftReport(**report)


@recipe(name="recallfs.graft", version="1", seeded=False)
def graft_inputs(inputs: Mapping[str, Path], output: Path) -> None:
    """Graft a recomputed file into a skeleton; runs in the worker."""
    from recallfs.atomic import read_record
    from recallfs.skeleton.format import Skeleton
    from recallfs.skeleton.graft import graft
    from recallfs.skeleton.residual import Residual

    residual = Residual.open(inputs["residual"]) if "residual" in inputs else None
    skeleton = Skeleton.from_bytes(read_record(inputs["skeleton"]))
    report = graft(skeleton, inputs["recomputed"], output, residual=residual)
    output.with_name(_REPORT_NAME).write_text(json.dumps(asdict(report)), encoding="utf-8")
