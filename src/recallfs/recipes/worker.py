"""The process that a recipe runs in: ``python -m recallfs.recipes.worker <job.json> <parent>``.

Reads its job as JSON, puts hidden folders out of sight, limits memory, applies the seed, loads the
recipe, runs it and writes what became of it to ``result.json``. Imports little before the seed is
applied.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recallfs.atomic import write_record
from recallfs.errors import InvalidInputError, RecallError, RecipeFailedError, RecomputeError
from recallfs.recipes.job import RESULT_NAME, WORK_NAME, Job


def main(arguments: list[str]) -> int:
    """Run the job that a file describes.

    Parameters
    ----------
    arguments : list of str
        Path of the job's file, and the id of the process that asked for it.

    Returns
    -------
    int
        0 if the recipe returned, 1 if there is an error in ``result.json``.
    """
    from recallfs.recipes.supervision import supervise

    # ``-m`` put the working folder there; what a recipe writes must not become a module.
    sys.path[:] = [folder for folder in sys.path if folder not in ("", os.getcwd())]  # noqa: PTH109 - a string to compare
    job = Job.from_json(json.loads(Path(arguments[0]).read_bytes()))
    parent = int(arguments[1])
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    try:
        if job.hide:
            from recallfs.recipes.sandbox import mount_proc, separate_mounts

            supervise(parent, mount_proc if separate_mounts() else None)
            _hide(job)
        else:
            supervise(parent)
        result = _run(job)
    except RecallError as error:
        _write_result(job.scratch, {"error": error.to_json()})
        return 1
    _write_result(job.scratch, result)
    return 0


def _write_result(folder: Path, result: Mapping[str, Any]) -> None:
    content = json.dumps(result, default=str).encode()
    write_record(folder / RESULT_NAME, content, mode=0o600)


def _hide(job: Job) -> None:
    """Cover the hidden folders; an error is written past a cover that already stands."""
    from recallfs.recipes.sandbox import cover, drop_privileges

    scratch = os.open(job.scratch, os.O_RDONLY | os.O_DIRECTORY)
    try:
        cover(job.hide, [*job.inputs.values(), *job.expose, *_code(job)], [job.scratch])
    except RecallError as error:
        _write_result(Path(f"/proc/self/fd/{scratch}"), {"error": error.to_json()})
        os._exit(1)
    finally:
        # From a folder that was opened before, '..' would lead to the hidden originals.
        os.close(scratch)
    os.chdir(job.scratch / WORK_NAME)
    drop_privileges()


def _code(job: Job) -> list[Path]:
    """List where code is loaded from, unless that is a hidden folder as a whole."""
    folders = [*job.paths, *map(Path, [*sys.path, sys.prefix, sys.base_prefix])]
    hidden = {path.resolve() for path in job.hide}
    return [folder for folder in folders if folder.resolve() not in hidden]


def _run(job: Job) -> dict[str, Any]:
    import faulthandler

    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr] # real files here
    if job.seed is not None:
        from recallfs.recipes.seeding import apply_seed

        apply_seed(job.seed, job.started_at)
    with _limited_memory(job.memory_bytes):
        version, source_digest, code = _run_recipe(job)
    gc.collect()  # closes files that the recipe left open in reference cycles
    from recallfs.environment.capture import capture_environment

    return {
        "recipe_version": version,
        "source_digest": source_digest,
        "code": code,
        "environment": capture_environment(),
        **_usage(),
    }


def _run_recipe(job: Job) -> tuple[str, str, dict[str, Any] | None]:
    """Load and run the recipe; return its version, source digest and the revision of its code."""
    from recallfs.recipes.code import code_state, refuse_dirty
    from recallfs.recipes.model import validate_parameters
    from recallfs.recipes.registry import find_recipe

    try:
        recipe = find_recipe(job.recipe, job.modules, job.paths)
        parameters = validate_parameters(recipe, job.parameters)
        if set(recipe.outputs) != set(job.outputs):
            raise InvalidInputError(
                f"recipe {recipe.name!r} writes {', '.join(recipe.outputs)}, "
                f"but was asked for {', '.join(sorted(job.outputs)) or 'nothing'}."
            )
        source_digest = recipe.source_digest
        code = code_state(recipe)
        if job.refuse_dirty:
            refuse_dirty(recipe, code)
    except BaseException as error:
        if _is_out_of_memory(error):
            raise _out_of_memory(job, error) from error
        raise
    if job.declared:
        from recallfs.recipes.declared import check_declared, observe_declared

        check_declared(recipe.name, job.declared, observe_declared(recipe, parameters))
    try:
        recipe.run(job.inputs, job.outputs, parameters)
    except BaseException as error:  # what a recipe raises is told, be it SystemExit
        raise _failure(job, error) from error
    return recipe.version, source_digest, code


def _failure(job: Job, error: BaseException) -> RecomputeError:
    """Write a recipe's error to the log and wrap it."""
    from recallfs.recipes.model import MissingInputError

    below = error.__traceback__
    for _ in range(2):  # the frames of this module and of the model say nothing to its author
        below = below.tb_next if below is not None else None
    traceback.print_exception(type(error), error, below)
    if _is_out_of_memory(error):
        return _out_of_memory(job, error)
    details: dict[str, Any] = {"recipe": job.recipe, "exception": _last_line(error)}
    if isinstance(error, MissingInputError):
        details["input"] = error.name
        return RecipeFailedError(f"recipe {job.recipe!r} failed: {error}.", details=details)
    if isinstance(error, RecallError):
        details["cause"] = error.to_json()
    return RecipeFailedError(
        f"recipe {job.recipe!r} failed with {_last_line(error)}", details=details
    )


def _out_of_memory(job: Job, error: BaseException) -> RecomputeError:
    limit = "what there is" if job.memory_bytes is None else f"its limit of {job.memory_bytes} B"
    return RecomputeError(
        f"recipe {job.recipe!r} needed more memory than {limit} ({_last_line(error)}); "
        "raise its memory limit or run it elsewhere.",
        kind="recipe-memory",
        details={"recipe": job.recipe, "memory_bytes": job.memory_bytes},
    )


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:500]}" if lines else type(error).__name__


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Look through the causes too: libraries wrap a failed allocation in errors of their own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        # A shared library that does not fit is an ImportError with the C library's words.
        if isinstance(error, ImportError) and os.strerror(errno.ENOMEM) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _limited_memory(memory_bytes: int | None) -> Iterator[None]:
    """Limit data memory while the recipe runs, not while its result is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if memory_bytes is not None:
        allowed = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _usage() -> dict[str, float]:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cpu_seconds": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        "peak_memory_bytes": max(own.ru_maxrss, children.ru_maxrss) * unit,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
