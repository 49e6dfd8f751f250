"""``recall unmount``."""

from __future__ import annotations

from pathlib import Path

import click

from recallfs.cli.output import print_json, say
from recallfs.errors import InvalidInputError


@click.command(name="unmount")
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--lazy", is_flag=True, help="Even while programs use it: they finish first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(mountpoint: Path, lazy: bool, as_json: bool) -> int:
    """Unmount a store.

    Example: recall unmount /mnt/analysis
    """
    from recallfs.integrations.mount import point

    place = point.resolved(mountpoint)
    if point.mounted(place) is None:
        raise InvalidInputError(f"no store is mounted at {place}.")
    point.unmount(place, lazy=lazy)
    if as_json:
        print_json({"unmounted": str(place)})
    else:
        say(f"{place} is unmounted.")
    return 0
