"""``recall push``."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import click

from recallfs.catalog.store import Store
from recallfs.cli.batch import print_failures
from recallfs.cli.completion import complete_address
from recallfs.cli.output import byte_bar, count_files, print_json, print_table, say
from recallfs.errors import RecallError
from recallfs.release.push import Pushed, push, push_target
from recallfs.resolve.selection import select
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import Entry, format_size


@click.command(name="push")
@click.argument("selection", shell_complete=complete_address, nargs=-1, required=True)
@click.option("--to", "target", metavar="SOURCE", required=True, help="mirror:NAME, or kachery.")
@click.option(
    "--recall", "recall_first", is_flag=True, help="Bring back first what is not resident."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Files to copy at once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    selection: tuple[str, ...], target: str, recall_first: bool, jobs: int, as_json: bool
) -> int:
    """Copy files to a mirror, read them back, and record where the copies are.

    Nothing there is ever replaced: other bytes at a file's place are a conflict, and both are kept.
    What is there already is not copied again, so a push that was interrupted is simply repeated.
    Exit code 1 if any file could not be pushed.

    Example: recall push 'recall://analysis/sub-1/*.nwb' --to mirror:nas
    """
    stores = stores_in_reach()
    source = push_target(stores, target)
    found = select(stores, selection)
    for store in {store.id: store for store, _ in found}.values():
        source.refuse_push(store)
    total = 2 * sum(entry.size_bytes for _, entry in found)
    done: list[Pushed] = []
    failed: list[RecallError] = []
    with byte_bar("writing and reading back", total, quiet=as_json) as progress:

        def one(item: tuple[Store, Entry]) -> Pushed | RecallError:
            try:
                return push(stores, *item, source, recall_first=recall_first, progress=progress)
            except RecallError as error:
                return error

        with ThreadPoolExecutor(jobs, thread_name_prefix="recall-push") as pool:
            for result in pool.map(one, found):
                if isinstance(result, Pushed):
                    done.append(result)
                else:
                    failed.append(result)
    if failed and len(found) == 1:
        raise failed[0]
    copied = sum(item.size_bytes for item in done if item.status == "copied")
    if as_json:
        print_json(
            {
                "target": source.name,
                "files": [dataclasses.asdict(item) for item in done],
                "failed": [error.to_json() for error in failed],
                "copied_bytes": copied,
            }
        )
        return 1 if failed else 0
    if done:
        print_table(
            ["file", "size>", "", "seconds>", "where"],
            [
                [
                    item.url,
                    format_size(item.size_bytes),
                    item.status,
                    f"{item.seconds:.2f}",
                    "; ".join(filter(None, (item.location, item.reason))),
                ]
                for item in done
            ],
        )
    print_failures(failed)
    there = sum(item.status == "there" for item in done)
    skipped = sum(item.status == "skipped" for item in done)
    new = count_files(len(done) - there - skipped)
    say(
        f"{new} copied to {source.name} and read back ({format_size(copied)}), {there:,} there "
        f"already, {skipped:,} skipped, {len(failed):,} failed."
    )
    return 1 if failed else 0
