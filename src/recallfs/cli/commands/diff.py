"""``recall diff``."""

from __future__ import annotations

from pathlib import Path

import click

from recallfs.catalog import records
from recallfs.catalog.store import find_root
from recallfs.cli.completion import complete_address
from recallfs.cli.difference_page import difference_page
from recallfs.cli.output import byte_bar, count_things, print_json, print_table, say
from recallfs.digest.difference import (
    Difference,
    ObjectDifference,
    compare_digests,
    compare_files,
    same_bytes,
)
from recallfs.digest.folder_difference import compare_folders
from recallfs.digest.hdf5 import ContentDigest, content_digest
from recallfs.digest.rules import KNOWN, find_rules
from recallfs.digest.tally import Tolerance, ValueDifference
from recallfs.errors import InvalidInputError, RecallError
from recallfs.resolve.presence import settle
from recallfs.resolve.stores import stores_in_reach
from recallfs.skeleton.contents import load_contents
from recallfs.values import State

_MOST_ROWS = 50


@click.command(name="diff")
@click.argument("one", metavar="A", shell_complete=complete_address)
@click.argument("other", metavar="B", shell_complete=complete_address)
@click.option(
    "--rules",
    "rules_name",
    default="strict",
    show_default=True,
    metavar="RULES",
    help=f"What is left out: {', '.join(KNOWN)}, or a TOML file of your own.",
)
@click.option("--rtol", type=click.FloatRange(0), default=0.0, help="Tolerated, relative to B.")
@click.option("--atol", type=click.FloatRange(0), default=0.0, help="Tolerated, absolute.")
@click.option(
    "--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page, too."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # noqa: PLR0917 - each is an option
    one: str,
    other: str,
    rules_name: str,
    rtol: float,
    atol: float,
    page: Path | None,
    as_json: bool,
) -> int:
    """Show how two HDF5 or NWB files differ: which objects, in what, and values by how much.

    A and B are files, or addresses in a store. Of a proved file that is not here the digests of its
    objects are kept: they say which objects differ, and nothing is recalled.
    Of two folders, show which files differ; in HDF5, JSON and NumPy files what in them does.

    Exit code 0 if nothing differs that counts (equal bytes, equal content, or all within the
    tolerance), 1 if they are different, 2 if they could not be compared.

    Example: recall diff before.nwb after.nwb --rules nwb-content --rtol 1e-9
    """
    try:
        found = _compared(one, other, rules_name, Tolerance(atol, rtol), quiet=as_json)
        if page is not None:
            text = difference_page(one, other, found, things=_things(one))
            page.write_text(text, encoding="utf-8")
    except RecallError as error:
        if as_json:
            print_json(error.to_json())
        else:
            click.echo(f"error: {error}", err=True)
        return 2
    if as_json:
        print_json({"one": one, "other": other, **found.to_json()})
    else:
        _print(found, _things(one))
    return 0 if found.is_same else 1


def _compared(
    one: str, other: str, rules_name: str, tolerance: Tolerance, *, quiet: bool
) -> Difference:
    rules = find_rules(rules_name)
    first, second = _side(one), _side(other)
    both = (first, second) if isinstance(first, Path) and isinstance(second, Path) else None
    if both and both[0].is_dir() and both[1].is_dir():
        with byte_bar("comparing", 0, quiet=quiet) as progress:
            return compare_folders(*both, rules, tolerance, progress=progress)
    for side in (first, second):
        if isinstance(side, Path) and side.is_dir():
            raise InvalidInputError(
                f"{side} is a folder; compare two folders, or two files.", kind="invalid-path"
            )
    if both and same_bytes(*both):
        return Difference("identical bytes", rules.label, 0, 0)
    with byte_bar("comparing", 0, quiet=quiet) as progress:
        if both:
            return compare_files(*both, rules, tolerance, progress=progress)
        contents = [
            content_digest(side, rules, progress=progress)
            if isinstance(side, Path)
            else side.under(rules)
            for side in (first, second)
        ]
    return compare_digests(*contents)


def _side(address: str) -> Path | ContentDigest:
    """Find a file, or what is kept of one that is not here."""
    path = Path(address)
    if path.is_file() or path.is_dir():
        return path
    if not address.startswith("recall://") and find_root(path.absolute()) is None:
        raise InvalidInputError(f"{path} is not there, or is no file.", kind="invalid-path")
    stores = stores_in_reach()
    store, name = stores.resolve(address)
    entry = records.known_entry(store, name)
    if settle(store, entry) is State.RESIDENT:
        return store.root / entry.path
    contents = load_contents(store, entry)
    if contents is None:
        raise InvalidInputError(
            f"{address} is not here, and no digests of its objects are kept (they are when it is "
            "proved); `recall get` brings it back.",
            details={"path": entry.path},
        )
    return contents


def _things(address: str) -> str:
    return "file" if Path(address).is_dir() else "object"


def _print(found: Difference, things: str) -> None:
    if found.differences:
        print_table(
            [things, "differs in", "A", "B", "how much"],
            [
                [str(item), item.what, *_sides(item), how_much(item.values)]
                for item in found.differences[:_MOST_ROWS]
            ],
        )
        left = len(found.differences) - _MOST_ROWS
        if left > 0:
            say(f"… and {left:,} more; --json or --html shows all.")
        say(f"{found.differing:,} of {count_things(found.compared, things)} differ.")
    say(f"{found.verdict}.")


def _sides(item: ObjectDifference) -> tuple[str, str]:
    if item.values is not None and item.values.examples:
        return item.values.examples[0][1], item.values.examples[0][2]
    return item.one, item.other


def how_much(values: ValueDifference | None) -> str:
    """Say how far arrays are apart, in a line."""
    if values is None:
        return ""
    place = f", first at [{', '.join(map(str, values.first))}]" if values.first else ""
    text = f"{values.count:,} of {values.total:,} values{place}"
    if values.largest_absolute is not None:
        text += f"; at most {values.largest_absolute:.3g} (relative {values.largest_relative:.3g})"
    if values.beyond != values.count:
        text += f"; {values.beyond:,} beyond the tolerance"
    return text
