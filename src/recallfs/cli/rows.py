"""Files that are named by rows of a Spyglass database: ``--spyglass RESTRICTION``."""

from __future__ import annotations

from typing import Any

import click

from recallfs.cli.output import count_files, warn
from recallfs.errors import InvalidInputError
from recallfs.resolve.stores import Stores

_SHOWN = 3

spyglass_option = click.option(
    "--spyglass",
    "restriction",
    metavar="RESTRICTION",
    help="Files of these rows of the Spyglass database: TABLE or 'TABLE & CONDITION', the table as "
    "package.module:Class or as a recipe declares it, the condition as JSON or SQL.",
)
"""Option of the commands that take rows in place of addresses."""


def query_of(stores: Stores, restriction: str) -> Any:
    """Return the query of a restriction, of which there are rows."""
    # Spyglass takes seconds to load, and few have it.
    from recallfs.integrations.spyglass.database import told_plainly
    from recallfs.integrations.spyglass.restriction import parse

    query = parse(stores, restriction)
    with told_plainly():
        if not query:
            raise InvalidInputError(
                f"no row matches {restriction!r}; look with Spyglass, or leave out the condition.",
                kind="unknown-entry",
            )
    return query


def with_rows(
    stores: Stores, selection: tuple[str, ...], restriction: str | None
) -> tuple[str, ...]:
    """Return a selection with the addresses of the rows' files; says which rows have none.

    Raises
    ------
    InvalidInputError
        Kind ``unknown-entry``: no row matches, or of none the file was adopted.
    """
    if restriction is None:
        return selection
    from recallfs.integrations.spyglass.adoption import addresses

    known, unknown = addresses(stores, query_of(stores, restriction))
    names = ", ".join(unknown[:_SHOWN]) + (", …" if len(unknown) > _SHOWN else "")
    if not known:
        raise InvalidInputError(
            f"nothing is on record of {names}; `recall adopt --spyglass` comes first.",
            kind="unknown-entry",
            details={"files": unknown},
        )
    if unknown:
        warn(f"{count_files(len(unknown))} left out, which `recall adopt` did not take: {names}")
    return (*selection, *known)
