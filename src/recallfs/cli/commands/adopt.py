"""``recall adopt``."""

from __future__ import annotations

import click

from recallfs.cli.commands.run import named
from recallfs.cli.output import print_json, say
from recallfs.recipes.model import parse_parameters
from recallfs.recipes.registry import find_recipe
from recallfs.resolve.binding import adopt
from recallfs.resolve.stores import stores_in_reach


@click.command(name="adopt")
@click.argument("outputs", metavar="[NAME=]FILE...", nargs=-1, required=True)
@click.option("--recipe", "name", required=True, help="The recipe that made it.")
@click.option("-i", "inputs", metavar="NAME=URL", multiple=True, help="Input.")
@click.option("-p", "parameters", metavar="NAME=VALUE", multiple=True, help="Parameter (JSON).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    outputs: tuple[str, ...],
    name: str,
    inputs: tuple[str, ...],
    parameters: tuple[str, ...],
    as_json: bool,
) -> None:
    """Put on record how a file was made that recallfs did not make; nothing is run.

    Whether the recipe gives it back is shown by `recall prove`, before which it is not released.
    A recipe with several outputs takes one NAME=FILE for each.

    Example: recall adopt recall://analysis/s1_lfp.nwb --recipe lfp -i raw=recall://analysis/s1.nwb
    -p freq_max=300
    """
    stores = stores_in_reach()
    settings = stores.config.recipes
    recipe = find_recipe(name, settings.modules, settings.paths)
    result = adopt(
        stores,
        name,
        outputs=named(outputs, "output", recipe.outputs),
        inputs=named(inputs, "input"),
        parameters=parse_parameters(recipe, list(parameters)),
    )
    if as_json:
        print_json({"outputs": dict(result.outputs), "key": result.key, "is_new": result.is_new})
        return
    for url in result.outputs.values():
        if result.is_new:
            say(f"{url}: bound to {name}; `recall prove {url}` shows whether it comes back.")
        else:
            say(f"{url}: was bound to this derivation already.")
