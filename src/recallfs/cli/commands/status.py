"""``recall status``."""

from __future__ import annotations

from typing import Any

import click

from recallfs.catalog.store import Store
from recallfs.cli.output import count_files, print_json, print_table, say
from recallfs.errors import InvalidInputError
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import format_size, now_utc


@click.command(name="status")
@click.argument("names", metavar="[STORE...]", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Show what the stores hold, what is released and what could be.

    Example: recall status analysis
    """
    stores = stores_in_reach()
    chosen = [stores.by_name(name) for name in names] or list(stores.all())
    if not chosen:
        raise InvalidInputError(
            "no store is configured; `recall init DIR --name NAME` makes one.",
            kind="unknown-store",
        )
    pages = [_page(store) for store in chosen]
    if as_json:
        print_json({"stores": pages})
        return
    for page in pages:
        _print(page)


def _page(store: Store) -> dict[str, Any]:
    totals = store.catalog.totals()
    trashed = {"files": 0, "size_bytes": 0}
    for entry_id in store.catalog.trashed():
        entry = store.catalog.entry(entry_id)
        if entry is not None:
            trashed["files"] += 1
            trashed["size_bytes"] += entry.size_bytes
    return {
        "name": store.name,
        "root": str(store.root),
        "vault": str(store.vault),
        "states": {
            state: {"files": count, "size_bytes": size} for state, (count, size) in totals.items()
        },
        "in_trash": trashed,
        "proved_and_resident": store.catalog.proved(now_utc()),
        "recalls": [
            {"source": source, "files": count, "size_bytes": size, "seconds": seconds}
            for source, count, size, seconds in store.catalog.recall_totals()
        ],
    }


def _print(page: dict[str, Any]) -> None:
    say(f"{page['name']}  {page['root']}")
    order = ("resident", "released", "missing", "dirty", "conflict", "lost")
    rows = [
        [state, f"{item['files']:,}", format_size(item["size_bytes"])]
        for state, item in sorted(page["states"].items(), key=lambda pair: order.index(pair[0]))
    ]
    rows.append(
        [
            "all",
            f"{sum(item['files'] for item in page['states'].values()):,}",
            format_size(sum(item["size_bytes"] for item in page["states"].values())),
        ]
    )
    print_table(["state", "files>", "size>"], rows)
    proved = page["proved_and_resident"]
    say(
        f"Could be released now (resident, proved): {count_files(proved['files'])}, "
        f"{format_size(proved['size_bytes'])}."
    )
    trash = page["in_trash"]
    if trash["files"]:
        say(
            f"In the trash, not freed yet: {count_files(trash['files'])}, "
            f"{format_size(trash['size_bytes'])}; `recall release --purge` frees what is due."
        )
    if page["recalls"]:
        print_table(
            ["recalled from", "files>", "size>", "seconds>"],
            [
                [
                    item["source"],
                    f"{item['files']:,}",
                    format_size(item["size_bytes"]),
                    f"{item['seconds']:.1f}",
                ]
                for item in page["recalls"]
            ],
        )
    say("")
