"""``recall survey``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from recallfs.cli.output import bar, count_bar, count_files, print_json, print_table, say, warn
from recallfs.cli.rows import query_of
from recallfs.config import load_config
from recallfs.errors import RecallError
from recallfs.release.kinds import shown
from recallfs.release.survey import Amount, Survey, Told, largest
from recallfs.release.walk import survey
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import format_size

_ROWS = 20
_AGES = {
    "month": "in the last month",
    "quarter": "1 to 3 months ago",
    "year": "3 to 12 months ago",
    "two_years": "1 to 2 years ago",
    "older": "longer ago",
}
_KEPT = {
    "never": "the mount keeps no access times (noatime): those shown are old, go by 'modified'",
    "daily": "the mount notes an access once a day at most (relatime), so a day's error is usual",
    "always": "the mount notes every access, also by backups and scanners",
}


@click.command(name="survey")
@click.argument(
    "folders",
    metavar="DIR...",
    type=click.Path(path_type=Path),
    nargs=-1,
)
@click.option(
    "--spyglass",
    "restriction",
    metavar="[RESTRICTION]",
    is_flag=False,
    flag_value="",
    help="Instead of folders, the tables of a Spyglass database: all, or TABLE or "
    "'TABLE & CONDITION', as `recall adopt` takes it.",
)
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="How many folders deep sums are told apart.",
)
@click.option("--all-file-systems", "cross", is_flag=True, help="Enter what is mounted below, too.")
@click.option(
    "--look-into",
    metavar="N",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="How many NWB files, picked at random, are opened to see what they are.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # noqa: PLR0917 - each is an option
    folders: tuple[Path, ...],
    restriction: str | None,
    depth: int,
    cross: bool,
    look_into: int,
    as_json: bool,
) -> int:
    """Show what lies in folders: by folder, age and kind, and what stores know of it.

    Nothing is changed, and no configuration is needed. No link is followed. A file with several
    names counts once, and a file with holes as what it takes on disk. Access times stay as they are
    where the system allows that: on Linux for the owner of a folder and for root.

    Kinds go by the endings of names, and by files that mark a folder (Zarr, SpikeInterface). That a
    file *could* be made by a recipe is not guessed: only what a catalog says is shown.

    With `--spyglass`: the size of the files of each table, when one of them was last read, and
    which recipes bring them back. Spyglass must be installed beside recallfs.

    The exit code is 1 if a folder could not be read.

    Example: recall survey /data --depth 2
    """
    if bool(folders) == (restriction is not None):
        raise click.UsageError("Give folders, or --spyglass.")
    if restriction is not None:
        return _survey_tables(restriction, as_json=as_json)
    catalogs, problem = _catalogs()
    with count_bar("files", quiet=as_json) as progress:
        found = survey(
            folders,
            depth=depth,
            cross=cross,
            look_into=look_into,
            catalogs=catalogs,
            progress=progress,
        )
    if problem:
        warn(f"the configuration cannot be used, so catalogs on servers are not asked: {problem}")
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    return 1 if found.unreadable.count else 0


def _survey_tables(restriction: str, *, as_json: bool) -> int:
    """Show the tables of a Spyglass database."""
    from recallfs.integrations.spyglass.amounts import survey as survey_tables

    queries = [query_of(stores_in_reach(), restriction)] if restriction else []
    found = survey_tables(*queries)
    if as_json:
        print_json({"tables": [amount.to_json() for amount in found]})
        return 0
    total = sum(amount.size_bytes for amount in found)
    print_table(
        ["table", "files>", "size>", "", "here>", "accessed", "adopted>", "released>", "recipe"],
        [
            [
                amount.table.replace("`", ""),
                f"{amount.files:,}",
                format_size(amount.size_bytes),
                bar(amount.size_bytes, total),
                format_size(amount.there_bytes),
                amount.last_access[:10],
                f"{amount.adopted_files:,}",
                f"{amount.released_files:,}",
                ", ".join(amount.recipes) or "-",
            ]
            for amount in found
            if amount.files
        ],
    )
    known = sum(amount.size_bytes for amount in found if amount.recipes)
    say(
        f"{format_size(total)} in {count_files(sum(amount.files for amount in found))}; recipes "
        f"are declared for {format_size(known)} of it."
    )
    for amount in found:
        if amount.attempts:
            say(
                f"{amount.table.replace('`', '')}: Spyglass has logged {amount.attempts:,} "
                f"recomputes, {amount.matched:,} as matched, and deleted {amount.deleted:,} files "
                "after one. None of that is a proof."
            )
    return 0


def _catalogs() -> tuple[dict[Path, str], str]:
    """Return the catalogs that are on servers, and what is wrong with the configuration."""
    try:
        stores = load_config().stores.values()
    except RecallError as error:
        return {}, error.message
    return {
        Path(os.path.realpath(settings.root)): settings.catalog
        for settings in stores
        if settings.catalog is not None
    }, ""


def _print(found: Survey) -> None:
    total = found.total
    say(", ".join(map(shown, found.roots)), style="bold")
    say(
        f"{count_files(total.files)} in {found.folder_count:,} folders take "
        f"{format_size(total.disk_bytes)} on disk and are {format_size(total.size_bytes)} long; "
        f"looked at in {found.seconds:.1f} s."
    )
    _print_folders(found)
    _print_ages(found)
    _print_kinds(found)
    _print_nwb(found)
    _print_stores(found)
    say("")
    for line in _remarks(found):
        say(line)
    _print_told(found.other_file_systems, "other file systems were not entered", "dim")
    _print_told(found.unreadable, "places could not be read, and are not counted", "red")


def _print_folders(found: Survey) -> None:
    whole = found.total.disk_bytes
    rows = [
        [
            shown(path),
            f"{item.files:,}",
            format_size(item.disk_bytes),
            bar(item.disk_bytes, whole),
            item.last_modified[:10],
            item.last_accessed[:10],
        ]
        for path, item in largest(found.folders)
    ]
    columns = ["folder, with all below it", "files>", "on disk>", "", "modified", "accessed"]
    say("")
    print_table(columns, rows[:_ROWS])
    if len(rows) > _ROWS:
        say(f"and {len(rows) - _ROWS:,} smaller folders; --json names them all")


def _print_ages(found: Survey) -> None:
    rows = [
        [
            words,
            f"{found.modified[age].files:,}",
            format_size(found.modified[age].disk_bytes),
            f"{found.accessed[age].files:,}",
            format_size(found.accessed[age].disk_bytes),
        ]
        for age, words in _AGES.items()
    ]
    say("")
    print_table(["last", "modified>", "on disk>", "accessed>", "on disk>"], rows)
    for item in found.access_times:
        server = " The server has the last word on that." if item["is_network"] else ""
        say(f"{item['path']}: {_KEPT[item['kept']]}.{server}", style="dim")


def _print_kinds(found: Survey) -> None:
    rows = _amount_rows(found.kinds, found.total)
    for row in rows:
        folders = found.kind_folders.get(row[0])
        row.append(f"in {folders:,} of them" if folders else "")
    say("")
    print_table(["kind", "files>", "on disk>", "", "folders"], rows)
    endings = [
        f"{shown(ending) or 'none'} ({format_size(item.disk_bytes)})"
        for ending, item in largest(found.endings)[:8]
    ]
    if endings:
        say(f"endings of 'other': {', '.join(endings)}", style="dim")


def _amount_rows(amounts: Mapping[str, Amount], total: Amount) -> list[list[str]]:
    return [
        [
            name,
            f"{item.files:,}",
            format_size(item.disk_bytes),
            bar(item.disk_bytes, total.disk_bytes),
        ]
        for name, item in largest(amounts)
    ]


def _print_nwb(found: Survey) -> None:
    if not found.nwb_looked_into + found.nwb_unread:
        return
    say("")
    unread = f"; {found.nwb_unread:,} more could not be read" if found.nwb_unread else ""
    say(f"{count_files(found.nwb_looked_into)} of NWB looked into, picked at random{unread}:")
    for what, counts in (
        ("schema versions", found.nwb_versions),
        ("written by", found.nwb_writers),
        ("types", found.nwb_types),
    ):
        most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:12]
        if most:
            say(f"  {what}: {', '.join(f'{name} ({count:,})' for name, count in most)}")


def _print_stores(found: Survey) -> None:
    if not found.stores:
        say("")
        say("None of this is in a store, so nothing has a recipe on record.")
        return
    rows = [
        [
            f"{store.name} ({shown(store.root)})".strip(),
            *(
                f"{item.files:,}, {format_size(item.disk_bytes)}"
                for item in (store.catalogued, store.with_recipe, store.proved)
            ),
        ]
        for store in found.stores
        if not store.problem
    ]
    say("")
    if rows:
        print_table(["store", "catalogued", "made by a recipe", "proved"], rows)
    for store in found.stores:
        if store.problem:
            warn(f"{shown(store.root)}: what is known of its files cannot be told: {store.problem}")


def _remarks(found: Survey) -> Iterator[str]:
    if found.linked.files:
        yield (
            f"{count_files(found.linked.files)} ({format_size(found.linked.disk_bytes)}) have "
            f"several names and count once; {found.more_names:,} more names were met."
        )
    if found.sparse.files:
        hidden = found.sparse.size_bytes - found.sparse.disk_bytes
        yield (
            f"{count_files(found.sparse.files)} have holes or are compressed by the file system, "
            f"and take {format_size(hidden)} less than they are long."
        )
    if found.links or found.special:
        yield (
            f"{found.links:,} symbolic links were not followed; "
            f"{found.special:,} pipes, sockets and devices were passed over."
        )
    if found.vanished:
        yield f"{count_files(found.vanished)} or folders went away meanwhile."


def _print_told(told: Told, words: str, style: str) -> None:
    if told.count:
        say(f"{told.count:,} {words}:", style=style)
        for item in told.first[:5]:
            say(f"  {item['path']} {item['why']}".rstrip(), style=style)
