"""The configuration: whether it is there, says each thing once, and names code that loads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from recallfs.config import Config, config_path
from recallfs.doctor.faults import Finding
from recallfs.recipes.registry import broken_modules


def check_file() -> Iterator[Finding]:
    """Check that the file which RECALLFS_CONFIG names is there."""
    path = config_path()
    if os.environ.get("RECALLFS_CONFIG") and not path.exists():
        problem = "RECALLFS_CONFIG names it, and it is not there."
        yield Finding("config-missing", str(path), problem)


def check_configuration(config: Config) -> Iterator[Finding]:
    """Check what a readable configuration says of stores and recipes."""
    names: dict[Path, list[str]] = {}
    for name, settings in config.stores.items():
        names.setdefault(Path(os.path.realpath(settings.root)), []).append(name)
    for root, several in names.items():
        if len(several) > 1:
            problem = f"It is the root of {', '.join(several)} (in {config.path})."
            yield Finding("root-twice", str(root), problem)
    for module, problem in broken_modules(config.recipes.modules, config.recipes.paths).items():
        yield Finding("recipes-broken", module, problem)
