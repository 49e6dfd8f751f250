"""Doing one thing to many files: what failed is told at the end, the rest is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from recallfs.catalog.store import Store
from recallfs.cli.output import console
from recallfs.errors import RecallError
from recallfs.values import Entry, display_name

_Result = TypeVar("_Result")


jobs_option = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many runs at a time.",
)
"""Option of the commands that run recipes."""


def for_each(
    found: Sequence[tuple[Store, Entry]], action: Callable[[Store, Entry], _Result]
) -> tuple[list[_Result], list[RecallError]]:
    """Apply an action to each entry.

    Returns
    -------
    results, failures : list
        Of a single entry the failure is raised instead, so that its exit code is the command's.
    """
    results: list[_Result] = []
    failures: list[RecallError] = []
    for store, entry in found:
        try:
            results.append(action(store, entry))
        except RecallError as error:
            if len(found) == 1:
                raise
            failures.append(error)
    return results, failures


def print_failures(failures: Sequence[RecallError]) -> None:
    """Print each failure as a line on standard error."""
    for failure in failures:
        line = display_name(f"error: {failure}")
        console(error=True).print(line, markup=False, soft_wrap=True)
