"""``recall run``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from recallfs.cli.output import byte_bar, print_json, say, warn
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
@click.option(
    "--reuse/--no-reuse",
    default=None,
    help="Take what the same derivation gave on another computer, if a mirror has it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    name: str,
    outputs: tuple[str, ...],
    inputs: tuple[str, ...],
    parameters: tuple[str, ...],
    reuse: bool | None,
    as_json: bool,
) -> None:
    """Run a recipe, unless the same derivation was run before; missing inputs are recalled.

    With `--reuse` (or `[recipes] reuse = true`) mirrors are asked for what the same recipe, inputs
    and parameters gave on another computer. Its bytes are verified; that this recipe would give
    them here is not, so it counts as no proof.

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
            reuse=reuse,
        )
    if as_json:
        print_json(
            {
                "outputs": dict(result.outputs),
                "executed": result.executed,
                "key": result.key,
                "seconds": result.seconds,
                "source": result.source,
                "warnings": list(result.warnings),
            }
        )
        return
    for sentence in result.warnings:
        warn(sentence)
    for output in result.outputs.values():
        if result.source:
            say(f"{output}: made elsewhere by the same derivation; taken from {result.source}.")
        elif result.executed:
            say(f"{output}: made in {result.seconds:.1f} s.")
        else:
            say(f"{output}: the same derivation made it before; nothing was run or written.")


def named(pairs: Sequence[str], what: str, names: Sequence[str] | None = None) -> dict[str, str]:
    """Read ``NAME=URL`` pairs; a single output needs no name."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, separator, address = pair.partition("=")
        name = f"{name}/" if names and name not in names and f"{name}/" in names else name
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
