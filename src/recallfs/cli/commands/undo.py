"""``recall undo``."""

from __future__ import annotations

import click

from recallfs.cli.batch import for_each, print_failures
from recallfs.cli.completion import complete_address
from recallfs.cli.output import print_json, say
from recallfs.release.release import undo
from recallfs.resolve.selection import select
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import State


@click.command(name="undo")
@click.argument("selection", shell_complete=complete_address, nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(selection: tuple[str, ...], as_json: bool) -> int:
    """Put released files back from the trash.

    Example: recall undo recall://analysis/sub-1
    """
    stores = stores_in_reach()
    found = select(stores, selection)
    if len(found) > 1:
        found = [(store, entry) for store, entry in found if entry.state is State.RELEASED]
    done, failed = for_each(found, lambda store, entry: undo(stores, store, entry).url)
    if as_json:
        print_json({"restored": done, "failed": [error.to_json() for error in failed]})
        return 1 if failed else 0
    for url in done:
        say(f"{url} is back.")
    print_failures(failed)
    return 1 if failed else 0
