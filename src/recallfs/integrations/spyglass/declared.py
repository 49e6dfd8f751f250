"""Which recipes bring back the files of which tables."""

from __future__ import annotations

from typing import Any

from recallfs.errors import InvalidInputError
from recallfs.integrations.spyglass.database import load_table
from recallfs.integrations.spyglass.upstream import RECORDING_V0, RECORDING_V1, Rows
from recallfs.recipes.registry import load_recipes
from recallfs.resolve.stores import Stores

_SHIPPED = {
    RECORDING_V0: "`spikesorting_recording`.`__spike_sorting_recording`",
    RECORDING_V1: "`spikesorting_v1_recording`.`__spike_sorting_recording`",
}
"""Full names of tables that need not be imported for that: it takes seconds, and makes schemas."""


def declared_tables(stores: Stores) -> dict[str, list[str]]:
    """Return names of recipes by the table whose rows they declare, as they write it."""
    found: dict[str, list[str]] = {}
    settings = stores.config.recipes
    for recipe in load_recipes(settings.modules, settings.paths).values():
        for read in recipe.declares.values():
            if isinstance(read, Rows):
                found.setdefault(read.table, []).append(recipe.name)
    return found


def recipes_by_table(stores: Stores) -> dict[str, list[str]]:
    """Return names of recipes by the full name of the table whose rows they declare."""
    found: dict[str, list[str]] = {}
    for table, recipes in declared_tables(stores).items():
        name = _SHIPPED.get(table) or load_table(table).full_table_name
        found.setdefault(name, []).extend(recipes)
    return found


def recipe_for(stores: Stores, query: Any) -> str:
    """Return the name of the recipe that is declared for a query's table.

    Raises
    ------
    InvalidInputError
        Kind ``unknown-recipe``: there is none, or more than one.
    """
    found = recipes_by_table(stores).get(query.full_table_name, [])
    if len(found) == 1:
        return found[0]
    among = f"several are: {', '.join(found)}; name one of them" if found else "none is; write one"
    raise InvalidInputError(
        f"a recipe must be declared for {query.full_table_name}, and {among} "
        "(docs: how-to/spyglass).",
        kind="unknown-recipe",
        details={"table": query.full_table_name, "recipes": found},
    )
