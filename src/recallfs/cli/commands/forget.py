"""``recall forget``."""

from __future__ import annotations

import sys

import click

from recallfs.cli.completion import complete_address
from recallfs.cli.output import count_files, print_json, say
from recallfs.resolve.selection import select
from recallfs.resolve.stores import stores_in_reach
from recallfs.resolve.tree import forget, refuse_if_needed


@click.command(name="forget")
@click.argument("selection", shell_complete=complete_address, nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(selection: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Drop files, their entries and what would bring them back. There is no way back.

    To free space and keep the way back, use `recall release`.

    Example: recall forget recall://analysis/old.nwb
    """
    stores = stores_in_reach()
    found = select(stores, selection)
    for store, entry in found:
        refuse_if_needed(store, entry)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to ask; add --yes.")
        click.confirm(f"Drop {count_files(len(found))} for good?", abort=True)
    urls = [store.url(forget(store, entry.path).path) for store, entry in found]
    if as_json:
        print_json({"forgotten": urls})
        return
    for url in urls:
        say(f"{url} is forgotten.")
