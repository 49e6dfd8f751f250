"""The revision of a recipe's code, where that is in a Git work tree."""

from __future__ import annotations

import base64
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recallfs.environment.revision import Revision, revision_of
from recallfs.errors import RecomputeError
from recallfs.recipes.model import Recipe


def code_revision(recipe: Recipe, *, with_diff: bool = False) -> Revision | None:
    """Return the revision that a recipe's code is; None if it is not in a Git work tree.

    Installed code has none: the version of its package speaks for it.
    """
    try:
        path = inspect.getsourcefile(inspect.unwrap(recipe.function))
        if path is None or Path(path).is_relative_to(sys.prefix):
            return None
        return revision_of(Path(path).absolute().parent, with_diff=with_diff)
    except Exception:  # noqa: BLE001 - a recipe runs as well without its code's history
        return None


def code_state(recipe: Recipe) -> dict[str, Any] | None:
    """Describe the revision of a recipe's code, for `recallfs.catalog.records.save_code`."""
    found = code_revision(recipe, with_diff=True)
    if found is None:
        return None
    return {
        "commit": found.commit,
        "dirty": found.dirty,
        "is_whole": found.is_whole,
        "diff": base64.b64encode(found.diff).decode("ascii"),
        "root": str(found.root),
    }


def refuse_dirty(recipe: Recipe, code: Mapping[str, Any] | None) -> None:
    """Refuse code that no commit holds, as ``[recipes] refuse_dirty`` asks.

    Raises
    ------
    RecomputeError
        Kind ``dirty-code``.
    """
    if code is None or code["dirty"] is False:
        return
    what = "differs from its commit" if code["dirty"] else "could not be compared to its commit"
    raise RecomputeError(
        f"the code of the recipe {recipe.name!r} in {code['root']} {what}, and the configuration "
        "says recipes.refuse_dirty; commit the changes first.",
        kind="dirty-code",
        details={"recipe": recipe.name, "root": code["root"], "commit": code["commit"]},
    )
