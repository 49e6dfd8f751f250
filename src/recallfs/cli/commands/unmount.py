"""``recall unmount``."""

from __future__ import annotations

from pathlib import Path

import click

from recallfs.cli.output import say
from recallfs.errors import InvalidInputError


@click.command(name="unmount")
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--lazy", is_flag=True, help="Even while programs use it: they finish first.")
def command(mountpoint: Path, lazy: bool) -> int:
    """Unmount a store.

    Example: recall unmount /mnt/analysis
    """
    from recallfs.integrations.mount import point

    place = point.resolved(mountpoint)
    if point.mounted(place) is None:
        raise InvalidInputError(f"no store is mounted at {place}.")
    point.unmount(place, lazy=lazy)
    say(f"{place} is unmounted.")
    return 0
