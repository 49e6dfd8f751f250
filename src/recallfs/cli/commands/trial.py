"""``recall trial``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from recallfs.cli.batch import jobs_option
from recallfs.cli.commands.prove import check_numbers
from recallfs.cli.completion import complete_address
from recallfs.cli.output import count_bar, count_files, print_json, print_table, say
from recallfs.cli.rows import query_of, spyglass_option
from recallfs.digest.tally import Tolerance
from recallfs.recipes.registry import find_recipe
from recallfs.recipes.runs import read_batch
from recallfs.release.estimate import Group, estimate, groups, reasons
from recallfs.release.sample import (
    OUTCOMES,
    Population,
    Sampled,
    draw,
    population_of_entries,
    population_of_runs,
    try_sample,
)
from recallfs.resolve.selection import select
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.values import format_size


@click.command(name="trial")
@click.argument("selection", shell_complete=complete_address, nargs=-1)
@spyglass_option
@click.option(
    "--batch",
    type=click.Path(path_type=Path),
    help="File that lists how files were made, as `recall run` takes it: .csv or .jsonl.",
)
@click.option(
    "--recipe",
    "name",
    help="With --batch, the recipe of lines that name none; with --spyglass, other than declared.",
)
@click.option("--sample", default=30, show_default=True, type=click.IntRange(1), help="Files.")
@click.option("--seed", type=int, help="Draw the same files again.")
@click.option(
    "--scratch",
    type=click.Path(path_type=Path),
    help="Folder to work in; by default that for temporary files.",
)
@jobs_option
@click.option("--rtol", type=float, default=0.0, help="Relative tolerance to try, too.")
@click.option("--atol", type=float, default=0.0, help="Absolute tolerance to try, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # noqa: PLR0917 - each is an option
    selection: tuple[str, ...],
    restriction: str | None,
    batch: Path | None,
    name: str | None,
    sample: int,
    seed: int | None,
    scratch: Path | None,
    jobs: int,
    rtol: float,
    atol: float,
    as_json: bool,
) -> int:
    """Try on a random sample what could be proved, how much that would free, and how long it takes.

    The recipes of the sample are run with the originals out of their sight, and what they give is
    compared, as for a proof. No proof is recorded, and nothing else: files and records stay as they
    are. With `--batch` or `--spyglass` the files need not be on record at all.

    Shares come with the interval in which, 95% sure, the share of all files lies.

    Example: recall trial --batch made.csv --sample 30 --scratch /fast
    """
    check_numbers(None, rtol, atol)
    if bool(selection) + (batch is not None) + (restriction is not None) != 1:
        raise click.UsageError(
            "Give files of the catalog, or --batch FILE, or --spyglass RESTRICTION."
        )
    stores = stores_in_reach()
    if restriction is not None:
        population = _population_of_rows(stores, restriction, name)
    elif batch is None:
        population = population_of_entries(select(stores, selection))
    else:
        settings = stores.config.recipes
        runs = read_batch(
            batch, name, lambda wanted: find_recipe(wanted, settings.modules, settings.paths)
        )
        population = population_of_runs(stores, runs)
    chosen = draw(population, sample, seed)
    start = time.monotonic()
    with count_bar(f"trying {len(chosen):,}", quiet=as_json) as update:
        sampled = try_sample(
            stores,
            chosen,
            tolerance=Tolerance(atol, rtol),
            scratch=scratch,
            jobs=jobs,
            told=lambda item: update(item.url, 1),
        )
    elapsed_s = time.monotonic() - start
    found = estimate(population, sampled, elapsed_s)
    if as_json:
        print_json(_document(population, sampled, found))
    else:
        _print(population, sampled, found)
    return 0


def _population_of_rows(stores: Stores, restriction: str, recipe: str | None) -> Population:
    from recallfs.integrations.spyglass.adoption import runs

    return population_of_runs(stores, runs(stores, query_of(stores, restriction), recipe or ""))


def _document(
    population: Population, sampled: Sequence[Sampled], found: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "population": {
            "files": len(population.candidates),
            "size_bytes": population.size_bytes,
            "left_out": dict(population.left_out),
        },
        "files": [{**vars(item), "error": item.error and item.error.to_json()} for item in sampled],
        "groups": [asdict(group) for group in groups(sampled)],
        "reasons": [
            {"reason": reason, "files": count, "example": url}
            for reason, count, url in reasons(sampled)
        ],
        "frees_bytes": found["frees_bytes"],
        "hours": found["hours"],
    }


def _print(population: Population, sampled: Sequence[Sampled], found: Mapping[str, Any]) -> None:
    for why, count in population.left_out.items():
        say(f"{count_files(count)} left out: {why}.")
    if not sampled:
        say("no file is here whose recipe is known, so there is nothing to try.")
        return
    shown = [name for name in OUTCOMES if any(item.outcome == name for item in sampled)]
    columns = ["", "files>", "size>", *(f"{name}>" for name in shown)]
    print_table(columns, [_row(group, shown) for group in groups(sampled)])
    for reason, count, url in reasons(sampled):
        say(f"{count_files(count)} failed, such as {url}: {reason}")
    for item in sampled:
        if item.error is None and item.reason:
            say(f"{item.url} {item.reason}")
    total = f"{format_size(found['size_bytes'])} in {count_files(found['files'])}"
    say("")
    for level in ("exact", "content", "tolerance"):
        if level in shown:
            frees = found["frees_bytes"][level]
            low, high = format_size(frees["low"]), format_size(frees["high"])
            kind = "exactly as they were" if level == "exact" else f"at the level {level} or better"
            say(
                f"Of {total}, about {format_size(frees['expected'])} ({low} to {high}) could be "
                f"freed and come back {kind}."
            )
    hours = found["hours"]
    time_needed = f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.0f} minutes"
    say(f"To prove all of it would take about {time_needed}, as the sample went.")


def _row(group: Group, shown: Sequence[str]) -> list[str]:
    cells = []
    for name in shown:
        share = group.outcomes[name]
        of_bytes = share.size_bytes / group.size_bytes if group.size_bytes else 0.0
        cells.append(
            f"{share.files} = {share.share:.0%} ({share.low:.0%} to {share.high:.0%}), "
            f"{of_bytes:.0%} of bytes"
        )
    name = "all" if group.by == "all" else f"{group.by} {group.name or '(not known)'}"
    return [name, str(group.files), format_size(group.size_bytes), *cells]
