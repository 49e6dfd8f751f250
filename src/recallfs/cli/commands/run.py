"""``recall run``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from recallfs.cli.output import byte_bar, print_json, say
from recallfs.errors import InvalidInputError
from recallfs.recipes.model import parse_parameters
from recallfs.recipes.registry import find_recipe
from recallfs.resolve.derive import derive
from recallfs.resolve.recall import Wish
from recallfs.resolve.stores import stores_in_reach


@click.command(name="run")
@click.argument("name", metavar="RECIPE")
@click.option("-o", "outputs", metavar="[NAME=]URL", multiple=True, required=True, help="Output.")
@click.option("-i", "inputs", metavar="NAME=URL", multiple=True, help="Input.")
@click.option("-p", "parameters", metavar="NAME=VALUE", multiple=True, help="Parameter (JSON).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    name: str,
    outputs: tuple[str, ...],
    inputs: tuple[str, ...],
    parameters: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a recipe, unless the same derivation was run before; missing inputs are recalled.

    Example: recall run lfp -o recall://analysis/s1_lfp.nwb -i raw=recall://analysis/s1.nwb
    -p freq_max=300
    """
    stores = stores_in_reach()
    settings = stores.config.recipes
    recipe = find_recipe(name, settings.modules, settings.paths)
    with byte_bar(f"running {name}", 0, quiet=as_json) as progress:
        result = derive(
            stores,
            name,
            outputs=named(outputs, "output", recipe.outputs),
            inputs=named(inputs, "input"),
            parameters=parse_parameters(recipe, list(parameters)),
            wish=Wish(progress=progress),
        )
    if as_json:
        print_json(
            {
                "outputs": dict(result.outputs),
                "executed": result.executed,
                "key": result.key,
                "seconds": result.seconds,
            }
        )
        return
    for output in result.outputs.values():
        if result.executed:
            say(f"{output}: made in {result.seconds:.1f} s.")
        else:
            say(f"{output}: the same derivation made it before; nothing was run or written.")


def named(pairs: Sequence[str], what: str, names: Sequence[str] | None = None) -> dict[str, str]:
    """Read ``NAME=URL`` pairs; a single output needs no name."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, separator, address = pair.partition("=")
        is_named = bool(separator) and (name in names if names else name.isidentifier())
        if not is_named and (names is None or len(names) > 1):
            raise InvalidInputError(f"{pair!r}: an {what} is given as NAME=URL.")
        name, address = (name, address) if is_named else ("", pair)
        if name in found:
            raise InvalidInputError(f"the {what} {name!r} is given twice.")
        found[name] = address
    if names is not None and len(names) == 1 and set(found) == {names[0]}:
        return {"": found[names[0]]}
    return found
