"""The interpreter that stands for a recorded environment, and whether it starts."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.errors import EnvironmentMismatchError, InvalidInputError

READY = "recallfs-environment.json"
"""File in the folder of a built environment, written last: what was built."""

_SHORTEST_DIGEST = 4
_START_S = 60.0
_NO_RECIPE = 3
_NOT_FOUND = "recipe: "
_CODE = f"""
import json, pathlib, sys
import recallfs.recipes.worker, recallfs.recipes.registry, blake3
for name, modules, paths in map(json.loads, sys.argv[1:]):
    try:
        recallfs.recipes.registry.find_recipe(name, modules, [pathlib.Path(p) for p in paths])
    except Exception as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit({_NO_RECIPE})
"""
_CAPTURE = """
import contextlib, json, sys
sys.path[:] = [folder for folder in sys.path if folder]
import recallfs.recipes.worker
from recallfs.environment.capture import capture_environment
for name in ("numpy", "h5py"):
    with contextlib.suppress(Exception):
        __import__(name)
print()
print(json.dumps(capture_environment()))
"""
_REMEMBERED_S = 60.0


def find_interpreter(store: Store, identifier: str, folder: Path | None = None) -> Path | None:
    """Return the interpreter of an environment, if it is on this computer and may be run.

    Parameters
    ----------
    identifier : str
        Digest of the environment.
    folder : Path, optional
        Where environments are built; what is there comes before what is on record.
    """
    if folder is not None:
        built = folder / identifier
        python = built / "bin" / "python"
        is_ready = (built / READY).exists() and os.access(python, os.X_OK)
        if is_ready and _is_trusted(python, {*_owners(store), folder.stat().st_uid}):
            return python
    executable = Path(str(records.environment(store, identifier).get("executable", "")))
    if not (executable.is_absolute() and os.access(executable, os.X_OK)):
        return None
    return executable if _is_trusted(executable, _owners(store)) else None


def capture_by(python: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Describe the environment of an interpreter as a recipe's process in it would.

    Parameters
    ----------
    variables : Mapping of str to str
        That a recipe's process would get.

    Raises
    ------
    EnvironmentMismatchError
        It does not start, or cannot import recallfs.

    Notes
    -----
    Takes what importing NumPy and h5py takes, which a recipe loads that writes HDF5: some 0.3 s.
    """
    problem, printed = _run(python, [_CAPTURE], variables)
    if not problem:
        with contextlib.suppress(ValueError, IndexError):
            return dict(json.loads(printed.splitlines()[-1]))
    raise EnvironmentMismatchError(
        f"{python} cannot be started ({problem or 'it does not tell what is installed'}); recallfs "
        "has to be installed beside it.",
        details={"python": str(python)},
    )


class Sought(NamedTuple):
    """A recipe that an environment has to have, and where it is looked for there."""

    recipe: str
    modules: tuple[str, ...]
    paths: tuple[Path, ...]


def check_start(
    store: Store, identifier: str, folder: Path | None = None, sought: Sought | None = None
) -> Path:
    """Start an environment's interpreter and let it import the worker; return its path.

    Parameters
    ----------
    sought : Sought, optional
        A recipe that it must find, too.

    Raises
    ------
    EnvironmentMismatchError
        It is not here, may not be run, or does not start.
    InvalidInputError
        Kind ``unknown-recipe``: it starts, and does not find the recipe.

    Notes
    -----
    Takes some 0.1 s, and what importing the recipe's module takes; what it found is remembered for
    a minute.
    """
    environment = records.environment(store, identifier)
    name = label_of(identifier, environment)
    python = find_interpreter(store, identifier, folder)
    if python is None:
        raise environment_is_gone(store, identifier)
    problem = _start(python, sought, int(time.monotonic() / _REMEMBERED_S))
    if sought is not None and problem.startswith(_NOT_FOUND):
        raise InvalidInputError(
            f"the recipe {sought.recipe!r} is not found in the environment {name} "
            f"({problem.removeprefix(_NOT_FOUND)}); add its module to [recipes] of the "
            "configuration.",
            kind="unknown-recipe",
            details={"environment": identifier, "label": name, "recipe": sought.recipe},
        )
    if problem:
        raise EnvironmentMismatchError(
            f"the environment {name} cannot be started ({problem}); `recall env restore {name}` "
            "builds it again, or `recall prove` proves the file in another.",
            details={"environment": identifier, "label": name, "python": str(python)},
        )
    return python


