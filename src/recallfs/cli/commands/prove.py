"""``recall prove``."""

from __future__ import annotations

import click

from recallfs.cli.batch import for_each, print_failures
from recallfs.cli.completion import complete_address
from recallfs.cli.output import byte_bar, print_json, print_table
from recallfs.release.proof import HIDING, Runs, by_derivation, prove
from recallfs.resolve.recall import Wish
from recallfs.resolve.selection import select
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import format_size


@click.command(name="prove")
@click.argument("selection", shell_complete=complete_address, nargs=-1, required=True)
@click.option(
    "--hide",
    "hiding",
    type=click.Choice(HIDING),
    default="namespace",
    show_default=True,
    help="How the original is put out of the recipe's sight.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(selection: tuple[str, ...], hiding: str, as_json: bool) -> int:
    """Run recipes again with the originals out of their sight, and compare byte for byte.

    By default store, vault and local mirrors are covered by empty folders that only the recipe's
    process sees. Where the kernel forbids that, `--hide aside` renames the original away while the
    recipe runs: reading through recallfs waits that long, other programs miss the file.
    Files that one run gives, such as those of a folder, are proved by one run, except with aside.

    Example: recall prove 'recall://analysis/sub-1/*_lfp.nwb'
    """
    stores = stores_in_reach()
    found = select(stores, selection)
    with byte_bar("proving", sum(e.size_bytes for _, e in found), quiet=as_json) as progress:
        wish = Wish(progress=progress)
        with Runs() as runs:
            proved, failed = for_each(
                by_derivation(found),
                lambda store, entry: prove(stores, store, entry, wish, hiding=hiding, runs=runs),
            )
    if as_json:
        rows = [
            {
                "url": item.url,
                "proof": item.proof.id,
                "level": item.proof.level.value,
                "method": item.proof.method,
                "seconds": item.proof.seconds,
                "valid_until": item.proof.valid_until,
                "size_bytes": item.size_bytes,
                "kept_bytes": item.kept_bytes,
            }
            for item in proved
        ]
        print_json({"proved": rows, "failed": [error.to_json() for error in failed]})
        return 1 if failed else 0
    print_table(
        ["file", "size>", "level", "how", "seconds>", "kept>", "valid until"],
        [
            [
                item.url,
                format_size(item.size_bytes),
                item.proof.level.value,
                item.proof.method,
                f"{item.proof.seconds:.1f}",
                format_size(item.kept_bytes),
                item.proof.valid_until[:10],
            ]
            for item in proved
        ],
    )
    print_failures(failed)
    return 1 if failed else 0
