"""``recall explain``."""

from __future__ import annotations

import click

from recallfs.catalog.records import known_entry
from recallfs.cli.completion import complete_address
from recallfs.cli.output import print_json, print_table, say
from recallfs.resolve.recall import plan_for
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import format_size


@click.command(name="explain")
@click.argument("address", metavar="URL", shell_complete=complete_address)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(address: str, as_json: bool) -> None:
    """Show what opening a file would do, without doing it.

    Example: recall explain recall://analysis/sub-1/lfp.nwb
    """
    stores = stores_in_reach()
    store, path = stores.resolve(address)
    plan = plan_for(stores, store, known_entry(store, path))
    if as_json:
        print_json(plan.to_json())
        return
    say(f"{plan.url} ({format_size(plan.size_bytes)}, {plan.state.value})")
    say(f"{plan.action}: {plan.reason}")
    if plan.cache:
        say(f"You may not write to this store; your copy: {plan.cache}")
    if plan.steps:
        print_table(
            ["", "source", "what", "expected>"],
            [
                [
                    f"{number}.",
                    step.source,
                    step.what,
                    "?" if step.expected_s is None else f"{step.expected_s:.1f} s",
                ]
                for number, step in enumerate(plan.steps, start=1)
            ],
        )
        say("The first source whose bytes have the recorded sha256 ends it.")
