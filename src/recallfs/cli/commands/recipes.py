"""``recall recipes``."""

from __future__ import annotations

import warnings
from typing import Any

import click

from recallfs.catalog.lineage import Work, work_by
from recallfs.cli.output import print_json, print_table, say, warn
from recallfs.cli.overview import WORK_COLUMNS, work_cells
from recallfs.errors import RecallError
from recallfs.recipes.backend import Backend
from recallfs.recipes.code import code_revision
from recallfs.recipes.model import Parameter, Recipe
from recallfs.recipes.registry import load_recipes
from recallfs.resolve.stores import Stores, stores_in_reach


@click.command(name="recipes")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the recipes that are registered, with their parameters and what they made and cost.

    All stores of the configuration are asked, and recipes that made files and are registered no
    more are told, too.

    Example: recall recipes
    """
    stores = stores_in_reach()
    settings = stores.config.recipes
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        recipes = list(load_recipes(settings.modules, settings.paths).values())
    problems = [str(item.message) for item in caught if item.category is RuntimeWarning]
    work, unasked = _work(stores)
    problems += unasked
    unregistered = {name: work[name] for name in work.keys() - {item.name for item in recipes}}
    if as_json:
        print_json(
            {
                "recipes": [
                    {
                        **_document(recipe),
                        "work": work[recipe.name].to_json() if recipe.name in work else None,
                    }
                    for recipe in recipes
                ],
                "unregistered": {name: item.to_json() for name, item in unregistered.items()},
                "warnings": problems,
            }
        )
        return
    for problem in problems:
        warn(problem)
    print_table(
        ["recipe", "version", "parameters", "outputs", "from", "code"],
        [
            [
                recipe.name,
                recipe.version,
                ", ".join(_shown(item) for item in recipe.parameters.values()) or "none",
                ", ".join(recipe.outputs),
                recipe.function.__module__,
                _state(recipe),
            ]
            for recipe in recipes
        ],
    )
    known = {item.name for item in recipes}
    if work:
        say("")
        print_table(
            ["made so far by", *WORK_COLUMNS],
            [
                [name if name in known else f"{name} (not registered)", *work_cells(item.to_json())]
                for name, item in sorted(work.items())
            ],
        )


def _work(stores: Stores) -> tuple[dict[str, Work], list[str]]:
    """Add up what recipes made in all stores; tell which stores could not be asked."""
    total: dict[str, Work] = {}
    problems = []
    for name in stores.names():
        try:
            found = work_by(stores.by_name(name).catalog)
        except (RecallError, OSError) as error:
            problems.append(f"the store {name} could not be asked: {error}")
            continue
        for (recipe, _), work in found.items():
            total.setdefault(recipe, Work()).add(work)
    return total, problems


def _shown(parameter: Parameter) -> str:
    if parameter.annotation is Backend and not parameter.required:
        return f"{parameter.name}=({Backend.from_json(parameter.default)})"
    return parameter.name if parameter.required else f"{parameter.name}={parameter.default!r}"


def _state(recipe: Recipe) -> str:
    found = code_revision(recipe)
    if found is None:
        return f"source {recipe.source_digest[:12]}"
    state = {True: ", changed since", False: "", None: ", not compared"}[found.dirty]
    return f"commit {(found.commit or 'none yet')[:12]}{state}"


def _document(recipe: Recipe) -> dict[str, Any]:
    code = code_revision(recipe)
    return {
        "name": recipe.name,
        "version": recipe.version,
        "outputs": list(recipe.outputs),
        "parameters": {
            item.name: {"required": item.required, "default": item.default}
            for item in recipe.parameters.values()
        },
        "seeded": recipe.seeded,
        "module": recipe.function.__module__,
        "source_digest": recipe.source_digest,
        "code": code and {"commit": code.commit, "dirty": code.dirty},
    }
