"""``recall mount``."""

from __future__ import annotations

from pathlib import Path

import click

from recallfs.catalog.store import Store
from recallfs.cli.completion import complete_store
from recallfs.cli.output import print_json, say
from recallfs.errors import InvalidInputError
from recallfs.resolve.stores import Stores, stores_in_reach


@click.command(name="mount")
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--store", "name", shell_complete=complete_store, help="Store to mount.")
@click.option("--foreground", is_flag=True, help="Stay, and end with Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(mountpoint: Path, name: str | None, foreground: bool, as_json: bool) -> int:
    """Mount a store as a folder in which any program can open released files.

    MOUNTPOINT is an empty folder, or the store's root itself. `recall unmount` ends it.

    Example: recall mount /mnt/analysis --store analysis
    """
    from recallfs.integrations.mount import session

    stores = stores_in_reach()
    store = _chosen(stores, name)
    if foreground:
        session.configure_log(stores)
        session.serve(stores, store, mountpoint)
        return 0
    written = session.start(store, mountpoint)
    if as_json:
        print_json({"store": store.name, "mountpoint": str(mountpoint), "log": str(written)})
    else:
        say(f"{store.url('').rstrip('/')} is mounted at {mountpoint}; its log is {written}")
    return 0


def _chosen(stores: Stores, name: str | None) -> Store:
    if name is not None:
        return stores.by_name(name)
    names = stores.names()
    if len(names) != 1:
        raise InvalidInputError(
            f"say which store to mount with --store: {', '.join(names)}."
            if names
            else "there is no store to mount; `recall init DIR --name NAME` makes one."
        )
    return stores.by_name(names[0])
