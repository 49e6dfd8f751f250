"""``recall warm``."""

from __future__ import annotations

import dataclasses

import click

from recallfs.catalog.store import Store
from recallfs.cli.batch import for_each, print_failures
from recallfs.cli.completion import complete_address
from recallfs.cli.output import count_bar, print_json, print_table, say
from recallfs.partial.opening import Parts, find_parts
from recallfs.partial.outline import Warmed, warm_metadata
from recallfs.partial.whole import complete, complete_behind
from recallfs.resolve.selection import select
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import Entry, format_size


@click.command(name="warm")
@click.argument("selection", shell_complete=complete_address, nargs=-1, required=True)
@click.option("--metadata", is_flag=True, help="Only what opens a file: all but its bulk data.")
@click.option("--background", is_flag=True, help="Do it in a process of its own, and return.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(selection: tuple[str, ...], metadata: bool, background: bool, as_json: bool) -> int:
    """Fetch files into your cache, or of HDF5 files the metadata alone, ahead of time.

    Files that are here are left alone. After --metadata, a file opens without a request. Of one
    that has neither a skeleton nor digests of its blocks, as those of a dandiset, what is read from
    then on is not verified: it is tied to the ETag that its object has now.

    Example: recall warm --metadata 'recall://dandi/000001/*.nwb'
    """
    stores = stores_in_reach()
    found = select(stores, selection)
    if background:
        words = [*(["--metadata"] if metadata else []), "--", *selection]
        written = complete_behind(stores, words)
        if as_json:
            print_json({"files": [], "failed": [], "log": str(written)})
        else:
            say(f"It goes on in the background; its log is {written}.")
        return 0

    def work(store: Store, entry: Entry) -> Warmed | None:
        parts = find_parts(stores, store, entry.path)
        if parts is None:
            return None
        return warm_metadata(parts) if metadata else _whole(parts)

    with count_bar("warming", quiet=as_json) as count:

        def counted(store: Store, entry: Entry) -> Warmed | None:
            count(entry.path, 1)
            return work(store, entry)

        done, failed = for_each(found, counted)
    rows = [item for item in done if item is not None]
    if as_json:
        print_json(
            {
                "files": [dataclasses.asdict(item) for item in rows],
                "failed": [error.to_json() for error in failed],
                "log": None,
            }
        )
    else:
        print_table(
            ["file", "size>", "requests>", "fetched>", "what is read will be"],
            [
                [
                    item.url,
                    format_size(item.size_bytes),
                    str(item.requests),
                    format_size(item.fetched_bytes),
                    item.check,
                ]
                for item in rows
            ],
        )
        print_failures(failed)
    return 1 if failed else 0


def _whole(parts: Parts) -> Warmed:
    """Fetch all of a file."""
    done = complete(parts)
    said = "verified: all of it is here" if done.place else "here in part: the cache is full"
    return Warmed(parts.url, parts.entry.size_bytes, done.requests, done.fetched_bytes, said)
