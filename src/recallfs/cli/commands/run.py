"""``recall run``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from recallfs.cli.batch import jobs_option, print_failures
from recallfs.cli.output import byte_bar, count_bar, print_json, print_table, say, warn
from recallfs.errors import InvalidInputError
from recallfs.recipes.registry import find_recipe
from recallfs.recipes.runs import Run, read_batch, sweep
from recallfs.resolve.batch import Done, arrange, execute
from recallfs.resolve.derive import derive
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.resolve.wish import Wish
from recallfs.values import format_size

_TOLD = 5
"""How many outputs are named that are there under another name."""

_STATUS = {"made": "made", "there": "there already", "taken": "taken", "failed": "FAILED"}


@click.command(name="run")
@click.argument("name", metavar="[RECIPE]", required=False)
@click.option("-o", "outputs", metavar="[NAME=]URL", multiple=True, help="Output.")
@click.option("-i", "inputs", metavar="NAME=URL", multiple=True, help="Input.")
@click.option(
    "-p",
    "parameters",
    metavar="NAME=VALUE[,VALUE...]",
    multiple=True,
    help="Parameter (JSON, or text); several values make a sweep.",
)
@click.option(
    "--batch",
    type=click.Path(path_type=Path),
    help="File that lists runs, one a line: .csv or .jsonl.",
)
@jobs_option
@click.option(
    "--reuse/--no-reuse",
    default=None,
    help="Take what the same derivation gave on another computer, if a mirror has it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    name: str | None,
    outputs: tuple[str, ...],
    inputs: tuple[str, ...],
    parameters: tuple[str, ...],
    batch: Path | None,
    jobs: int,
    reuse: bool | None,
    as_json: bool,
) -> int:
    """Run a recipe, unless the same derivation was run before; missing inputs are recalled.

    Several values of a parameter, with commas between them, make a sweep: one run for each
    combination, with `{name}` in the output standing for the value. A value that begins with `[`,
    `{` or `"` is JSON to its end: `[1,2]` is one list, `"a,b"` one text.

    With `--batch` the runs are read from a file. In a .csv file the first line names the columns
    (`recipe`, `output` or `output.NAME`, `input.NAME`, `parameter.NAME`); in a .jsonl file each
    line is an object with `recipe`, `outputs`, `inputs` and `parameters`. An input may be what an
    earlier line makes.

    All runs are checked before the first one begins. What the same derivation made before is passed
    over, so that the same command goes on after an interrupt or a failure. The exit code is 1 if a
    run failed; the others are done all the same.

    With `--reuse` (or `[recipes] reuse = true`) mirrors are asked for what the same recipe, inputs
    and parameters gave on another computer. Its bytes are verified; that this recipe would give
    them here is not, so it counts as no proof.

    Example: recall run lfp -o 'recall://analysis/s1_{freq_max}.nwb' -i raw=recall://analysis/s1.nwb
    -p freq_max=300,600 --jobs 2
    """
    stores = stores_in_reach()
    if batch is None:
        runs = _swept(stores, name, outputs, inputs, parameters)
    elif outputs or inputs or parameters:
        raise InvalidInputError(
            "with --batch, outputs, inputs and parameters are in the file; leave out -o, -i and -p."
        )
    else:
        settings = stores.config.recipes
        runs = read_batch(
            batch, name, lambda wanted: find_recipe(wanted, settings.modules, settings.paths)
        )
    if batch is None and len(runs) == 1:
        _run_one(stores, runs[0], reuse=reuse, as_json=as_json)
        return 0
    return _run_many(stores, runs, jobs=jobs, reuse=reuse, as_json=as_json)


def _swept(
    stores: Stores,
    name: str | None,
    outputs: tuple[str, ...],
    inputs: tuple[str, ...],
    parameters: tuple[str, ...],
) -> list[Run]:
    settings = stores.config.recipes
    if name is None:
        raise click.UsageError("Missing argument 'RECIPE' (or --batch FILE).")
    if not outputs:
        raise click.UsageError("Missing option '-o' (or --batch FILE).")
    recipe = find_recipe(name, settings.modules, settings.paths)
    return sweep(
        recipe, named(outputs, "output", recipe.outputs), named(inputs, "input"), parameters
    )


def _run_one(stores: Stores, run: Run, *, reuse: bool | None, as_json: bool) -> None:
    with byte_bar(f"running {run.recipe}", 0, quiet=as_json) as progress:
        result = derive(
            stores,
            run.recipe,
            outputs=run.outputs,
            inputs=run.inputs,
            parameters=run.parameters,
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
                "cpu_seconds": result.cpu_seconds,
                "peak_memory_bytes": result.peak_memory_bytes,
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


def _run_many(
    stores: Stores, runs: Sequence[Run], *, jobs: int, reuse: bool | None, as_json: bool
) -> int:
    steps = arrange(stores, runs)
    start = time.monotonic()
    with count_bar(f"running {len(runs):,}", quiet=as_json) as update:
        results = execute(
            stores,
            steps,
            jobs=jobs,
            wish=Wish(),
            reuse=reuse,
            told=lambda done: update(done.run.label, 1),
        )
    seconds = time.monotonic() - start
    counts = {status: sum(item.status == status for item in results) for status in _STATUS}
    if as_json:
        print_json({"runs": [_row(item) for item in results], **counts, "seconds": seconds})
    else:
        _print_many(results, counts, seconds)
    return 1 if counts["failed"] else 0


def _row(item: Done) -> dict[str, Any]:
    derived = item.derived
    return {
        "run": item.run.label,
        "recipe": item.run.recipe,
        "status": item.status,
        "outputs": dict(item.run.outputs if derived is None else derived.outputs),
        "key": derived and derived.key,
        "seconds": derived and derived.seconds,
        "cpu_seconds": derived and derived.cpu_seconds,
        "peak_memory_bytes": derived and derived.peak_memory_bytes,
        "source": derived.source if derived else "",
        "warnings": list(derived.warnings) if derived else [],
        "error": item.error and item.error.to_json(),
    }


def _print_many(results: Sequence[Done], counts: dict[str, int], seconds: float) -> None:
    rows = []
    cpu_seconds = 0.0
    elsewhere = []
    for item in results:
        derived = item.derived
        for sentence in derived.warnings if derived else ():
            warn(f"{item.run.label}: {sentence}")
        if item.status == "there" and derived is not None:
            asked, made = list(item.run.outputs.values()), list(derived.outputs.values())
            if asked != made:
                elsewhere.append(f"{', '.join(asked)}: what it would hold is {', '.join(made)}")
            continue  # of a thousand runs that were resumed, the new ones are of interest
        is_new = derived is not None and derived.executed
        cpu_seconds += (derived.cpu_seconds or 0.0) if derived and is_new else 0.0
        peak = derived.peak_memory_bytes if derived and is_new else None
        rows.append(
            [
                item.run.label,
                item.run.recipe,
                _STATUS[item.status],
                f"{derived.seconds:.1f}" if derived else "-",
                f"{derived.cpu_seconds or 0.0:.1f}" if derived and is_new else "-",
                "-" if peak is None else format_size(peak),
                ", ".join((derived.outputs if derived else item.run.outputs).values()),
            ]
        )
    if rows:
        print_table(
            ["run", "recipe", "", "seconds>", "cpu seconds>", "peak memory>", "output"], rows
        )
    parts = [f"{count:,} {_STATUS[status].lower()}" for status, count in counts.items() if count]
    say(f"{len(results):,} runs: {', '.join(parts)}; {seconds:.1f} s, {cpu_seconds:.1f} s of CPU.")
    for sentence in elsewhere[:_TOLD]:
        say(f"Not written: {sentence}, by the same derivation.")
    if len(elsewhere) > _TOLD:
        say(f"… and {len(elsewhere) - _TOLD:,} more; --json lists all of them.")
    print_failures([item.error for item in results if item.error is not None])


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
