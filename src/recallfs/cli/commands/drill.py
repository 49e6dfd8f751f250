"""``recall drill``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click

from recallfs.catalog.store import Store
from recallfs.cli.completion import complete_address
from recallfs.cli.output import byte_bar, console, print_json, print_table, say, told_warnings
from recallfs.errors import InvalidInputError
from recallfs.release.drill import Drilled, draw, drill, from_vault, shares
from recallfs.resolve.chain import Limits, known_source
from recallfs.resolve.selection import glob_pattern, select
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.resolve.wish import Wish
from recallfs.sources.recompute import RecomputeSource
from recallfs.values import Entry, RecallURL, display_name, format_size


@click.command(name="drill")
@click.argument("selection", shell_complete=complete_address, nargs=-1)
@click.option("--sample", default=20, show_default=True, type=click.IntRange(1), help="Files.")
@click.option(
    "--from",
    "source",
    help="Only this source, by default as usual; with recompute, only files that a recipe makes.",
)
@click.option(
    "--from-vault",
    "vault",
    is_flag=False,
    flag_value="",
    metavar="[DIR]",
    help="By what the vault holds alone, neither .recall nor the catalog; by default the vault "
    "that the store has. Selections are then addresses of stores or below.",
)
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="With --from-vault, where to work; by default in the folder for temporary files.",
)
@click.option("--seed", type=int, help="Draw the same files again.")
@click.option("--quiet", is_flag=True, help="Print nothing when all came back; for cron.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # noqa: PLR0917 - each is an option
    selection: tuple[str, ...],
    sample: int,
    source: str | None,
    vault: str | None,
    scratch: Path | None,
    seed: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Bring random released files back to a folder of their own, compare, and throw them away.

    Neither the trash nor a cache counts: what they hold will not be there one day. With
    --from-vault the store's own records do not count either, and no proof is revoked. A recipe that
    fails or gives something else revokes its proof of that file; a source that is out of reach only
    fails the drill. The exit code is 1 if any file did not come back.

    Example: recall drill --sample 20 --from recompute --quiet
    """
    stores = stores_in_reach()
    source = known_source(stores, source)
    if source in ("trash", "cache"):
        raise InvalidInputError(f"a drill from the {source} says nothing of the day it is empty.")
    only_made = source == RecomputeSource.name
    if scratch is not None and vault is None:
        raise click.UsageError("--scratch belongs to --from-vault.")
    with contextlib.ExitStack() as stack:
        if vault is None:
            found = draw(_everything(stores, selection), sample, seed, only_made=only_made)
        else:
            names, wanted = _named(stores, selection)
            place = Path(vault).absolute() if vault else None
            opened = from_vault(stores.config, names, place, scratch)
            stores, known = stack.enter_context(opened)
            wanted_ones = (item for item in known if wanted(item))
            found = draw(wanted_ones, sample, seed, only_made=only_made)
        total = sum(entry.size_bytes for _, entry in found)
        progress = stack.enter_context(byte_bar("drilling", total, quiet=as_json or quiet))
        wish = Wish(limits=Limits(only=source, from_afar=True), progress=progress)
        stack.enter_context(told_warnings())
        drilled = [drill(stores, store, entry, wish) for store, entry in found]
    return _tell(drilled, quiet=quiet, as_json=as_json)


def _everything(stores: Stores, selection: Sequence[str]) -> Iterable[tuple[Store, Entry]]:
    if selection:
        return select(stores, selection)
    return ((store, entry) for store in stores.all() for entry in store.catalog.entries_below(""))


def _named(
    stores: Stores, selection: Sequence[str]
) -> tuple[list[str], Callable[[tuple[Store, Entry]], bool]]:
    """Return the stores that addresses name, without opening one, and what tells their files."""
    urls = [RecallURL.parse(address) for address in selection]

    def is_wanted(item: tuple[Store, Entry]) -> bool:
        store, entry = item
        return not urls or any(
            url.store == store.name
            and (
                url.path in ("", entry.path)
                or entry.path.startswith(f"{url.path}/")
                or glob_pattern(url.path).fullmatch(entry.path) is not None
            )
            for url in urls
        )

    return list(dict.fromkeys(url.store for url in urls)) or stores.names(), is_wanted


def _tell(drilled: Sequence[Drilled], *, quiet: bool, as_json: bool) -> int:
    failed = [item for item in drilled if item.error is not None]
    rows = shares(drilled)
    if as_json:
        files = [{**vars(item), "error": item.error and item.error.to_json()} for item in drilled]
        print_json({"files": files, "shares": [vars(row) for row in rows]})
        return 1 if failed else 0
    if quiet and not failed:
        return 0
    if not drilled:
        say("no file is released, so there is nothing to drill.")
        return 0
    print_table(
        ["file", "recipe", "size>", "from", "level", "seconds>"],
        [
            [
                item.url,
                item.recipe or "-",
                format_size(item.size_bytes),
                item.source or "DID NOT COME BACK",
                item.level or "-",
                f"{item.seconds:.2f}",
            ]
            for item in drilled
        ],
    )
    print_table(
        ["recipe", "drilled>", "came back>", "share>", "of all such files, at least>"],
        [
            [
                row.recipe or "none",
                str(row.drilled),
                str(row.came_back),
                f"{row.came_back / max(1, row.drilled):.0%}",
                f"{row.low:.0%} (95% sure)",
            ]
            for row in rows
        ],
        title="\nrecallable",
    )
    for item in failed:
        line = display_name(f"error: {item.error}")
        if item.revoked:
            line = f"{line.removesuffix('.')}. Its proof was revoked ({len(item.revoked)})."
        console(error=True).print(line, markup=False, soft_wrap=True)
    return 1 if failed else 0
