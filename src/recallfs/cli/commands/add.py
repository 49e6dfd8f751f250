"""``recall add``."""

from __future__ import annotations

import click

from recallfs.catalog.store import Store
from recallfs.cli.batch import print_failures
from recallfs.cli.output import byte_bar, count_files, print_json, say
from recallfs.errors import InvalidInputError, RecallError
from recallfs.resolve.commit import add_existing
from recallfs.resolve.stores import stores_in_reach
from recallfs.resolve.tree import files_below, needs_adding
from recallfs.values import format_size


@click.command(name="add")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(paths: tuple[str, ...], as_json: bool) -> int:
    """Catalog existing files of a store; folders are taken whole. Bytes are read once.

    A file that was changed since it was recorded is accepted as it is now.

    Example: recall add /data/analysis/sub-1
    """
    stores = stores_in_reach()
    wanted: dict[str, tuple[Store, list[str]]] = {}
    seen = 0
    failed: list[RecallError] = []
    for address in paths:
        store, path = stores.resolve(address)
        found = list(files_below(store, path)) if store.locate(path).exists() else None
        if found is None:
            raise InvalidInputError(f"{address} does not exist.", kind="invalid-path")
        seen += len(found)
        names = wanted.setdefault(store.id, (store, []))[1]
        known = set(names)
        for name in found:
            try:
                if name not in known and needs_adding(store, name):
                    names.append(name)
            except RecallError as error:
                if len(found) == 1:
                    raise
                failed.append(error)
    total = sum(store.locate(n).stat().st_size for store, names in wanted.values() for n in names)
    added = []
    with byte_bar("adding", total, quiet=as_json) as progress:
        for store, names in wanted.values():
            added += [(store, entry) for entry in add_existing(store, names, progress=progress)]
    if as_json:
        rows = [
            {"url": store.url(e.path), "size_bytes": e.size_bytes, "sha256": e.sha256, "id": e.id}
            for store, e in added
        ]
        unchanged = seen - len(added) - len(failed)
        failures = [error.to_json() for error in failed]
        print_json({"added": rows, "unchanged": unchanged, "failed": failures})
        return 1 if failed else 0
    say(
        f"Added {count_files(len(added))}, {format_size(total)}; "
        f"{seen - len(added) - len(failed)} were in the catalog already."
    )
    print_failures(failed)
    return 1 if failed else 0
