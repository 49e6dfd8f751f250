"""``recall catalog``."""

from __future__ import annotations

import dataclasses

import click

from recallfs.cli.completion import complete_store
from recallfs.cli.output import print_json, say, warn
from recallfs.resolve.stores import rebuild_catalog, stores_in_reach


@click.group(name="catalog")
def command() -> None:
    """Look after the catalog, which is an index of the sidecars.

    Example: recall catalog rebuild analysis
    """


@command.command(name="rebuild")
@click.argument("names", metavar="[STORE...]", shell_complete=complete_store, nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rebuild_command(names: tuple[str, ...], as_json: bool) -> int:
    """Make the catalog again from the sidecars and the tree.

    Example: recall catalog rebuild analysis
    """
    stores = stores_in_reach()
    reports = {name: rebuild_catalog(stores, name) for name in names or stores.names()}
    if as_json:
        print_json({name: dataclasses.asdict(report) for name, report in reports.items()})
    else:
        for name, report in reports.items():
            states = ", ".join(f"{count} {state}" for state, count in report.states.items())
            say(f"{name}: {report.entries} entries ({states or 'empty'}).")
            for path in report.damaged:
                warn(f"{path} is damaged and was left out; restore it from the vault.")
            for path in report.only_in_vault:
                warn(
                    f"{path} has no counterpart in the store. Unless the file was forgotten on "
                    "purpose, copy it to .recall/entries/ under the same name and rebuild again."
                )
    return 1 if any(report.damaged for report in reports.values()) else 0
