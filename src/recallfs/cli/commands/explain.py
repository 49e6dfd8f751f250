"""``recall explain``."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from recallfs.catalog.records import known_entry
from recallfs.catalog.store import Store
from recallfs.cli.completion import complete_address
from recallfs.cli.output import print_json, print_table, say
from recallfs.partial.index import PAGES
from recallfs.partial.opening import Parts
from recallfs.partial.reading import CHECKS
from recallfs.resolve.chain import Limits, ask_all, plan_for
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.values import Entry, format_size


@click.command(name="explain")
@click.argument("address", metavar="URL", shell_complete=complete_address)
@click.option("--ask/--no-ask", default=True, help="Whether remote sources are asked.")
@click.option("--refresh", is_flag=True, help="Ask even sources that answered just now.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(address: str, ask: bool, refresh: bool, as_json: bool) -> None:
    """Show what opening a file would do, without doing it: each source's answer, and how long.

    Example: recall explain recall://analysis/sub-1/lfp.nwb
    """
    stores = stores_in_reach()
    store, path = stores.resolve(address)
    entry = known_entry(store, path)
    plan = plan_for(stores, store, entry)
    parts = _in_parts(stores, store, entry)
    answers = []
    if ask and plan.steps:
        answers = ask_all(stores, store, entry, Limits(refresh=refresh))
    if as_json:
        print_json(
            {
                **plan.to_json(),
                "answers": [dataclasses.asdict(item) for item in answers],
                "parts": parts,
            }
        )
        return
    say(f"{plan.url} ({format_size(plan.size_bytes)}, {plan.state.value})")
    say(f"{plan.action}: {plan.reason}")
    if plan.action == "recall":
        how = "in parts" if parts["is_partial"] else "whole"
        say(f"By h5py it is read {how}: {parts['reason']}")
    if plan.cache:
        say(f"You may not write to this store; your copy: {plan.cache}")
    if answers:
        print_table(
            ["", "source", "answer", "what", "size>", "expected>"],
            [
                [
                    f"{number}.",
                    answer.source,
                    _WORDS.get(answer.verdict, answer.verdict),
                    answer.what,
                    "" if answer.size_bytes is None else format_size(answer.size_bytes),
                    _seconds(answer.expected_s),
                ]
                for number, answer in enumerate(answers, start=1)
            ],
        )
    elif plan.steps:
        print_table(
            ["", "source", "what", "expected>"],
            [
                [f"{number}.", step.source, step.what, _seconds(step.expected_s)]
                for number, step in enumerate(plan.steps, start=1)
            ],
        )
    if plan.steps:
        say("The first source whose bytes have the recorded sha256 ends it.")


def _in_parts(stores: Stores, store: Store, entry: Entry) -> dict[str, Any]:
    """Tell whether h5py would read a file in parts, and how these would be verified."""
    parts = Parts(stores, store, entry)
    choice = parts.choice()
    return {
        "is_partial": choice.is_partial,
        "reason": choice.reason,
        "check": CHECKS[parts.kind] if choice.is_partial else "",
        "is_verified": not choice.is_partial or parts.kind != PAGES,
    }


_WORDS = {"local": "need not be asked", "wrong": "has other bytes"}


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f} s"
