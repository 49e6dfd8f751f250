"""``recall cache``."""

from __future__ import annotations

import dataclasses

import click

from recallfs.cache.cache import Cache
from recallfs.cli.output import count_files, print_json, print_table, say, warn
from recallfs.cli.overview import cache_use, label_unverified
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import format_size, parse_span


@click.group(name="cache")
def command() -> None:
    """Show and clear the cache: files kept by their digest for those who may not write to a store.

    Example: recall cache show
    """


@command.command(name="show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(as_json: bool) -> int:
    """Show how much is in your cache, and in the one that this computer's users share.

    Example: recall cache show
    """
    settings = stores_in_reach().config.cache
    use = cache_use(settings)
    problem = Cache(settings).shared_problem()
    if as_json:
        print_json({**use, "problem": problem})
        return 0
    print_table(
        ["cache", "files>", "size>", "limit>", "folder"],
        [
            [
                name,
                f"{part['files']:,}",
                format_size(part["size_bytes"]),
                format_size(part["limit_bytes"]),
                part["folder"],
            ]
            for name, part in use.items()
            if part is not None
        ],
    )
    for line in label_unverified(use):
        say(line)
    if problem is not None:
        warn(f"{settings.shared_folder}: {problem}")
    return 0


@command.command(name="clear")
@click.option("--unused", help="Only files unused for so long, for example 7d.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def clear_command(unused: str | None, as_json: bool) -> int:
    """Remove your files from the caches; as root, everybody's from the shared one.

    What a process has open stays, and so does what was used within the last minute. Nothing is lost
    by it: it can be brought again.

    Example: recall cache clear --unused 7d
    """
    span = 0.0 if unused is None else parse_span(unused).total_seconds()
    gone = Cache(stores_in_reach().config.cache).clear(unused_s=span)
    if as_json:
        print_json(dataclasses.asdict(gone))
    else:
        say(f"Removed {count_files(gone.files)}, {format_size(gone.size_bytes)}.")
    return 0
