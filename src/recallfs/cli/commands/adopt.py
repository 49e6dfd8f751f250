"""``recall adopt``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from recallfs.cli.batch import print_failures
from recallfs.cli.commands.run import named
from recallfs.cli.output import count_bar, print_json, print_table, say
from recallfs.cli.rows import query_of, spyglass_option
from recallfs.errors import InvalidInputError, RecallError
from recallfs.recipes.model import parse_parameters
from recallfs.recipes.registry import find_recipe
from recallfs.recipes.runs import Run, read_batch
from recallfs.resolve.binding import Adopted, Bound, adopt, adopt_all
from recallfs.resolve.stores import Stores, stores_in_reach

_STATUS = {
    "bound": "bound",
    "there": "bound already",
    "missing": "known, not here",
    "failed": "FAILED",
}


@click.command(name="adopt")
@click.argument("outputs", metavar="[NAME=]FILE...", nargs=-1)
@click.option("--recipe", "name", help="The recipe that made it.")
@click.option("-i", "inputs", metavar="NAME=URL", multiple=True, help="Input.")
@click.option("-p", "parameters", metavar="NAME=VALUE", multiple=True, help="Parameter (JSON).")
@click.option(
    "--batch",
    type=click.Path(path_type=Path),
    help="File that lists how files were made, as `recall run` takes it: .csv or .jsonl.",
)
@spyglass_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    outputs: tuple[str, ...],
    name: str | None,
    inputs: tuple[str, ...],
    parameters: tuple[str, ...],
    batch: Path | None,
    restriction: str | None,
    as_json: bool,
) -> int:
    """Put on record how files were made that recallfs did not make; nothing is run.

    Whether the recipe gives them back is shown by `recall prove`, before which they are not
    released. A recipe with several outputs takes one NAME=FILE for each.

    With `--batch` a file lists them, in the form that `recall run --batch` reads. A line that
    cannot be bound does not keep the others back; what is bound already is passed over.

    With `--spyglass` the files of rows of a Spyglass database are bound to the recipe that declares
    rows of their table. What Spyglass has logged of them is told, and proves nothing.

    Example: recall adopt recall://analysis/s1_lfp.nwb --recipe lfp -i raw=recall://analysis/s1.nwb
    -p freq_max=300
    """
    stores = stores_in_reach()
    settings = stores.config.recipes
    if restriction is not None:
        if outputs or inputs or parameters or batch is not None:
            raise InvalidInputError(
                "with --spyglass, the rows say what made each file; leave out FILE, -i, -p and "
                "--batch."
            )
        return _adopt_rows(stores, restriction, name or "", as_json=as_json)
    if batch is not None:
        if outputs or inputs or parameters:
            raise InvalidInputError(
                "with --batch, files, inputs and parameters are in the file; leave out FILE, -i "
                "and -p."
            )
        runs = read_batch(
            batch, name, lambda wanted: find_recipe(wanted, settings.modules, settings.paths)
        )
        return _adopt_all(stores, runs, as_json=as_json)
    if not outputs:
        raise click.UsageError(
            "Missing argument 'FILE' (or --batch FILE, or --spyglass RESTRICTION)."
        )
    if name is None:
        raise click.UsageError("Missing option '--recipe' (or --batch FILE).")
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
        return 0
    for url in result.outputs.values():
        if result.is_new:
            say(f"{url}: bound to {name}; `recall prove {url}` shows whether it comes back.")
        else:
            say(f"{url}: was bound to this derivation already.")
    return 0


def _adopt_all(stores: Stores, runs: Sequence[Run], *, as_json: bool) -> int:
    with count_bar(f"binding {len(runs):,}", quiet=as_json) as update:
        results = adopt_all(stores, runs, told=lambda item: update(item.run.label, 1))
    errors: list[RecallError] = [item.error for item in results if item.error is not None]
    counts = {status: sum(item.status == status for item in results) for status in _STATUS}
    if as_json:
        print_json({"files": [_row(item) for item in results], **counts})
        return 1 if errors else 0
    rows = [
        [
            item.run.label,
            item.run.recipe,
            _STATUS[item.status],
            ", ".join(_outputs(item).values()),
        ]
        for item in results
        if item.status != "there"  # of a thousand lines that were resumed, the new ones count
    ]
    if rows:
        print_table(["", "recipe", "", "file"], rows)
    parts = [f"{count:,} {_STATUS[status].lower()}" for status, count in counts.items() if count]
    say(f"{len(results):,} lines: {', '.join(parts)}.")
    print_failures(errors)
    return 1 if errors else 0


def _adopt_rows(stores: Stores, restriction: str, recipe: str, *, as_json: bool) -> int:
    """Adopt the files of rows of a Spyglass database."""
    from recallfs.integrations.spyglass.adoption import adopt as adopt_rows
    from recallfs.integrations.spyglass.declared import recipe_for

    query = query_of(stores, restriction)
    recipe = recipe or recipe_for(stores, query)
    with count_bar("binding", quiet=as_json) as update:
        results = adopt_rows(query, recipe, told=lambda file: update(file, 1))
    rows: list[dict[str, Any]] = [
        {
            "run": item.file,
            "recipe": recipe,
            "status": _status_of(item.value),
            "outputs": {} if item.value is None else dict(item.value.outputs),
            "key": item.value and item.value.key,
            "error": item.error and item.error.to_json(),
            "notes": list(item.notes),
        }
        for item in results
    ]
    counts = {status: sum(row["status"] == status for row in rows) for status in _STATUS}
    if as_json:
        print_json({"files": rows, **counts})
        return 1 if counts["failed"] else 0
    print_table(
        ["", "recipe", ""], [[row["run"], row["recipe"], _STATUS[row["status"]]] for row in rows]
    )
    for row in rows:
        for note in row["notes"]:
            say(f"{row['run']}: {note}.")
    parts = [f"{count:,} {_STATUS[status].lower()}" for status, count in counts.items() if count]
    say(f"{len(rows):,} rows: {', '.join(parts)}.")
    print_failures([item.error for item in results if item.error is not None])
    return 1 if counts["failed"] else 0


def _status_of(adopted: Adopted | None) -> str:
    if adopted is None:
        return "failed"
    if not adopted.key:
        return "missing"
    return "bound" if adopted.is_new else "there"


def _row(item: Bound) -> dict[str, Any]:
    return {
        "run": item.run.label,
        "recipe": item.run.recipe,
        "status": item.status,
        "outputs": _outputs(item),
        "key": item.adopted and item.adopted.key,
        "error": item.error and item.error.to_json(),
    }


def _outputs(item: Bound) -> dict[str, str]:
    adopted: Adopted | None = item.adopted
    return dict(item.run.outputs if adopted is None else adopted.outputs)
