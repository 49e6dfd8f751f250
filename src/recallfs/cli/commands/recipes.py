"""``recall recipes``."""

from __future__ import annotations

import warnings
from typing import Any

import click

from recallfs.cli.output import print_json, print_table, warn
from recallfs.recipes.code import code_revision
from recallfs.recipes.model import Parameter, Recipe
from recallfs.recipes.registry import load_recipes
from recallfs.resolve.stores import stores_in_reach


@click.command(name="recipes")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the recipes that are registered, with their parameters.

    Example: recall recipes
    """
    settings = stores_in_reach().config.recipes
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        recipes = load_recipes(settings.modules, settings.paths).values()
    problems = [str(item.message) for item in caught if item.category is RuntimeWarning]
    if as_json:
        print_json({"recipes": [_document(recipe) for recipe in recipes], "warnings": problems})
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


def _shown(parameter: Parameter) -> str:
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
