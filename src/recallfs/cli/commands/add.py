"""``recall add``."""

from __future__ import annotations

from collections import Counter

import click

from recallfs.catalog.store import Store
from recallfs.cli.batch import print_failures
from recallfs.cli.output import byte_bar, count_files, count_things, print_json, say, warn
from recallfs.errors import InvalidInputError, RecallError
from recallfs.resolve.commit import add_existing
from recallfs.resolve.stores import stores_in_reach
from recallfs.resolve.tree import files_below, needs_adding
from recallfs.values import State, format_size


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
    skipped: Counter[str] = Counter()
    failed: list[RecallError] = []
    for address in paths:
        store, path = stores.resolve(address)
        place = store.locate(path)
        if not place.exists() and not place.is_symlink():
            raise InvalidInputError(f"{address} does not exist.", kind="invalid-path")
        found = list(files_below(store, path, skipped=lambda _path, what: skipped.update([what])))
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
    warnings = [
        f"skipped {count_things(count, what)}; only regular files can be recorded."
        for what, count in sorted(skipped.items())
    ]
    for store, names in wanted.values():
        warnings += filter(None, (_dependents_warning(store, name) for name in names))
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
        print_json(
            {"added": rows, "unchanged": unchanged, "failed": failures, "warnings": warnings}
        )
        return 1 if failed else 0
    say(
        f"Added {count_files(len(added))}, {format_size(total)}; "
        f"{seen - len(added) - len(failed)} were in the catalog already."
    )
    for line in warnings:
        warn(line)
    print_failures(failed)
    return 1 if failed else 0


def _dependents_warning(store: Store, path: str) -> str | None:
    """Say what was made from a file whose change is about to be accepted."""
    earlier = store.catalog.entry_at(path)
    made = store.catalog.dependents(earlier) if earlier is not None else []
    if not made:
        return None
    url = store.url(path)
    line = f"{url} was changed, and {count_files(len(made))} were made from what it held before"
    line += f" (first {store.url(made[0].path)})"
    gone = [entry for entry in made if entry.state is not State.RESIDENT]
    if gone:
        line += f"; {len(gone):,} of them are not here and can no longer be recomputed from it"
    return f"{line}. Put the original back, or make them anew with `recall run`."
