"""``recall add``."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from recallfs.catalog.store import Store
from recallfs.cli.batch import print_failures
from recallfs.cli.output import (
    byte_bar,
    count_bar,
    count_files,
    count_things,
    print_json,
    say,
    warn,
)
from recallfs.errors import InvalidInputError, RecallError
from recallfs.resolve.commit import add_existing
from recallfs.resolve.dandisets import catalog_dandiset
from recallfs.resolve.stores import stores_in_reach
from recallfs.resolve.tree import files_below, needs_adding
from recallfs.sources.dandi import DandiSource
from recallfs.values import Entry, State, format_size


@click.command(name="add")
@click.argument("paths", metavar="PATH...", nargs=-1)
@click.option(
    "--from-dandi",
    "dandiset",
    metavar="DANDISET[@VERSION]",
    help="Catalog a dandiset instead: its files are brought when they are first opened.",
)
@click.option("--path", "glob", metavar="GLOB", help="Of a dandiset, only the paths that match.")
@click.option(
    "--to",
    "folder",
    metavar="recall://STORE/FOLDER",
    help="Where the files of a dandiset go; by default the folder you are in.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    paths: tuple[str, ...],
    dandiset: str | None,
    glob: str | None,
    folder: str | None,
    as_json: bool,
) -> int:
    """Catalog existing files of a store; folders are taken whole. Bytes are read once.

    A file that was changed since it was recorded is accepted as it is now. With --from-dandi, the
    files of a dandiset become entries without a byte being downloaded.

    Example: recall add /data/analysis/sub-1

    Example: recall add --from-dandi 000006@0.220126.1855 --to recall://lab/000006
    """
    if dandiset is not None:
        if paths:
            raise InvalidInputError("give either PATH or --from-dandi, not both.")
        return _add_dandiset(dandiset, glob, folder or ".", as_json)
    if not paths:
        raise InvalidInputError("say what to catalog: a PATH, or --from-dandi DANDISET.")
    if glob is not None or folder is not None:
        raise InvalidInputError("--path and --to go with --from-dandi.")
    return _add_files(paths, as_json)


def _add_dandiset(dandiset: str, glob: str | None, folder: str, as_json: bool) -> int:
    stores = stores_in_reach()
    store, path = stores.resolve(folder)
    source = next((s for s in stores.remotes() if isinstance(s, DandiSource)), None)
    if source is None or store.settings.offline:
        raise InvalidInputError(
            f"DANDI is turned off for the store {store.name!r}; see `enabled` in [sources.dandi] "
            "and `offline` of the store."
        )
    rows: list[dict[str, Any]] = []

    def note(entry: Entry) -> None:
        if as_json:
            rows.append(_row(store, entry))

    with count_bar("cataloguing", quiet=as_json) as tell:

        def progress(done: int, assets: int | None) -> None:
            tell(f"dandiset {dandiset}" + (f", {assets:,} assets" if assets else ""), done)

        report = catalog_dandiset(
            store, source, dandiset, folder=path, glob=glob, progress=progress, added=note
        )
    # What it has not was asked before it was known where it has it.
    stores.memory.forget(source)
    done = report.added + report.unchanged + len(report.failed)
    if not done and glob is not None:
        raise InvalidInputError(
            f"dandiset {report.dandiset}@{report.version} has no file that matches {glob!r}."
        )
    if as_json:
        failures = [error.to_json() for error in report.failed]
        document = {"added": rows, "unchanged": report.unchanged, "failed": failures}
        print_json({**document, "warnings": []})
    else:
        say(
            f"Catalogued {count_files(report.added)} of dandiset {report.dandiset}@"
            f"{report.version}, {format_size(report.size_bytes)}; {report.unchanged} were in the "
            "catalog already. They come when they are opened."
        )
        print_failures(report.failed)
    return 1 if report.failed else 0


def _row(store: Store, entry: Entry) -> dict[str, Any]:
    return {
        "url": store.url(entry.path),
        "size_bytes": entry.size_bytes,
        "sha256": entry.sha256,
        "id": entry.id,
    }


def _add_files(paths: tuple[str, ...], as_json: bool) -> int:
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
        rows = [_row(store, entry) for store, entry in added]
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
