"""``recall try-environments``."""

from __future__ import annotations

import click

from recallfs.catalog.records import known_entry
from recallfs.cli.completion import complete_address
from recallfs.cli.output import byte_bar, print_json, print_table, say
from recallfs.cli.proving import hide_option, level_option
from recallfs.environment.compare import Difference, is_of_packages
from recallfs.release.elsewhere import Tried, try_environments
from recallfs.resolve.stores import stores_in_reach
from recallfs.resolve.wish import Wish
from recallfs.values import Level

_NAMED = 6


@click.command(name="try-environments")
@click.argument("url", shell_complete=complete_address)
@click.option(
    "--env",
    "names",
    multiple=True,
    metavar="ID",
    help="Try this one, by label, digest or path of an interpreter; may be given several times.",
)
@hide_option
@level_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *, url: str, names: tuple[str, ...], hiding: str, level: str | None, as_json: bool
) -> int:
    """Prove a file in one recorded environment after the other, until one gives it back.

    Begins with the file's own environment; `--env` names others, such as a virtual environment
    (its folder or its interpreter) that no recipe ran in yet, which is put on record then. Says of
    those that did not match in what they differ from the one that did. The proof counts as any
    other, so recalls run in that environment then. Exit code 1 if none matched.

    Example: recall try-environments recall://analysis/sub-1/lfp.nwb
    """
    stores = stores_in_reach()
    store, path = stores.resolve(url)
    entry = known_entry(store, path)
    with byte_bar("trying", 0, quiet=as_json) as progress:
        tried = try_environments(
            stores,
            store,
            entry,
            names,
            Wish(progress=progress),
            hiding=hiding,
            level=None if level is None else Level(level),
        )
    has_matched = any(each.proved for each in tried)
    if as_json:
        print_json({"url": store.url(path), "tried": [_document(each) for each in tried]})
        return 0 if has_matched else 1
    print_table(
        ["environment", "result", "seconds>", "differs from the one that matched"],
        [
            [
                each.label,
                each.proved.proof.level.value if each.proved else "no match",
                f"{each.seconds:.1f}",
                _shown(each.differences),
            ]
            for each in tried
        ],
    )
    for each in tried:
        if each.error is not None:
            message = each.error.message
            say(message if each.label in message else f"{each.label}: {message}")
    if not has_matched:
        say("None of them gives the file back; --env tries another, by its path, too.")
    return 0 if has_matched else 1


def _shown(differences: tuple[Difference, ...]) -> str:
    """Name what differs; packages come first, and are all named."""
    count = max(_NAMED, sum(map(is_of_packages, differences)))
    named = [f"{d.what} {d.one or 'none'} → {d.other or 'none'}" for d in differences[:count]]
    more = [f"{len(differences) - count} more"] if len(differences) > count else []
    return ", ".join([*named, *more])


def _document(each: Tried) -> dict[str, object]:
    return {
        "environment": each.identifier,
        "label": each.label,
        "seconds": each.seconds,
        "proof": each.proved.proof.id if each.proved else None,
        "level": each.proved.proof.level.value if each.proved else None,
        "error": None if each.error is None else each.error.to_json(),
        "differences": [{"what": d.what, "one": d.one, "other": d.other} for d in each.differences],
    }
