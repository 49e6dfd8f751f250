"""``recall unpin``."""

from __future__ import annotations

import click

from recallfs.cli.completion import complete_address
from recallfs.cli.output import print_json, say, told_warnings
from recallfs.release.pins import set_pin
from recallfs.resolve.selection import select
from recallfs.resolve.stores import stores_in_reach


@click.command(name="unpin")
@click.argument("selection", shell_complete=complete_address, nargs=-1, required=True)
@click.option("--why", default="", help="Reason, kept in the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(selection: tuple[str, ...], why: str, as_json: bool) -> None:
    """Let pinned files be released again.

    Example: recall unpin recall://analysis/raw
    """
    stores = stores_in_reach()
    found = select(stores, selection)
    with told_warnings():
        urls = [set_pin(store, entry, False, why) for store, entry in found]
    if as_json:
        print_json({"unpinned": urls})
        return
    for url in urls:
        say(f"{url} is no longer pinned.")
