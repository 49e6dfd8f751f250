"""``recall catalog``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from recallfs.cli.completion import complete_store
from recallfs.cli.output import print_json, say, warn
from recallfs.release.drill import configured_vault
from recallfs.resolve.stores import rebuild_catalog, stores_in_reach
from recallfs.skeleton.salvage import find_in_vault, put_back


@click.group(name="catalog")
def command() -> None:
    """Look after the catalog, which is an index of the sidecars.

    Example: recall catalog rebuild analysis
    """


@command.command(name="rebuild")
@click.argument("names", metavar="[STORE...]", shell_complete=complete_store, nargs=-1)
@click.option(
    "--from-vault",
    "vault",
    is_flag=False,
    flag_value="",
    metavar="[DIR]",
    help="First put back what the vault holds and .recall does not, the whole of it if need be; "
    "by default the vault that the store has.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rebuild_command(names: tuple[str, ...], vault: str | None, as_json: bool) -> int:
    """Make the catalog again from the sidecars and the tree.

    Example: recall catalog rebuild analysis
    """
    stores = stores_in_reach()
    if vault is not None:
        if not names:
            raise click.UsageError("say which store to put back from its vault.")
        for name in names:
            place = Path(vault).absolute() if vault else configured_vault(stores.config, name)
            copied = put_back(find_in_vault(place, name), stores.root_of(name))
            if not as_json:
                say(f"{name}: {copied:,} files put back from the vault {place}.")
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
