"""``recall catalog``."""

from __future__ import annotations

import dataclasses
import heapq
import sys
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import click

from recallfs.catalog.audit import trail
from recallfs.cli.audit_page import event_row, replaced_text, write_events
from recallfs.cli.completion import complete_store
from recallfs.cli.output import print_json, say, warn
from recallfs.errors import InvalidInputError
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


@command.command(name="audit")
@click.option("--since", help="From this date or time on (UTC), for example 2026-01-31.")
@click.option("--until", help="Before this date or time (UTC).")
@click.option("--store", "names", multiple=True, shell_complete=complete_store, help="Only its.")
@click.option("--action", "actions", multiple=True, help="Only these, such as release or forget.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "jsonl", "csv")),
    default="table",
    show_default=True,
    help="For people, programs (JSON Lines) or spreadsheets.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file; what is there is replaced when all is written.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def audit_command(
    *,
    since: str | None,
    until: str | None,
    names: tuple[str, ...],
    actions: tuple[str, ...],
    form: str,
    out: Path | None,
    as_json: bool,
) -> int:
    """Tell who released, dropped, proved, revoked or forgot what, when, why and on what evidence.

    Example: recall catalog audit --since 2026-01-01 --action release --format csv --out audit.csv
    """
    stores = stores_in_reach()
    moments = [_moment(text, name) for text, name in ((since, "--since"), (until, "--until"))]
    events = heapq.merge(
        *(
            map(partial(event_row, store), trail(store, *moments, actions=actions))
            for store in map(stores.by_name, names or stores.names())
        ),
        key=lambda row: row["at"],
    )
    if as_json:
        if out is not None or form != "table":
            raise click.UsageError("--json prints one document; use --format jsonl with --out.")
        print_json({"events": list(events)})
        return 0
    if out is None:
        write_events(events, form, sys.stdout)
        return 0
    with replaced_text(out) as file:
        count = write_events(events, form, file)
    say(f"{count:,} events are in {out}.")
    return 0


def _moment(text: str | None, option: str) -> str:
    """Read a date or time as ISO in UTC."""
    if text is None:
        return ""
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        raise InvalidInputError(
            f"{option}: {text!r} is no date; write for example 2026-01-31 or 2026-01-31T12:00."
        ) from None
    moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    return moment.isoformat(timespec="microseconds")
