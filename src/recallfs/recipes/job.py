"""What an executor is asked to run, and what it tells afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recallfs.values import DeclaredInput

LOG_NAME = "log.txt"
"""File in the scratch folder that takes all output of a run."""

JOB_NAME = "job.json"
"""File in the scratch folder that the worker reads."""

RESULT_NAME = "result.json"
"""File in the scratch folder that the worker writes last."""

WORK_NAME = "work"
"""Folder in the scratch folder that a recipe starts in."""

TEMPORARY_NAME = "tmp"
"""Folder in the scratch folder for temporary files."""


@dataclass(frozen=True)
class Job:
    """One run of a recipe.

    Parameters
    ----------
    recipe : str
        Name of the recipe.
    scratch : Path
        Private folder (mode 0700) that exists. The worker's files, log and temporary files go here.
    outputs : Mapping of str to Path
        Where to write each output; inside `scratch`.
    inputs : Mapping of str to Path
        Files to read.
    parameters : Mapping of str to JSON value
        Held against the signature again in the worker.
    modules : tuple of str
        Configured modules of recipes.
    paths : tuple of Path
        Folders in which these are found.
    seed : int or None
        128 bits that UUIDs and random numbers follow from. None for an unseeded run; always None
        for a recipe with ``seeded=False``.
    started_at : str
        ISO time that a seeded run reports as 'now'.
    threads : int
        For numerical libraries.
    timeout_s : float or None
        Time limit in seconds.
    memory_bytes : int or None
        Limit of the data memory of each process (``RLIMIT_DATA``; Linux only).
    python : str
        Path of the interpreter; recallfs must be importable there.
    hide : tuple of Path
        Folders that the recipe must not see: each is covered by an empty one.
    expose : tuple of Path
        Files and folders below these that it may read nevertheless. Inputs, `paths`, the
        interpreter and `scratch` are exposed anyway.
    refuse_dirty : bool
        Whether code that is in a Git work tree must stand at a commit.
    declared : tuple of DeclaredInput
        What the recipe has to find beside its files.
    """

    recipe: str
    scratch: Path
    outputs: Mapping[str, Path]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    seed: int | None = None
    started_at: str = "1970-01-01T00:00:00+00:00"
    threads: int = 1
    timeout_s: float | None = None
    memory_bytes: int | None = None
    python: str = sys.executable
    hide: tuple[Path, ...] = ()
    expose: tuple[Path, ...] = ()
    refuse_dirty: bool = False
    declared: tuple[DeclaredInput, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON; paths are made absolute, since the worker's folder differs."""
        return {
            "recipe": self.recipe,
            "scratch": _absolute(self.scratch),
            "outputs": {name: _absolute(path) for name, path in self.outputs.items()},
            "inputs": {name: _absolute(path) for name, path in self.inputs.items()},
            "parameters": dict(self.parameters),
            "modules": list(self.modules),
            "paths": [_absolute(path) for path in self.paths],
            "seed": self.seed,
            "started_at": self.started_at,
            "threads": self.threads,
            "timeout_s": self.timeout_s,
            "memory_bytes": self.memory_bytes,
            "python": self.python,
            "hide": [_absolute(path) for path in self.hide],
            "expose": [_absolute(path) for path in self.expose],
            "refuse_dirty": self.refuse_dirty,
            "declared": [asdict(item) for item in self.declared],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """Rebuild a job that `to_json` wrote."""
        return cls(
            recipe=data["recipe"],
            scratch=Path(data["scratch"]),
            outputs={name: Path(path) for name, path in data["outputs"].items()},
            inputs={name: Path(path) for name, path in data["inputs"].items()},
            parameters=data["parameters"],
            modules=tuple(data["modules"]),
            paths=tuple(map(Path, data["paths"])),
            seed=data["seed"],
            started_at=data["started_at"],
            threads=data["threads"],
            timeout_s=data["timeout_s"],
            memory_bytes=data["memory_bytes"],
            python=data["python"],
            hide=tuple(map(Path, data["hide"])),
            expose=tuple(map(Path, data["expose"])),
            # An interpreter that has another version of recallfs may run the worker.
            refuse_dirty=bool(data.get("refuse_dirty", False)),
            declared=tuple(DeclaredInput(**item) for item in data.get("declared", ())),
        )


@dataclass(frozen=True)
class Outcome:
    """What a successful run tells.

    Parameters
    ----------
    seconds : float
        Wall time from the start of the worker to its end.
    cpu_seconds : float
        User and system time of the recipe and the processes it waited for.
    peak_memory_bytes : int
        Largest resident size of any one of its processes.
    log_path : Path
        All that was written to standard output and standard error.
    environment : Mapping
        As `recallfs.environment.capture.capture_environment` saw it in the worker.
    recipe_version, source_digest : str
        Of the recipe as the worker loaded it.
    code : Mapping or None
        Revision of that code, if it is in a Git work tree; see
        `recallfs.catalog.records.save_code`.
    """

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    log_path: Path
    environment: Mapping[str, Any]
    recipe_version: str
    source_digest: str
    code: Mapping[str, Any] | None = None


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps '..', resolve follows links