def find_environment(store: Store, name: str) -> str:
    """Return the digest of the environment of a store that goes by a label or part of a digest.

    Raises
    ------
    InvalidInputError
        None goes by it, or several do.
    """
    known = {key: str(one.get("label", "")) for key, one in records.environments(store).items()}
    found = [key for key, label in known.items() if name in (label, key)]
    if not found and len(name) >= _SHORTEST_DIGEST:
        found = [key for key in known if key.startswith(name)]
    if len(found) == 1:
        return found[0]
    problem = f"{len(found)} environments are" if found else "no environment on record is"
    raise InvalidInputError(
        f"{problem} called {name!r} in the store {store.name!r}; `recall env list` names them, "
        "and the path of an interpreter may be given instead.",
        details={"known": sorted(known.values())},
    )


def environment_is_gone(
    store: Store, identifier: str, *, has_original: bool = True
) -> EnvironmentMismatchError:
    """Say that the interpreter of an environment is not on this computer, or may not be run.

    Parameters
    ----------
    has_original : bool
        Whether the file that it is wanted for is here, so that it can be proved elsewhere.
    """
    environment = records.environment(store, identifier)
    name = label_of(identifier, environment)
    place = environment.get("executable") or "no interpreter on record"
    advice = (
        f"`recall env restore {name}` builds it again, or `recall prove` proves the file in another"
        if has_original
        else f"put it back there, or build it again with `recall env restore {name}`. Proving the "
        "file in another takes the original, which is not here"
    )
    return EnvironmentMismatchError(
        f"the environment {name} cannot be started ({place} is not here, or others may change "
        f"it); {advice}.",
        details={"environment": identifier, "label": name, "python": ""},
    )


def cannot_build(label: str, why: str, *, log: str = "") -> EnvironmentMismatchError:
    """Say why an environment cannot be built as it was recorded."""
    return EnvironmentMismatchError(
        f"the environment {label} cannot be built: {why.rstrip('.')}.",
        kind="cannot-build",
        details={"label": label, **({"output": log[-4000:]} if log else {})},
    )


def label_of(identifier: str, environment: Mapping[str, Any]) -> str:
    """Return what an environment is called: its label, else the start of its digest."""
    return str(environment.get("label") or identifier[:12])


@functools.lru_cache(maxsize=256)
def _start(python: Path, sought: Sought | None, _period: int) -> str:
    """Return why an interpreter cannot run the worker; empty if it can."""
    words = [] if sought is None else [json.dumps(sought, default=str)]
    variables = {name: text for name, text in os.environ.items() if name != "PYTHONHOME"}
    return _run(python, [_CODE, *words], variables)[0]


def _run(python: Path, code: Sequence[str], variables: Mapping[str, str]) -> tuple[str, str]:
    """Run code, with arguments; return why that failed, if it did, and what it prints."""
    try:
        done = subprocess.run(
            [python, "-c", *code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=variables,
            timeout=_START_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{python} did not start within {_START_S:g} s", ""
    except OSError as error:
        return f"{python}: {error.strerror}", ""
    if done.returncode == 0:
        return "", done.stdout.decode("utf-8", "replace")
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode == _NO_RECIPE:
        return f"{_NOT_FOUND}{lines[-1] if lines else 'no reason is given'}", ""
    return f"{python}: {lines[-1] if lines else f'exit code {done.returncode}'}", ""


def _owners(store: Store) -> set[int]:
    return {0, os.geteuid(), store.root.stat().st_uid}


def _is_trusted(executable: Path, owners: set[int]) -> bool:
    """Tell whether an interpreter may be run that a record names: records are data.

    Whoever may write evidence could name a program of their own. So it, what it links to and the
    folders of both belong to root, to the caller or to the owner of the store, and nobody else may
    write to them.
    """
    real = executable.resolve()
    for place in {executable.parent, executable, real.parent, real}:
        status = place.stat()
        others_write = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in owners or others_write:
            return False
    return True
