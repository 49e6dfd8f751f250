"""``recall pin``."""

from __future__ import annotations

import click

from recallfs.cli.completion import complete_address
from recallfs.cli.output import print_json, say, told_warnings
from recallfs.release.pins import set_pin
from recallfs.resolve.selection import select
from recallfs.resolve.stores import stores_in_reach


@click.command(name="pin")
@click.argument("selection", shell_complete=complete_address, nargs=-1, required=True)
@click.option("--why", default="", help="Reason, shown where the pin stops something.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(selection: tuple[str, ...], why: str, as_json: bool) -> None:
    """Keep files resident: they are neither released, replaced nor forgotten.

    Example: recall pin recall://analysis/raw --why "used by the poster"
    """
    stores = stores_in_reach()
    found = select(stores, selection)
    with told_warnings():
        urls = [set_pin(store, entry, True, why) for store, entry in found]
    if as_json:
        print_json({"pinned": urls})
        return
    for url in urls:
        say(f"{url} is pinned.")
