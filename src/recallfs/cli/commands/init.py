"""``recall init``."""

from __future__ import annotations

from pathlib import Path

import click

from recallfs.catalog.store import create_store
from recallfs.cli.output import print_json, say, warn
from recallfs.config import config_path, load_config, register_store, unregister_store
from recallfs.doctor.places import inner_stores
from recallfs.errors import InvalidInputError
from recallfs.release.release import vault_warning


@click.command(name="init")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", help="What to call the store in URLs; by default the folder's name.")
@click.option(
    "--vault",
    type=click.Path(path_type=Path),
    help="Folder on another disk for copies of the evidence; by default DIR.recall-vault.",
)
@click.option(
    "--offline", is_flag=True, help="Never ask public services (Kachery, DANDI) for its files."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    folder: Path, name: str | None, vault: Path | None, offline: bool, as_json: bool
) -> None:
    """Make DIR the root of a store. Files in it are left as they are; it can be repeated.

    Example: recall init /data/analysis --name analysis --vault /backup/vault
    """
    config = load_config()  # a broken configuration is said before anything is made
    root = folder.expanduser().resolve()
    known = (n for n, settings in config.stores.items() if settings.root.resolve() == root)
    name = name or next(known, root.name)
    if not name:
        raise InvalidInputError("the root folder of the computer needs a --name.")
    for inner in inner_stores(root):
        raise InvalidInputError(
            f"{inner} inside {root} is a store already; stores cannot be nested.",
            kind="invalid-path",
            details={"inner": str(inner)},
        )
    # The name is claimed before the folder is changed: a name that is taken changes nothing.
    added = register_store(name, root, offline=offline)
    try:
        settings = load_config().store_settings(name)
        store = create_store(
            root, name, vault=vault and vault.expanduser().resolve(), settings=settings
        )
    except BaseException:
        if added:
            unregister_store(name)
        raise
    warning = vault_warning(store)
    if as_json:
        print_json(
            {
                "name": store.name,
                "root": str(store.root),
                "id": store.id,
                "vault": str(store.vault),
                "config": str(config_path()),
                "registered": added,
                "warnings": [warning] if warning else [],
            }
        )
        return
    say(f"Store {store.name!r} at {store.root} (recall://{store.name}/).")
    say(f"Vault: {store.vault}. Configuration: {config_path()}.")
    if warning:
        warn(warning)
