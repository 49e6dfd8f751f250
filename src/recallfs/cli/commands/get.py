"""``recall get``."""

from __future__ import annotations

import dataclasses

import click

from recallfs.cli.batch import for_each, print_failures
from recallfs.cli.completion import complete_address
from recallfs.cli.output import byte_bar, console, print_json, print_table, say, warn
from recallfs.resolve.chain import Limits, known_source
from recallfs.resolve.recall import recall
from recallfs.resolve.selection import select
from recallfs.resolve.stores import stores_in_reach
from recallfs.resolve.wish import Wish
from recallfs.values import State, display_name, format_size


@click.command(name="get")
@click.argument("selection", shell_complete=complete_address, nargs=-1, required=True)
@click.option("--source", help="Ask only this source, for example mirror:lab or recompute.")
@click.option("--no-recompute", is_flag=True, help="Run no recipe.")
@click.option(
    "--refresh", is_flag=True, help="Ask even sources that did not have it, or failed, just now."
)
@click.option(
    "--slice",
    "wanted",
    metavar="'/PATH[I:J, ...]'",
    help="Read only this of a dataset, and bring no file back if that can be.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="With --slice: write the values there, as .npy; - is standard output.",
)
@click.option(
    "--unverified", is_flag=True, help="With --slice: even if only an ETag ties them to the file."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # noqa: PLR0917 - one argument an option
    selection: tuple[str, ...],
    source: str | None,
    no_recompute: bool,
    refresh: bool,
    wanted: str | None,
    output: str | None,
    unverified: bool,
    as_json: bool,
) -> int:
    """Bring files back to their paths: URLs, paths, folders or globs.

    Example: recall get 'recall://analysis/sub-1/*.nwb'
    """
    stores = stores_in_reach()
    if wanted is not None:
        return _slice(selection, wanted, output, unverified, as_json)
    if output is not None or unverified:
        raise click.UsageError("-o and --unverified go with --slice.")
    found = select(stores, selection)
    total = sum(entry.size_bytes for _, entry in found if entry.state is not State.RESIDENT)
    warnings: list[str] = []
    with byte_bar("recalling", total, quiet=as_json) as progress:

        def announce(sentence: str) -> None:
            if not as_json:
                console(error=True).print(display_name(sentence), markup=False, soft_wrap=True)

        limits = Limits(known_source(stores, source), no_recompute, refresh)
        wish = Wish(limits=limits, progress=progress, announce=announce, warn=warnings.append)
        done, failed = for_each(found, lambda store, entry: recall(stores, store, entry.path, wish))
    if as_json:
        rows = [{**dataclasses.asdict(item), "path": str(item.path)} for item in done]
        print_json(
            {"files": rows, "failed": [error.to_json() for error in failed], "warnings": warnings}
        )
    else:
        print_table(
            ["file", "size>", "source", "how", "level", "seconds>"],
            [
                [r.url, format_size(r.size_bytes), r.source, r.method, r.level, f"{r.seconds:.2f}"]
                for r in done
            ],
        )
        for item in done:
            if item.is_cached:
                say(f"{item.url}: you may not write to the store; your copy is {item.path}")
        for sentence in warnings:
            warn(sentence)
        print_failures(failed)
    return 1 if failed else 0


def _slice(
    selection: tuple[str, ...], wanted: str, output: str | None, unverified: bool, as_json: bool
) -> int:
    """Read a slice of a dataset of one file; print or write its values."""
    from recallfs.partial.slices import read_slice  # loads h5py

    if len(selection) != 1:
        raise click.UsageError("--slice reads of one file.")
    if as_json and output == "-":
        raise click.UsageError("--json and -o - would both print.")
    taken = read_slice(selection[0], wanted, unverified=unverified)
    if output is not None:
        taken.save(output)
    if as_json:
        print_json(taken.to_json(with_values=output is None))
    elif output is None:
        for line in str(taken.values).splitlines():
            say(line)
    if not as_json:
        console(error=True).print(display_name(taken.summary), markup=False, soft_wrap=True)
    return 0
